"""effects.py: which rule is found for a field, and what it means for a guest that runs or does not."""

from __future__ import annotations

import pytest

from reconciler.effects import Rule, effect_of, find_rule, worst
from reconciler.model import Change, Effect, Power

RULES = {
    "config.**": Rule(Effect.RESTART),
    "config.<limits.*>": Rule(Effect.LIVE),
    "config.<limits.kernel.*>": Rule(Effect.RESTART, "read at start"),
    "config.<limits.cpu>": Rule(Effect.LIVE, "exactly"),
    "devices.*.path": Rule(Effect.REPLACE),
    "devices.**": Rule(Effect.LIVE),
    "cpus.count": Rule(Effect.LIVE),
}


@pytest.mark.parametrize(
    ("path", "effect"),
    [
        (("config", "user.x"), Effect.RESTART),
        (("config", "limits.memory"), Effect.LIVE),
        (("config", "limits.kernel.nofile"), Effect.RESTART),
        (("devices", "root"), Effect.LIVE),
        (("devices", "root", "path"), Effect.REPLACE),
        (("devices", "root", "size"), Effect.LIVE),
        (("cpus", "count"), Effect.LIVE),
    ],
)
def test_the_most_specific_rule_wins(path: tuple[str, ...], effect: Effect) -> None:
    rule = find_rule(path, RULES)
    assert rule is not None and rule.effect is effect


@pytest.mark.parametrize("path", [("cpus",), ("cpus", "max"), ("unheard", "of")])
def test_what_no_rule_names_is_unknown(path: tuple[str, ...]) -> None:
    assert find_rule(path, RULES) is None
    assert (
        effect_of(Change("add", path, None, 1), "Container", Power.RUNNING, {"Container": RULES}).effect
        is Effect.UNKNOWN
    )


@pytest.mark.parametrize(
    ("power", "change", "effect"),
    [
        (Power.RUNNING, Change("change", ("power",), "running", "stopped"), Effect.STOP),
        (Power.RUNNING, Change("change", ("power",), "running", "paused"), Effect.STOP),
        (Power.STOPPED, Change("change", ("power",), "stopped", "running"), Effect.LIVE),
        (Power.PAUSED, Change("change", ("power",), "paused", "running"), Effect.LIVE),
        (Power.PAUSED, Change("change", ("power",), "paused", "stopped"), Effect.STOP),
        (Power.RUNNING, Change("change", ("config", "user.x"), "1", "2"), Effect.RESTART),
        (Power.STOPPED, Change("change", ("config", "user.x"), "1", "2"), Effect.LIVE),
        (Power.STOPPED, Change("change", ("devices", "root", "path"), "/", "/x"), Effect.REPLACE),
    ],
)
def test_power_decides_what_a_change_costs(power: Power, change: Change, effect: Effect) -> None:
    table = {"Container": {**RULES, "power": Rule(Effect.LIVE)}}
    assert effect_of(change, "Container", power, table).effect is effect


def test_worst_is_the_most_harmful() -> None:
    changes = [Change("change", ("x",), 1, 2, effect) for effect in (Effect.LIVE, Effect.REPLACE, Effect.RESTART)]
    assert worst(changes) is Effect.REPLACE
    assert worst([]) is Effect.NONE
