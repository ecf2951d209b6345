"""``reconciler boot``: what has ``lifetime: boot`` or ``always`` is started when the host boots, and stopped in time.

Containers of this machine's LXD are LXD's own business then (``boot.autostart``); VMs, and what is in them, are ours.
The unit that calls us is printed here, so that it names the very program that prints it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import cast

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.lookup import Seen, look, running_in
from reconciler.cli.screen import show, show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT
from reconciler.model import Observed, Power, World
from reconciler.paths import state_dir
from reconciler.ports import Guests
from reconciler.problems import BackendError, ReconcilerError
from reconciler.view.text import clean, line

AT_BOOT = ("boot", "always")
_PARALLEL = 8
_PLAIN = re.compile(r"[\w/.:=+%-]+", re.ASCII)
_PASSED_ON = ("RECONCILER_STATE_DIR", "LXD_SOCKET", "LXD_DIR")
_UNIT = """\
[Unit]
Description=Guests that run whenever this host does
{order}
[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={command} boot
ExecStop={command} boot --down
KillMode=process
TimeoutStartSec=infinity
TimeoutStopSec=5min

[Install]
WantedBy={target}
"""
_ORDER = "Wants=network-online.target\nAfter=network-online.target lxd.service snap.lxd.daemon.service\n"


def run(arguments: argparse.Namespace) -> int:
    """Start them, stop them, or print the unit that does both. 1 when one of them did not do as it was told."""
    if arguments.unit:
        show([line(text) for text in unit(os.geteuid() == 0).splitlines()])
        return DONE
    arguments.manifests, arguments.environment = [], None
    if arguments.down:
        with look(arguments) as seen:
            return max(_each(seen, some, "stop", arguments.timeout) for some in downwards(seen.world))
    with look(arguments) as seen:
        code = _each(seen, _asking(seen.world, "VirtualMachine", running=False), "start", arguments.timeout)
    with look(arguments) as seen:  # once more: what is in those that have come up can be seen only now
        return max(code, _each(seen, _asking(seen.world, "Container", running=False), "start", arguments.timeout))


def downwards(world: World) -> list[list[Observed]]:
    """What is stopped before the host goes down, one list after the other: our containers in the VMs that came with the
    host, whatever they ask for themselves, then those VMs. No VM needs another one."""
    machines = _asking(world, "VirtualMachine", running=True)
    return [[inside for machine in machines for inside in running_in(world, machine)], machines]


def unit(system: bool) -> str:
    """The systemd unit, for the whole system or for one user (whose lingering has to be allowed)."""
    program = os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0])
    itself = os.access(program, os.X_OK) and not program.endswith(".py")
    command = [program] if itself else [sys.executable, "-m", "reconciler.cli"]
    given = (f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ)
    return _UNIT.format(
        order=_ORDER if system else "",
        environment="".join(f"Environment={_quoted(one)}\n" for one in given),
        command=" ".join(map(_word, command)),
        target="multi-user.target" if system else "default.target",
    )


def _word(text: str) -> str:
    """As systemd reads it as one word: it takes quotes off, and has meanings of its own for backslash and %."""
    return text.replace("%", "%%") if _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    text = text.replace("%", "%%")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _asking(world: World, kind: str, running: bool) -> list[Observed]:
    """Those of the kind that ask for it, and run (or do not); what the manifest stops stays stopped."""
    found = [one for one in world if one.id.kind == kind and one.owned and _asks(one)]
    return [one for one in found if (one.power in (Power.RUNNING, Power.PAUSED)) is running and one.power is not None]


def _asks(one: Observed) -> bool:
    applied = one.applied or {}
    return applied.get("lifetime") in AT_BOOT and applied.get("power", "running") != Power.STOPPED


def _each(seen: Seen, guests: Iterable[Observed], action: str, timeout: float) -> int:
    """All of an environment at once, under its lock: never in the middle of an apply."""
    from reconciler.record import locked

    def place(one: Observed) -> str:
        return one.environment or ANY_ENVIRONMENT

    code = DONE
    for environment, group in groupby(sorted(guests, key=place), key=place):
        try:
            with locked(state_dir(), environment, timeout), ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
                code = max([code, *pool.map(lambda one: order(seen, one, action, timeout), group)])
        except ReconcilerError as error:
            show_problems(error.problems)
            code = PROBLEM
    return code


def order(seen: Seen, one: Observed, action: str, timeout: float) -> int:
    """Have one guest started or stopped, under its environment's lock; what goes wrong is said. The exit code."""

    def say(words: str) -> None:
        tell([line((f"{clean(str(one.id))}: ", "bold"), clean(words))])

    try:
        cast(Guests, seen.backends[one.backend]).power(one.id, action, False, timeout, say)
    except BackendError as error:
        show_problems([replace(error.problem, subject=error.problem.subject or str(one.id))])
        return PROBLEM
    say("started" if action == "start" else "stopped")
    return DONE
