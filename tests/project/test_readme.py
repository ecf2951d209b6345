"""The documents tell the truth: every recipe, verb, option, link and manifest in them is real."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from reconciler.cli.parser import VERBS, parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
JUSTFILE = (ROOT / "Justfile").read_text()
RECIPES = set(re.findall(r"^([a-z][a-z0-9-]*)(?: [^:\n]*)?:(?!=)", JUSTFILE, re.MULTILINE))


def recipe(name: str) -> str:
    """The recipe's head line and body."""
    found = re.search(rf"^{name}(?: [^:]*)?:.*\n(?:    .*\n)*", JUSTFILE, re.MULTILINE)
    assert found, name
    return found[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_recipe_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"\./just ([a-z][a-z0-9-]*)", page.read_text()))
    assert named <= RECIPES, named - RECIPES


def test_every_recipe_says_what_it_is_for() -> None:
    for name in RECIPES:
        assert re.search(rf"^# \S.*\n(\[.*\]\n)*{name}[ :]", JUSTFILE, re.MULTILINE), name


def commands(page: Path) -> list[list[str]]:
    """Every line of a code block that calls reconciler, as words; explanations after two blanks go."""
    found = []
    for line in re.findall(r"^ {4,}(?:\$ )?(reconciler [a-z].*)$", page.read_text(), re.MULTILINE):
        command = re.split(r"  +| \| | # ", line)[0]
        found.append(shlex.split(command))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_is_one_that_the_parser_takes(page: Path) -> None:
    for words in commands(page):
        assert parse(words[1:]).verb in {name for name, *_ in VERBS}, words


def test_there_are_commands_in_the_readme() -> None:
    assert len(commands(ROOT / "README.md")) > 5


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_readmes_two_commands_bring_what_they_need() -> None:
    for name in ("quickstart", "test"):
        assert "setup" in recipe(name).splitlines()[0], name
    assert {"lint", "types", "contracts"} <= set(recipe("test").splitlines()[0].split())


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    assert "    ./just test " in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec ./just test")


def test_the_shell_scripts_are_posix() -> None:
    for path in [ROOT / "just", ROOT / ".ci" / "run", *sorted((ROOT / "scripts").iterdir())]:
        assert path.read_text().startswith("#!/bin/sh\n"), path
        assert path.stat().st_mode & 0o111, path
        subprocess.run(["dash", "-n", str(path)], check=True)


def test_the_readmes_manifest_is_one(tmp_path: Path) -> None:
    from reconciler import loop

    image = (ROOT / "manifests" / "quickstart" / "images.yaml").read_text()
    [manifest] = re.findall(r"```yaml\n(apiVersion.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    tmp_path.chmod(0o700)
    path = tmp_path / "readme.yaml"
    path.write_text(f"{image}---\n{manifest}")
    assert "Container/web" in {str(id) for id in loop.prepare([str(path)]).desired}


@pytest.mark.parametrize("kind", ["VirtualMachine", "Container", "Image", "Network", "Disk", "Volume"])
def test_the_examples_show_every_main_kind(kind: str) -> None:
    assert any(f"kind: {kind}\n" in path.read_text() for path in (ROOT / "manifests").rglob("*.yaml"))
