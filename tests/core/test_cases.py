"""LOAD to PLAN over the files of tests/cases/: manifests + world → plan, with the backends' own effects tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import composition, manifest, resolution
from reconciler.backends.lxd.effects import TABLE as LXD_TABLE
from reconciler.backends.qemu.effects import TABLE as QEMU_TABLE
from reconciler.effects import Rule
from reconciler.model import QEMU, Change, Desired, Effect, Observed, Power, ResourceId, Snapshot, Step, World
from reconciler.planning import PlanOptions, plan

CASES = sorted(Path(__file__).parent.parent.joinpath("cases").glob("*.yaml"))
TABLES = {QEMU: QEMU_TABLE, "lxd/local": LXD_TABLE, "lxd/far": LXD_TABLE, "lxd/nest": LXD_TABLE}
REMOTES = {"images": {"server": "https://images.example", "protocol": "simplestreams"}}


def test_there_are_cases() -> None:
    assert len(CASES) >= 10


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_case(path: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    tmp_path.chmod(0o700)
    tmp_path.joinpath("case.yaml").write_text(case["manifests"])
    desired = resolved(tmp_path)
    listening = frozenset((protocol, address, port) for protocol, address, port in case.get("listening", ()))
    world = World({name: snapshot(name, seen, desired) for name, seen in case["world"].items()}, listening)
    options = case.get("options", {})
    only = frozenset(ResourceId.parse(one) for one in options.pop("only", ()))
    allow = Effect(options.pop("allow")) if "allow" in options else None
    result = plan("default", desired, world, TABLES, PlanOptions(only=only, allow=allow, **options))
    assert [outline(step) for step in result.steps] == case["plan"]


def resolved(folder: Path) -> dict[ResourceId, Desired]:
    documents = manifest.load([str(folder)], None)
    composed = composition.compose(documents, lambda path: manifest.load([path], None))
    return resolution.resolve(
        composed.documents, resolution.Surroundings(manifest.read_payload, lambda path: "stamp", REMOTES)
    )


def snapshot(name: str, seen: list[dict[str, Any]], desired: dict[ResourceId, Desired]) -> Snapshot:
    found = [observed(name, one, desired) for one in seen]
    return Snapshot(name, 0.0, {one.id: one for one in found})


def observed(backend: str, given: dict[str, Any], desired: dict[ResourceId, Desired]) -> Observed:
    """``like: declared``: as if just applied; ``spec`` and ``applied`` are then laid over that, ``without`` goes."""
    id = ResourceId.parse(given["id"])
    declared = dict(desired[id].spec) if given.get("like") == "declared" else {}
    base = {key: value for key, value in declared.items() if key not in given.get("without", ())}
    applied = {**base, **given["applied"]} if "applied" in given else (base or None)
    power = Power(given["power"]) if "power" in given else None
    owned = given.get("owned", True)
    return Observed(
        id,
        backend,
        {**{key: value for key, value in base.items() if key != "power"}, **given.get("spec", {})},
        power,
        owned,
        "",
        given.get("environment", "default" if owned else None),
        applied,
        given.get("pending"),
        rules={pattern: rule(**one) for pattern, one in given.get("rules", {}).items()},
        room=given.get("room"),
        later=declared if given.get("later") == "declared" else None,
    )


def rule(effect: str, outside: str | None = None, **rest: Any) -> Rule:
    return Rule(Effect(effect), outside=Effect(outside) if outside else None, **rest)


def outline(step: Step) -> str:
    """``update Container/web live: memory.size 1 → 2 | waits: nesting None → True``."""
    words = f"{step.verb} {step.id} {step.effect}" + (f": {told(step.changes)}" if step.changes else "")
    return words + (f" | waits: {told(step.waiting)}" if step.waiting else "")


def told(changes: tuple[Change, ...]) -> str:
    return "; ".join(
        f"{one.field} {one.old} → {one.new} ({one.effect}{', destroys' if one.destroys else ''})" for one in changes
    )
