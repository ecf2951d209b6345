"""Behind the verb ``monitor``: people talk to QEMU itself, on the monitor that is theirs. Imports ``qemu.qmp``, alone.

That monitor is apart from ours: nobody here waits for whoever sits there, and what they change is seen as any drift is.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol
from qemu.qmp.qmp_shell import QMPShell

from reconciler.backends.qemu.sockets import connect
from reconciler.model import Json
from reconciler.problems import Problem, Refused, Unreachable, UsageError

GREETING = 5.0
"""Seconds that QEMU may take to greet us; it greets nobody as long as somebody else is connected."""
_HINT = "`reconciler monitor vm -- query-status`; the arguments of a command as NAME=VALUE, VALUE as text or JSON"

# The library logs every lost connection as an error; what became of it is what we raise.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False


def converse(path: Path, subject: str) -> int:
    """The library's shell on our terminal, until end of input (Ctrl-D)."""
    with _greeted(path, subject) as sock, QMPShell(cast(Any, sock), pretty=True) as shell:  # it takes a socket, too
        shell.connect()
        for _ in shell.repl():
            pass
    return 0


def say(path: Path, subject: str, words: Sequence[str]) -> int:
    """One command, its answer as JSON on stdout. Raises Refused with QEMU's own words, UsageError."""
    arguments = _arguments(words[1:])
    with _greeted(path, subject) as sock, QEMUMonitorProtocol(sock) as monitor:
        monitor.connect()
        monitor.settimeout(60.0)
        answer = monitor.cmd_raw(words[0], dict(arguments))
    if "error" in answer:
        raise Refused(Problem(f"QEMU refused {words[0]}: {answer['error']['desc']}", subject=subject))
    sys.stdout.write(json.dumps(answer["return"], indent=2) + "\n")
    return 0


def _arguments(words: Sequence[str]) -> Mapping[str, Json]:
    found = {}
    for word in words:
        name, is_given, text = word.partition("=")
        if not (name and is_given):
            raise UsageError(Problem(f"expected NAME=VALUE, got {word!r}", hint=_HINT))
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


@contextmanager
def _greeted(path: Path, subject: str) -> Iterator[socket.socket]:
    """A connection on which QEMU speaks to us. Errors of the library, and its silence, by our names."""
    with connect(path, subject) as sock:
        if not select.select([sock], [], [], GREETING)[0]:
            hint = "a monitor serves one client at a time: leave the other one"
            raise Unreachable(Problem("QEMU does not greet us: somebody else is at it", subject=subject, hint=hint))
        try:
            yield sock
        except (QMPError, TimeoutError, OSError) as error:
            raise Unreachable(Problem(f"QEMU does not answer any more: {error}", subject=subject)) from error
