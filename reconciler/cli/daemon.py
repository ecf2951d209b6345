"""``status``, ``events``, ``wait``, ``reconcile``, ``suspend``, ``resume``, ``rollback``: asked of a running watch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.knock import SAID
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.paths import private_dir, runtime_dir, state_dir
from reconciler.problems import Problem
from reconciler.view.text import Line, Span, clean, line, table
from reconciler.watch.client import Client, find

if TYPE_CHECKING:
    from reconciler.model import ResourceId


def run(arguments: argparse.Namespace) -> int:
    """Find the one that watches, and ask it."""
    if arguments.verb == "events" and not arguments.follow:
        return _kept(arguments)
    client = find(runtime_dir() / "watch", arguments.environment)
    if client is None:
        about = f' environment "{arguments.environment}"' if arguments.environment else ""
        hint = "start it: reconciler watch PATH"
        show_problems([Problem(f"nobody watches{about or ' anything'}", hint=hint)])
        return PROBLEM
    return _VERBS[arguments.verb](client, arguments)


def _status(client: Client, arguments: argparse.Namespace) -> int:
    told = client.get("/v1/status")
    if arguments.output == "json":
        show_json(told)
    else:
        show(_status_lines(told))
    return DONE if told["inSync"] and not told["problems"] else PROBLEM  # what is declared may not be in force


def _status_lines(told: Mapping[str, Any]) -> list[Line]:
    on = told["state"] == "on"
    words: list[Span | str] = [clean(str(told["environment"])), ": ", (told["state"], "good" if on else "harm")]
    lines = [line(*words, clean(f" ({told['why']})") if told["why"] and not on else "")]
    lines += [line(clean(f"{key}: {value}")) for key, value in told["source"].items()]
    lines += [line((clean(one), "bad")) for problem in told["problems"] for one in problem.splitlines()]
    if names := told["names"]:
        lines.append(line(clean(f"names: {names['place']}")))
        lines += [line((clean(one), "bad")) for problem in names["problems"] for one in problem.splitlines()]
    if told["yieldsTo"]:
        lines.append(line(clean(f"waits for another command: {told['yieldsTo']}")))
    rows = [_row(one) for one in told["resources"]]
    return [*lines, *table(["RESOURCE", "READY", "SYNCED", "WHY", "SINCE"], rows)]


def _row(one: Mapping[str, Any]) -> list[str | Span]:
    there = {condition["type"]: condition for condition in one["conditions"]}
    synced, ready = there.get("Synced", {}), there.get("Ready", {})
    notable = next(
        (there[type] for type in ("Held", "RestartPending") if there.get(type, {}).get("status")), synced or ready
    )
    why = notable.get("reason", "not looked at yet")
    message = notable.get("message") if why != "AsDeclared" else ""
    return [
        clean(one["id"]),
        _tick(ready.get("status")),
        _tick(synced.get("status")),
        clean(f"{why}: {message}" if message else why),
        clean(notable.get("since", "")),
    ]


def _tick(status: bool | None) -> Span:
    return ("yes", "good") if status else ("?", "harm") if status is None else ("no", "bad")


def _kept(arguments: argparse.Namespace) -> int:
    """The newest that were written down, whether anybody watches now or not."""
    from reconciler.record import Events

    events = Events(private_dir(state_dir()))
    try:
        for event in events.newest(arguments.limit, arguments.environment):
            _show_event(event, arguments.output)
    finally:
        events.close()
    return DONE


def _events(client: Client, arguments: argparse.Namespace) -> int:
    for event in client.lines("/v1/events?follow=1"):
        _show_event(event, arguments.output)
    return DONE


def _show_event(event: Mapping[str, Any], form: str) -> None:
    if form == "json":
        show([line(json.dumps(event))])
        return
    what = f"{event['resource']}: " if event["resource"] else ""
    style = "bad" if event["type"] == "Warning" else "dim"
    words = (clean(what), (clean(event["reason"]), style), ": ", clean(event["message"]))
    show([line((event["at"], "dim"), " ", *words)])


def _target(client: Client, word: str) -> ResourceId:
    """As everywhere: ``Kind/name``, ``vm/container``, a guest's name; of what the watch has declared."""
    from reconciler.cli.naming import among
    from reconciler.model import ResourceId

    told = client.get("/v1/status")["resources"]
    return among(word, {ResourceId.parse(one["id"]): one["homes"] for one in told})


def _wait(client: Client, arguments: argparse.Namespace) -> int:
    from urllib.parse import urlencode

    id, type = _target(client, arguments.target), arguments.condition
    asked = urlencode({"resource": str(id), "for": type, "timeout": arguments.timeout})
    found = client.get(f"/v1/wait?{asked}", timeout=arguments.timeout + 15.0)
    if found is not None:
        return DONE
    known = _conditions(client, id)
    hint = "reconciler status says why" if type in known else f"of it is known: {', '.join(known) or 'nothing yet'}"
    show_problems([Problem(f"not {type} within {arguments.timeout:g} s", subject=str(id), hint=hint)])
    return PROBLEM


def _conditions(client: Client, id: ResourceId) -> list[str]:
    """The conditions that the watch knows of it, by name: what is waited for may have been misspelt."""
    told = client.get("/v1/status")["resources"]
    return sorted({one["type"] for found in told if found["id"] == str(id) for one in found["conditions"]})


def _reconcile(client: Client, arguments: argparse.Namespace) -> int:
    target = str(_target(client, arguments.target)) if arguments.target else None
    client.post("/v1/reconcile", {"resource": target})
    tell([line(f"Looks at {target} now." if target else SAID)])
    return DONE


def _suspend(client: Client, arguments: argparse.Namespace) -> int:
    client.post("/v1/suspend", {"why": arguments.reason})
    tell([line("Nothing is changed until: reconciler resume")])
    return DONE


def _resume(client: Client, _arguments: argparse.Namespace) -> int:
    client.post("/v1/resume", {})
    tell([line("What is declared is made so again.")])
    return DONE


def _rollback(client: Client, arguments: argparse.Namespace) -> int:
    client.post("/v1/rollback", {"revision": arguments.revision})
    tell([line(clean(f"{arguments.revision} is to be so until: reconciler resume"))])
    return DONE


_VERBS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "status": _status,
    "events": _events,
    "wait": _wait,
    "reconcile": _reconcile,
    "suspend": _suspend,
    "resume": _resume,
    "rollback": _rollback,
}
