"""Schema, effects and explain hold together: no field without an explanation, none without an effect."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from reconciler import schema
from reconciler.backends.lxd.effects import TABLE as LXD
from reconciler.backends.qemu.effects import TABLE as QEMU
from reconciler.effects import OURS, Rule, find_rule
from reconciler.model import ATTACHMENTS

ROOT = Path(__file__).resolve().parents[2]
IN_QEMU = ("VirtualMachine", "Disk", "Image")
IN_LXD = ("Container", "Image", "Network", "Profile", "StoragePool", "Project", "Volume", "Host")

# Fields that end up elsewhere before anything is compared, and where: resolution moves them.
MOVED = {
    "spec.host": "it chooses the backend",
    "spec.attachTo": "it becomes part of the guest's own spec",
    "spec.mount": "it becomes part of the guest's own spec",
}
# Lists that resolution turns into mappings, and which field of an entry is its name there.
LISTS_BY_NAME = {
    "VirtualMachine": {"disks": "name", "nics": "name", "files": "path"},
    "Container": {"files": "path"},
}


def field_paths(kind: str) -> list[str]:
    """The kind's fields below spec, except those that only make up a moved one."""
    return [
        path
        for path in schema.fields(kind)
        if path.startswith("spec.") and not any(path == moved or path.startswith(f"{moved}.") for moved in MOVED)
    ]


def resolved(kind: str, path: str) -> tuple[str, ...]:
    """The path as a Change has it: entries of named lists have their name in it, other lists change as a whole."""
    parts = path.split(".")[1:]
    if parts[0] in LISTS_BY_NAME.get(kind, {}) and len(parts) > 1:
        return (parts[0], "a-name", *(part for part in parts[1:] if part != LISTS_BY_NAME[kind][parts[0]]))
    return ("run",) if parts[0] == "run" else tuple(parts)


ALL = [(kind, path) for kind in schema.kinds() for path in schema.fields(kind)]
RULED = [(kind, path, QEMU) for kind in IN_QEMU for path in field_paths(kind)]
RULED += [(kind, path, LXD) for kind in IN_LXD for path in field_paths(kind)]


@pytest.mark.parametrize(("kind", "path"), ALL, ids=str)
def test_every_field_is_explained(kind: str, path: str) -> None:
    about = schema.explain(kind, path.split("."))
    assert about.title
    assert about.description.endswith((".", "!", "?", ")"))
    assert about.type != "anything" or path.endswith(".value")


@pytest.mark.parametrize(("kind", "path", "table"), RULED, ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_has_an_effect(kind: str, path: str, table: dict[str, dict[str, Rule]]) -> None:
    rules = {**OURS, **table.get(kind, {})}
    change = resolved(kind, path)
    # A mapping is compared part by part, so a rule for its parts speaks for it. Raw LXD keys are without number:
    # those that the table does not list are unknown on purpose, and held.
    parts = [pattern for pattern in rules if pattern.startswith(f"{'.'.join(change)}.")]
    assert find_rule(change, rules) or parts, f"{kind}: no effect for {'.'.join(change)}"


def test_every_kind_is_ruled_or_part_of_its_guests() -> None:
    assert {*IN_QEMU, *IN_LXD, *ATTACHMENTS, "Environment"} == set(schema.kinds())


def test_every_rule_says_why() -> None:
    for table in (LXD, QEMU):
        for kind, rules in table.items():
            assert kind in schema.kinds()
            assert not [pattern for pattern, rule in rules.items() if not rule.note and rule.effect.severity > 1], kind


def test_the_reference_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "./just docs writes it anew"
