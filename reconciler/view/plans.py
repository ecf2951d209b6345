"""VIEW: a Plan before it is carried out: what happens to which resource, field by field, what that costs, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from reconciler import schema
from reconciler.model import Change, Desired, Effect, Path, Plan, ResourceId, Spec, Step, Verb
from reconciler.view.fields import leaves, shown
from reconciler.view.problems import problem_lines
from reconciler.view.text import Line, Span, clean, columns, line

GLYPHS: Mapping[Verb, str] = {
    Verb.NOOP: " ",
    Verb.CREATE: "+",
    Verb.UPDATE: "~",
    Verb.RESTART: "↻",
    Verb.REPLACE: "±",
    Verb.DELETE: "-",
    Verb.HOLD: "!",
}
STYLES: Mapping[Verb, str] = {
    Verb.NOOP: "dim",
    Verb.CREATE: "good",
    Verb.UPDATE: "warn",
    Verb.RESTART: "harm",
    Verb.REPLACE: "bad",
    Verb.DELETE: "bad",
    Verb.HOLD: "note",
}
_EFFECT_STYLES = {
    Effect.LIVE: "good",
    Effect.STOP: "harm",
    Effect.RESTART: "harm",
    Effect.REPLACE: "bad",
    Effect.IMPOSSIBLE: "note",
    Effect.UNKNOWN: "note",
}
_QUIET = frozenset({"deletionPolicy", "imagePolicy", "protect", "ignore", "identity"})
_COUNTED = (
    (Verb.CREATE, "to create"),
    (Verb.UPDATE, "to update"),
    (Verb.RESTART, "to restart"),
    (Verb.REPLACE, "to replace"),
    (Verb.DELETE, "to delete"),
    (Verb.HOLD, "held"),
    (Verb.NOOP, "unchanged"),
)
AS_DECLARED, GONE = "as declared", "not there any more"


def plan_lines(
    plan: Plan,
    desired: Mapping[ResourceId, Desired],
    verbose: bool = False,
    good: str = AS_DECLARED,
    followed: bool = False,
) -> Iterator[Line]:
    """The whole plan; what is left alone is only counted, unless ``verbose`` or it has something to say.

    followed: an account comes after it, which says itself that there was nothing to do
    """
    told = [
        list(step_lines(step, plan.adjusted.get(step.id) or desired.get(step.id), verbose))
        for step in plan.steps
        if verbose or step.verb is not Verb.NOOP or step.notes or step.waiting
    ]
    for lines in told:
        yield from lines
    if told and told[-1][-1]:
        yield line()
    for note in plan.notes:
        yield line(("note: ", "note"), clean(note))
    if not (followed and plan.in_sync):
        yield summary_line(plan, good)
    if plan.blocker:
        yield from problem_lines([plan.blocker])


def step_lines(step: Step, want: Desired | None, verbose: bool = False) -> Iterator[Line]:
    """One step: its head line, then its fields."""
    yield line(
        "  ",
        (GLYPHS[step.verb], STYLES[step.verb]),
        " ",
        (clean(str(step.id)), "bold"),
        *_cost(step),
        (f"  {clean(step.reason)}", "dim"),
    )
    rows: list[list[Span]] = [_change_row(change) for change in step.changes]
    if step.verb is Verb.CREATE and want is not None and not rows:
        rows = _new_rows(want, verbose)
    rows += [_waiting_row(change) for change in step.waiting]
    yield from columns(rows, indent=6)
    for note in step.notes:
        yield line("      ", ("note: ", "note"), clean(note))
    if rows or step.notes:
        yield line()


def _cost(step: Step) -> tuple[Span, ...]:
    """What the step as a whole does to whoever uses the resource; nothing to say about what is made anew."""
    if step.verb in (Verb.NOOP, Verb.CREATE) or step.effect is Effect.NONE:
        return ()
    return (("  ", ""), (effect_word(step), _EFFECT_STYLES[step.effect]))


def effect_word(step: Step) -> str:
    """The effect of a step in one word or two."""
    if step.verb is Verb.DELETE:
        return "stops and goes" if step.effect is Effect.STOP else "goes"
    return {"stop": "stops", "live": "live", "restart": "restarts"}.get(step.effect.value, step.effect.value)


def _change_row(change: Change) -> list[Span]:
    row: list[Span] = [(clean(change.field), "")]
    if change.op == "add":
        row += [("+ " + shown(change.path, change.new), "good")]
    elif change.op == "remove":
        row += [("- " + shown(change.path, change.old), "bad")]
    else:
        before = f"{shown(change.path, change.old)} → " if change.old is not None else ""
        row += [(before + shown(change.path, change.new), "warn")]
    row.append((change.effect.value if change.effect is not Effect.NONE else "", _EFFECT_STYLES.get(change.effect, "")))
    row.append((clean(change.note), "dim"))
    return row


def _waiting_row(change: Change) -> list[Span]:
    """What is not made so now; its note says until when."""
    field, value, _effect, note = _change_row(change)
    return [field, (value[0], "dim"), ("waits", "note"), note]


def _new_rows(want: Desired, verbose: bool) -> list[list[Span]]:
    """The fields of what is created; defaults, and how we treat it, only when ``verbose``."""
    if verbose:
        return [_new_row(path, shown(path, value)) for path, value in leaves(want.spec)]
    usual = schema.defaults(want.id.kind) if want.id.kind in schema.kinds() else {}
    said = {key: value for key, value in want.spec.items() if key not in _QUIET and usual.get(key) != value}
    rows = [
        _new_row(path, shown(path, value))
        for path, value in leaves({key: value for key, value in said.items() if key not in ("files", "run")})
        if path[-1] != "identity"
    ]
    rows += [_new_row(("files", path), f"{about['sha256'][:12]} {about['mode']}") for path, about in _files(said)]
    return rows + [_new_row(("run", one["when"]), " ".join(one["command"])) for one in said.get("run", ())]


def _files(spec: Spec) -> Iterable[tuple[str, Spec]]:
    files: Mapping[str, Spec] = spec.get("files") or {}
    return files.items()


def _new_row(path: Path, words: str) -> list[Span]:
    return [(clean(".".join(path)), ""), (clean(words), "good")]


def summary_line(plan: Plan, good: str = AS_DECLARED) -> Line:
    """``Plan: 2 to create, 1 to restart; 3 unchanged.`` or that there is nothing to do. good: how everything is then"""
    counts = plan.summary()
    waiting = sum(1 for step in plan.steps if step.waiting)
    if plan.in_sync:
        rest = f", but for what waits in {waiting}" if waiting else ""
        return line(("Nothing to do", "good"), f": {counted(len(plan.steps), 'resource')} {good}{rest}.")
    parts = [(f"{counts[verb.value]} {words}", STYLES[verb]) for verb, words in _COUNTED if verb.value in counts]
    spans: list[Span] = [("Plan: ", "bold")]
    for index, part in enumerate(parts):
        spans += [(", ", "")] if index else []
        spans.append(part)
    spans += [(f"; something waits in {waiting}", "note")] if waiting else []
    return (*spans, (".", ""))


def counted(count: int, noun: str) -> str:
    """``1 resource``, ``3 resources``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def diff_lines(plan: Plan) -> Iterator[Line]:
    """The plan as a unified list of fields: ``-`` what is there, ``+`` what is declared."""
    for step in plan.steps:
        if step.verb is Verb.NOOP and not step.waiting:
            continue
        name = clean(str(step.id))
        yield line((f"--- {name} (observed)", "bold"))
        yield line((f"+++ {name} (declared)", "bold"))
        if not step.changes and not step.waiting:
            yield line((f"@@ {step.verb.value}: {clean(step.reason)} @@", "note"))
        yield from _change_lines(step.changes)
        for change in step.waiting:
            yield line((f"@@ {clean(change.note)} @@", "note"))
            yield from _change_lines([change])


def _change_lines(changes: Iterable[Change]) -> Iterator[Line]:
    for change in changes:
        if change.op != "add":
            yield line((f"-{clean(change.field)}: {shown(change.path, change.old)}", "bad"))
        if change.op != "remove":
            yield line((f"+{clean(change.field)}: {shown(change.path, change.new)}", "good"))
