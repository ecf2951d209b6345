"""The command line as a process: exit codes, streams, speed, and never a traceback."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.cli.examples import EXAMPLES
from reconciler.cli.parser import VERBS, parse
from reconciler.cli.report import scrub, scrub_argv

MAIN = [sys.executable, "-m", "reconciler.cli"]


def run(*words: str, state: Path, code: str | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """One command, whole process; ``code`` runs before main, in the same interpreter."""
    command = [*MAIN, *words]
    if code is not None:
        program = f"import sys; sys.argv[0] = 'reconciler'\n{code}\nfrom reconciler.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words]
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(state), **extra}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )


def test_every_verb_has_help_and_a_module(tmp_path: Path) -> None:
    import importlib

    for name, module, _words, _fill in VERBS:
        assert callable(importlib.import_module(f"reconciler.cli.{module}").run)
        done = run(name, "--help", state=tmp_path)
        assert done.returncode == 0, name
        assert done.stdout.startswith(f"usage: reconciler {name}"), name
        assert f"\nexamples:\n  reconciler {name}" in done.stdout, name


def test_every_verb_has_examples_that_the_grammar_takes() -> None:
    assert EXAMPLES.keys() == {name for name, *_ in VERBS}
    for verb, commands in EXAMPLES.items():
        for command in commands:
            words = [word for word in shlex.split(command, comments=True) if not word.startswith(">")]
            assert words[:2] == ["reconciler", verb]
            assert parse(words[1:]).verb == verb


def test_a_usage_error_is_a_problem_not_a_change(tmp_path: Path) -> None:
    for words in (["plan"], ["nonsense"], ["plan", "x", "--parallel"], ["apply", "x", "--parallel", "0"]):
        done = run(*words, state=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert "hint: " in done.stderr


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        ("aply x", 'reconciler: there is no verb "aply"', "did you mean apply?"),
        ("frobnicate", 'reconciler: there is no verb "frobnicate"', "reconciler --help"),
        ("--verson", "reconciler: there is no option --verson", "did you mean --version?"),
        ("apply x --paralel 3", "reconciler apply: there is no option --paralel", "did you mean --parallel?"),
        ("apply x --confirm", "reconciler apply: there is no option --confirm", "did you mean --confirm-delete?"),
        ("plan x --quickly=3", "reconciler plan: there is no option --quickly", "reconciler plan --help"),
        ("get Image web", "reconciler get: takes no more words, got 'web'", "reconciler get --help"),
        (
            "exec web ls",
            "reconciler exec: takes no more words, got 'ls'; a command stands behind --",
            "reconciler exec --help",
        ),
    ],
)
def test_what_was_meant_is_said(words: str, said: str, hint: str, tmp_path: Path) -> None:
    """Nothing is guessed: not even an option that is only cut short."""
    done = run(*words.split(), state=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{said}\n  hint: {hint}\n")


def test_behind_two_dashes_a_path_may_begin_with_one(tmp_path: Path) -> None:
    assert run("validate", "--", "-x.yaml", state=tmp_path).stderr.startswith("-x.yaml: there is no such file")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_bug(closed: str, tmp_path: Path) -> None:
    """And no file that is opened later takes its place."""
    command = f'"$0" -m reconciler.cli validate - {closed}'
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", command, sys.executable], env=environment, stdin=subprocess.DEVNULL)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])


def test_without_a_verb_help_is_shown(tmp_path: Path) -> None:
    done = run(state=tmp_path)
    assert done.returncode == 1
    assert "apply" in done.stdout


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_the_version(words: tuple[str, ...], tmp_path: Path) -> None:
    assert re.fullmatch(r"reconciler \d+\.\d+\.\d+\S* \(Python 3\.\d+\.\d+\S*\)\n", run(*words, state=tmp_path).stdout)


def test_an_unexpected_error_becomes_a_private_report_without_secrets(tmp_path: Path) -> None:
    code = (
        "import reconciler.cli.version as v\n"
        "def run(arguments): raise KeyError('password=hunter2 in here')\n"
        "v.run = run"
    )
    done = run("version", state=tmp_path, code=code)
    assert done.returncode == 3
    assert "Traceback" not in done.stdout + done.stderr
    report = Path(re.search(r"report: (.+)", done.stderr)[1])  # type: ignore[index]
    assert report.parent == tmp_path / "reports"
    assert report.stat().st_mode & 0o777 == 0o600
    assert report.parent.stat().st_mode & 0o777 == 0o700
    text = report.read_text()
    assert "Traceback" in text
    assert "Python 3" in text
    assert "hunter2" not in text


def test_a_report_finds_a_place_even_without_a_state_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code = "import reconciler.cli.version as v\nv.run = lambda arguments: 1 / 0"
    done = run("version", state=blocked, code=code, TMPDIR=str(tmp_path))
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert Path(re.search(r"report: (.+)", done.stderr)[1]).parent == tmp_path  # type: ignore[index]


def test_an_interrupt_is_130(tmp_path: Path) -> None:
    code = "import reconciler.cli.version as v\ndef run(arguments): raise KeyboardInterrupt\nv.run = run"
    done = run("version", state=tmp_path, code=code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_reader_that_leaves_is_no_bug(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(tmp_path)}
    done = subprocess.run([*MAIN, "version"], env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert not (tmp_path / "reports").exists()


def test_a_stream_that_cannot_show_a_glyph_is_no_bug(tmp_path: Path) -> None:
    code = "import reconciler.cli.version as v\nv.run = lambda arguments: print('→') or 0"
    done = run("version", state=tmp_path, code=code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "\\u2192\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_every_verb(shell: str, tmp_path: Path) -> None:
    done = run("completion", shell, state=tmp_path)
    assert done.returncode == 0
    assert all(name in done.stdout for name, *_ in VERBS)


def test_bash_accepts_the_completion(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash", state=tmp_path).stdout)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password=hunter2", "hunter2"),
        ('{"api_key": "hunter2"}', "hunter2"),
        ("--token hunter2 token=hunter2", "token=hunter2"),
        ("https://me:hunter2@example.org/x", "hunter2"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----", "hunter2"),
        ("x " + "a1B2" * 12, "a1B2a1B2"),
    ],
)
def test_what_looks_secret_is_removed_from_reports(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in scrub(text)


def test_the_words_of_the_command_are_removed_where_they_may_be_secret() -> None:
    words = ["exec", "web", "-e", "A=hunter2", "--env=B=hunter2", "--", "mysql", "-phunter2"]
    assert scrub_argv(words) == ["exec", "web", "-e", "A=[removed]", "--env=B=[removed]", "--", "[2 words]"]


def loaded_by(*words: str) -> set[str]:
    """Every module that is in memory once that command has ended well."""
    program = "import sys\nfrom reconciler.cli import main\nassert main(sys.argv[1:]) == 0\nprint('', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"rich", "pylxd", "requests", "jsonschema", "qemu", "asyncio", "sqlite3", "shtab", "shutil", "difflib"}
"""What some command needs, and neither of those two: each takes a tenth of their time or more."""


@pytest.mark.parametrize("words", [["--help"], ["validate", "--help"], ["apply", "--help"]])
def test_help_imports_the_grammar_alone(words: list[str]) -> None:
    """The limit of 60 ms is measured by the benchmarks; here stands why it is kept."""
    loaded = loaded_by(*words)
    assert not loaded & (HEAVY | {"yaml", "jsonschema_rs", "dataclasses", "inspect", "typing"})
    ours = {name for name in loaded if name.startswith("reconciler.")} - {"reconciler.cli.examples"}
    assert ours == {f"reconciler.cli{part}" for part in ("", ".parser", ".arguments", ".usage", ".watching")}


def test_validate_imports_what_checking_needs(tmp_path: Path) -> None:
    """The same of its 120 ms: nothing of the second half of a pass, nothing that only explains what is wrong."""
    (tmp_path / "web.yaml").write_text(
        "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: web}\nspec: {image: busybox}\n---\n"
        "apiVersion: reconciler/v1\nkind: Image\nmetadata: {name: busybox}\n"
        "spec: {type: container, source: {build: {recipe: busybox}}}\n"
    )
    loaded = loaded_by("validate", str(tmp_path))
    assert not loaded & HEAVY
    only_for_some = {
        *("reconciler.model", "reconciler.ports", "reconciler.planning", "reconciler.backends", "reconciler.secrets"),
        *("reconciler.composition.gathering", "reconciler.composition.values", "reconciler.composition.patching"),
        *("reconciler.validation.cache", "reconciler.validation.explain", "reconciler.manifest.places"),
        *("reconciler.validation.again", "reconciler.composition.again", "reconciler.resolution.again"),
    }
    assert not loaded & only_for_some


def test_a_bug_in_one_step_is_reported_after_the_account_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reconciler.cli.carry import Carrier
    from reconciler.model import Outcome, Plan, ResourceId, Result, Run, Step, Verb
    from reconciler.problems import Problem

    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path))
    steps = tuple(Step(ResourceId("Container", name), "lxd/local", Verb.CREATE, "") for name in ("broken", "fine"))
    plan = Plan("default", steps)
    outcomes = [
        Outcome(steps[0], Result.FAILED, problem=Problem("a bug"), bug=KeyError("password=hunter2")),
        Outcome(steps[1], Result.APPLIED),
    ]
    with Carrier(plan, 1, "apply") as carrier:
        pass
    assert carrier.finish(Run("1", "apply", plan, outcomes), "table") == 3
    said = capsys.readouterr()
    assert "1 failed, 1 created" in said.out
    assert "Traceback" not in said.out + said.err
    [report] = (tmp_path / "reports").iterdir()
    assert "KeyError" in report.read_text()
    assert "hunter2" not in report.read_text()


def test_a_full_device_is_nobodys_bug(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MAIN, "explain", "Container"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RECONCILER_STATE_DIR": str(tmp_path)},
        )
    assert done.returncode == 1
    assert done.stderr.startswith("reconciler: No space left on device\n  hint: ")
    assert not (tmp_path / "reports").exists()


def test_missing_rights_are_nobodys_bug(tmp_path: Path) -> None:
    """The state folder of somebody else, for a root that may not pass over that."""
    others = tmp_path / "theirs"
    others.mkdir(mode=0o700)
    os.chown(others, 65534, 65534)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *MAIN, "history"],
        capture_output=True,
        text=True,
        env={**os.environ, "RECONCILER_STATE_DIR": str(others / "state")},
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"reconciler: Permission denied: {others}/state") and "\n  hint: " in done.stderr


def test_a_kind_that_there_is_not_is_a_problem(tmp_path: Path) -> None:
    for words in (["delete", "--yes", "Contaner/web"], ["get", "Contaner"]):
        done = run(*words, state=tmp_path)
        assert done.returncode == 1
        assert done.stderr == 'there is no kind "Contaner"\n  hint: did you mean Container?\n'


def test_the_systems_own_tools_are_found_with_any_path(tmp_path: Path) -> None:
    code = "import atexit, os; atexit.register(lambda: print(os.environ['PATH']))"
    done = run("version", state=tmp_path, code=code, PATH="/usr/bin:/bin")
    assert done.stdout.splitlines()[-1] == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
