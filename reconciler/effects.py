"""PLAN, first half: what does a changed field do to whoever uses the resource? Answered from data, never from guesses.

Each backend gives a Table (kind → field pattern → Rule). A pattern is a dotted field path in resolved terms; ``*``
stands for one segment, a last ``**`` for any rest. The most specific pattern wins. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from reconciler.model import Change, Effect, Path, Power, Rule

__all__ = ["OURS", "Rule", "Table", "effect_of", "find_rule", "plugs", "worst"]


Table = Mapping[str, Mapping[str, Rule]]

# Fields that only say how *we* treat the resource: changing them touches the record and nothing else.
OURS: Mapping[str, Rule] = {
    name: Rule(Effect.LIVE, "concerns only how it is treated from now on")
    for name in (
        "deletionPolicy",
        "protect",
        "ignore.**",
        "imagePolicy",
        "updatePolicy",
        "driftPolicy",
        "ready.**",
        "restart",
        "owner",
    )
}


def effect_of(
    change: Change, kind: str, power: Power | None, table: Table, rules: Mapping[str, Rule] | None = None
) -> Change:
    """The same change with its effect filled in. What is not in the table is UNKNOWN: it will be held.

    rules: Observed.rules of the very guest; where one of them matches, the table is not asked.
    """
    rule = _rule_for(change, kind, table, rules)
    if rule is None:
        return replace(change, effect=Effect.UNKNOWN, note="no effect is known for this field")
    effect = rule.effect
    if rule.smaller is not None and _shrinks(change):
        return replace(change, effect=rule.smaller, note=f"it cannot shrink; {rule.note}")
    if rule.outside is not None and _is_outside(change, rule):
        effect = rule.outside
    if change.path == ("power",):
        effect = Effect.LIVE if change.new == Power.RUNNING else Effect.STOP
        if power in (Power.STOPPED, Power.ERROR):
            effect = Effect.LIVE
    elif power is Power.STOPPED and effect in (Effect.RESTART, Effect.UNKNOWN, Effect.STOP):
        effect = Effect.LIVE  # nobody is using it: there is no downtime to speak of
    return replace(change, effect=effect, note=rule.less if rule.less and _shrinks(change) else rule.note)


def plugs(change: Change, kind: str, table: Table, rules: Mapping[str, Rule] | None = None) -> bool:
    """Whether making it so takes one of the guest's free ports."""
    rule = _rule_for(change, kind, table, rules)
    return change.op == "add" and rule is not None and rule.plugs


def _rule_for(change: Change, kind: str, table: Table, rules: Mapping[str, Rule] | None) -> Rule | None:
    own = find_rule(change.path, rules) if rules else None
    rule = own or find_rule(change.path, {**OURS, **table.get(kind, {})})
    thing = change.old if change.new is None else change.new
    if rule is None or not isinstance(thing, Mapping):
        return rule
    return next((other for fields, other in rule.like if fields.items() <= thing.items()), rule)


def _is_outside(change: Change, rule: Rule) -> bool:
    if not isinstance(change.new, int) or isinstance(change.new, bool):
        return False
    return (rule.least is not None and change.new < rule.least) or (rule.most is not None and change.new > rule.most)


def _shrinks(change: Change) -> bool:
    return isinstance(change.old, int) and isinstance(change.new, int) and change.new < change.old


def find_rule(path: Path, rules: Mapping[str, Rule]) -> Rule | None:
    """The rule of the most specific pattern that matches, or None."""
    best: tuple[tuple[int, ...], Rule] | None = None
    for pattern, rule in rules.items():
        rank = _match(_segments(pattern), path)
        if rank is not None and (best is None or rank > best[0]):
            best = (rank, rule)
    return best[1] if best else None


def worst(changes: Iterable[Change]) -> Effect:
    """The most harmful effect among them."""
    return max((change.effect for change in changes), key=lambda effect: effect.severity, default=Effect.NONE)


@lru_cache(maxsize=4096)
def _segments(pattern: str) -> tuple[str, ...]:
    """Split at dots, except inside ``<…>``: ``config.<limits.kernel.*>`` names a key that holds dots itself."""
    parts: list[str] = []
    rest = pattern
    while rest:
        if rest.startswith("<"):
            part, _, rest = rest[1:].partition(">")
            rest = rest.removeprefix(".")
        else:
            part, _, rest = rest.partition(".")
        parts.append(part)
    return tuple(parts)


def _match(pattern: tuple[str, ...], path: Path) -> tuple[int, ...] | None:
    """How specifically the pattern matches (bigger is more specific), or None when it does not.

    A segment counts by its literal prefix; ``limits.*`` matches a key that begins with ``limits.``.
    """
    rank: list[int] = []
    for index, segment in enumerate(pattern):
        if segment == "**":
            return (*rank, 0)
        if index >= len(path):
            return None
        if segment == path[index]:
            rank.append(1000)
        elif segment.endswith("*") and path[index].startswith(segment[:-1]):
            rank.append(len(segment))
        else:
            return None
    return tuple(rank) if len(pattern) == len(path) else None
