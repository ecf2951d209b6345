"""VIEW: what is there: ``get`` as a table, ``describe`` as everything about one resource."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from reconciler.model import Condition, Observed, Power, ResourceId
from reconciler.view.documents import HELD, RESTART_PENDING, SYNCED, host_of, is_ready
from reconciler.view.fields import leaves, shown
from reconciler.view.text import Line, Span, clean, columns, line, table

Conditions = Mapping[tuple[str, ResourceId], tuple[Condition, ...]]

_POWER_STYLES = {Power.RUNNING: "good", Power.STOPPED: "dim", Power.PAUSED: "warn", Power.ERROR: "bad"}


def resource_table(resources: Sequence[Observed], conditions: Conditions, wide: bool) -> list[Line]:
    """One row a resource, sorted by kind and name. Whether it is as declared stands there where somebody watches."""
    watched = any(one.type == SYNCED for state in conditions.values() for one in state)
    synced = ["SYNCED"] if watched else []
    head = ["RESOURCE", "HOST", "POWER", "READY", *synced, "OWNED", *(["ENVIRONMENT", "DETAIL"] if wide else [])]
    rows: list[list[str | Span]] = []
    for seen in sorted(resources, key=lambda one: (one.id, one.backend)):
        state = conditions.get((seen.backend, seen.id), ())
        row: list[str | Span] = [
            (clean(str(seen.id)), "bold"),
            clean(host_of(seen)),
            _power(seen),
            _ready(state),
            *([_synced(state)] if watched else []),
            _owned(seen),
        ]
        if wide:
            row += [clean(seen.environment or ""), _detail(seen, state)]
        rows.append(row)
    return table(head, rows)


def _power(seen: Observed) -> Span:
    return (seen.power.value, _POWER_STYLES[seen.power]) if seen.power else ("", "")


def _ready(conditions: tuple[Condition, ...]) -> Span:
    ready = is_ready(conditions)
    if ready is None:
        return ("unknown", "warn") if conditions else ("", "")
    return ("yes", "good") if ready else ("no", "bad")


def _synced(conditions: tuple[Condition, ...]) -> Span:
    words: dict[bool | None, Span] = {True: ("yes", "good"), False: ("no", "bad"), None: ("unknown", "warn")}
    return next((words[one.status] for one in conditions if one.type == SYNCED), ("", ""))


def _owned(seen: Observed) -> Span:
    return ("yes", "") if seen.owned else ("no", "dim")


def _detail(seen: Observed, conditions: tuple[Condition, ...]) -> str:
    parts = [f"unfinished: {clean(seen.pending)}"] if seen.pending else []
    there = {one.type: one for one in conditions}
    held = there.get(HELD)
    is_held = held is not None and held.status is True
    said = {RESTART_PENDING, HELD, *((SYNCED,) if is_held else ())}
    parts += [
        clean(f"{one.type}: {one.reason}") for one in conditions if one.status is not True and one.type not in said
    ]
    if held is not None and is_held:
        parts.append(clean(f"held{_since(held)}: {held.reason}: {held.message}"))
    waits = there.get(RESTART_PENDING)
    if waits is not None and waits.status:
        parts.append(clean(f"waits for a restart{_since(waits)}: {waits.message}"))
    return ", ".join(parts)


def _since(condition: Condition) -> str:
    """In the words of a person's clock; empty when nobody watched."""
    if condition.since is None:
        return ""
    return time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(condition.since))


def description(seen: Observed, conditions: tuple[Condition, ...], history: Sequence[str]) -> Iterator[Line]:
    """Everything about one resource: head, conditions, fields, the last things done to it."""
    yield line((clean(str(seen.id)), "bold"))
    yield from columns(_head(seen), indent=2)
    if conditions:
        yield line(("Conditions", "bold"))
        yield from columns([_condition_row(condition) for condition in conditions], indent=2)
    yield line(("Fields", "bold"))
    rows: list[list[Span]] = [
        [(clean(".".join(path)), ""), (shown(path, value), "")] for path, value in leaves(seen.spec)
    ]
    yield from columns(rows, indent=2)
    if history:
        yield line(("History", "bold"))
        yield from (line("  ", clean(entry)) for entry in history)


def _head(seen: Observed) -> list[list[Span]]:
    whose = f"by environment {seen.environment}" if seen.environment else "yes"
    rows: list[tuple[str, str]] = [
        ("backend", seen.backend),
        ("power", seen.power.value if seen.power else ""),
        ("owned", whose if seen.owned else "no"),
        ("unfinished", seen.pending or ""),
        ("needs", ", ".join(map(str, seen.needs))),
    ]
    return [[(name, "dim"), (clean(value), "")] for name, value in rows if value]


def _condition_row(condition: Condition) -> list[Span]:
    status = {True: ("yes", "good"), False: ("no", "bad"), None: ("unknown", "warn")}[condition.status]
    words = [(clean(condition.reason), ""), (clean(condition.message), "dim"), (_since(condition).strip(), "dim")]
    return [(clean(condition.type), ""), status, *words]
