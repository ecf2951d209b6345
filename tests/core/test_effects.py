"""effects.py: which rule is found for a field, and what it means for a guest that runs or does not."""

from __future__ import annotations

import pytest

from reconciler.effects import Rule, effect_of, find_rule, plugs, worst
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


def test_a_number_that_shrinks_may_have_more_said_of_it() -> None:
    table = {"Container": {"memory.**": Rule(Effect.LIVE, "taken at once", less="what is in use is not given back")}}
    for old, new, note in ((1, 2, "taken at once"), (2, 1, "what is in use is not given back")):
        change = effect_of(Change("change", ("memory", "size"), old, new), "Container", Power.RUNNING, table)
        assert (change.effect, change.note) == (Effect.LIVE, note)


def test_worst_is_the_most_harmful() -> None:
    changes = [Change("change", ("x",), 1, 2, effect) for effect in (Effect.LIVE, Effect.REPLACE, Effect.RESTART)]
    assert worst(changes) is Effect.REPLACE
    assert worst([]) is Effect.NONE


LIMITED = Rule(Effect.LIVE, "max is 4", least=1, most=4, outside=Effect.RESTART)


@pytest.mark.parametrize(
    ("new", "effect"),
    [
        (4, Effect.LIVE),
        (1, Effect.LIVE),
        (5, Effect.RESTART),
        (0, Effect.RESTART),
        (None, Effect.LIVE),
        ("0-7", Effect.LIVE),
    ],
)
def test_a_number_outside_of_its_limits_does_something_else(new: object, effect: Effect) -> None:
    change = Change("change", ("cpus", "count"), 2, new)
    judged = effect_of(change, "VirtualMachine", Power.RUNNING, {"VirtualMachine": {"cpus.count": LIMITED}})
    assert (judged.effect, judged.note) == (effect, "max is 4")
    stopped = effect_of(change, "VirtualMachine", Power.STOPPED, {"VirtualMachine": {"cpus.count": LIMITED}})
    assert stopped.effect is Effect.LIVE


def test_what_the_guest_itself_says_comes_before_the_table() -> None:
    table = {"VirtualMachine": {"shares.*.path": Rule(Effect.LIVE), "cpus.count": Rule(Effect.LIVE)}}
    own = {"shares.**": Rule(Effect.RESTART, "virtiofsd is missing")}

    def effect(*path: str) -> Effect:
        change = Change("change", path, 1, 2)
        return effect_of(change, "VirtualMachine", Power.RUNNING, table, own).effect

    assert effect("shares", "site", "path") is Effect.RESTART
    assert effect("cpus", "count") is Effect.LIVE


def test_only_what_is_added_takes_a_port() -> None:
    table = {"VirtualMachine": {"shares.*": Rule(Effect.LIVE, plugs=True), "forwards.*": Rule(Effect.LIVE)}}

    def takes(op: str, *path: str) -> bool:
        return plugs(Change(op, path, None, {}), "VirtualMachine", table)

    assert takes("add", "shares", "a")
    assert not takes("remove", "shares", "a") and not takes("add", "forwards", "a") and not takes("add", "novel", "a")


LIKE = {"devices.*": Rule(Effect.LIVE, like=(({"type": "nic", "nictype": "ipvlan"}, Rule(Effect.RESTART, "cold")),))}


@pytest.mark.parametrize(
    ("op", "thing", "effect"),
    [
        ("add", {"type": "nic", "nictype": "ipvlan", "name": "eth1"}, Effect.RESTART),
        ("remove", {"type": "nic", "nictype": "ipvlan"}, Effect.RESTART),
        ("add", {"type": "nic", "nictype": "bridged"}, Effect.LIVE),
        ("add", {"type": "nic"}, Effect.LIVE),
    ],
)
def test_a_whole_thing_is_judged_by_what_it_is_like(op: str, thing: dict[str, str], effect: Effect) -> None:
    old, new = (None, thing) if op == "add" else (thing, None)
    change = Change(op, ("devices", "eth1"), old, new)
    assert effect_of(change, "Container", Power.RUNNING, {"Container": LIKE}).effect is effect
