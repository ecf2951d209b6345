"""The guest verbs: start, stop, restart, logs, exec, shell, monitor. The next apply has the last word on power."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import cast

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.lookup import Seen, find, look, running_in
from reconciler.cli.screen import show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT
from reconciler.model import GUESTS, Observed, Power
from reconciler.paths import state_dir
from reconciler.ports import Call, Guests
from reconciler.problems import Problem, UsageError
from reconciler.view.text import clean, line


def run(arguments: argparse.Namespace) -> int:
    """Find the guest, hand over to its backend."""
    with look(arguments) as seen:
        one = find(seen, arguments.name, arguments.environment)
        if one.id.kind not in GUESTS:
            raise UsageError(Problem("expected a VirtualMachine or a Container", subject=str(one.id)))
        if arguments.verb in _PAST:
            return _power(seen, one, arguments)
        return _VERBS[arguments.verb](_guests(seen, one), one, arguments)


def _guests(seen: Seen, one: Observed) -> Guests:
    """The backend's other face: both kinds of backend have it."""
    return cast(Guests, seen.backends[one.backend])


def _power(seen: Seen, one: Observed, arguments: argparse.Namespace) -> int:
    """Ours only, and never in the middle of an apply. What ran in a VM that is restarted runs again when it is done."""
    from reconciler.record import locked

    id, name = one.id, clean(str(one.id))
    if not one.owned:
        raise UsageError(Problem("it is not ours", subject=str(id), hint="declare it, and apply with --adopt"))

    def say(message: str) -> None:
        tell([line((f"{name}: ", "bold"), clean(message))])

    with locked(
        state_dir(), one.environment or ANY_ENVIRONMENT, arguments.timeout, lambda holder: say(f"waiting for {holder}")
    ):
        inside = running_in(seen.world, one) if arguments.verb == "restart" else []
        _guests(seen, one).power(id, arguments.verb, arguments.force, arguments.timeout, say)
        code = _bring_back(inside, arguments) if inside else DONE
    tell([line((f"{name}: ", "bold"), f"{_PAST[arguments.verb]}; the next apply makes it as declared again")])
    return code


def _bring_back(before: Sequence[Observed], arguments: argparse.Namespace) -> int:
    """Start those that ran before, by a new look: the LXD inside starts none by itself. 1 when one is missing."""
    from concurrent.futures import ThreadPoolExecutor

    from reconciler.cli.boot import order

    wanted = {(one.backend, one.id) for one in before}
    with look(arguments) as again:
        there = {(one.backend, one.id): one for one in again.world}
        down = [there[key] for key in sorted(wanted & there.keys()) if there[key].power is not Power.RUNNING]
        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            codes = list(pool.map(lambda one: order(again, one, "start", arguments.timeout), down))
    lost = [
        Problem("it ran, and cannot be seen now", subject=str(id), hint="the next apply sees to it")
        for _, id in sorted(wanted - there.keys())
    ]
    show_problems([*again.problems, *lost] if lost else [])
    return max([PROBLEM if lost else DONE, *codes])


def _logs(guests: Guests, one: Observed, arguments: argparse.Namespace) -> int:
    """As it is into a pipe; on a terminal without what would drive it."""
    id = one.id
    if not sys.stdout.isatty():
        for part in guests.logs(id, arguments.follow):
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        return DONE
    for part in guests.logs(id, arguments.follow):
        sys.stdout.write(_harmless(part.decode(errors="replace")))
        sys.stdout.flush()
    return DONE


def _harmless(text: str) -> str:
    """The guest's words, its line ends kept, its escape sequences written out."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else "" if char == "\r" else clean(char) for char in text
    )


def _execute(guests: Guests, one: Observed, arguments: argparse.Namespace) -> int:
    if not arguments.command:
        raise UsageError(Problem("no command was given", hint=f"reconciler exec {arguments.name} -- COMMAND…"))
    broken = [word for word in arguments.env if not word.partition("=")[1] or word.startswith("=")]
    if broken:
        raise UsageError(Problem(f"--env: expected KEY=VALUE, got {broken[0]!r}"))
    _must_run(one)
    environment = dict(word.split("=", 1) for word in arguments.env)
    call = Call(arguments.command, environment, arguments.stdin, arguments.timeout, arguments.user)
    return guests.execute(one.id, call)


def _must_run(one: Observed) -> None:
    if one.power is Power.STOPPED:
        hint = f"`reconciler start {one.id}` starts it"
        raise UsageError(Problem("it is not running", subject=str(one.id), hint=hint))


def _shell(guests: Guests, one: Observed, arguments: argparse.Namespace) -> int:
    """As the declared user, where there is one."""
    if not sys.stdin.isatty():
        raise UsageError(
            Problem("a shell needs a terminal", hint=f"for single commands: reconciler exec {one.id} -- COMMAND…")
        )
    _must_run(one)
    declared = ((one.applied or {}).get("user") or {}).get("name")
    return guests.shell(one.id, None if arguments.root else arguments.user or declared)


def _monitor(guests: Guests, one: Observed, arguments: argparse.Namespace) -> int:
    if one.id.kind == "VirtualMachine" and not arguments.command and not sys.stdin.isatty():
        hint = f"for single commands: reconciler monitor {one.id} -- query-status"
        raise UsageError(Problem("a conversation needs a terminal", hint=hint))
    return guests.monitor(one.id, arguments.command)


_VERBS = {"logs": _logs, "exec": _execute, "shell": _shell, "monitor": _monitor}
_PARALLEL = 8
_PAST = {"start": "started", "stop": "stopped", "restart": "restarted"}
