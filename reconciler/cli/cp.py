"""``reconciler cp``: files and folders into a guest, or out of one."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import cast

from reconciler.cli import DONE
from reconciler.cli.copying import pull, pull_stream, push, push_stream
from reconciler.cli.lookup import find, look
from reconciler.cli.screen import tell
from reconciler.model import GUESTS
from reconciler.ports import GuestFiles, Guests
from reconciler.problems import Problem, Refused, UsageError
from reconciler.view.text import clean, line

_REMOTE = re.compile(r"([A-Za-z0-9][A-Za-z0-9/-]*):(.*)", re.DOTALL)


def run(arguments: argparse.Namespace) -> int:
    """Exactly one side is in a guest."""
    source, target = _parsed(arguments.source), _parsed(arguments.target)
    if (source is None) == (target is None):
        hint = "such as: reconciler cp notes.txt termina/penguin:/home/ada; a file of this host with a colon is ./a:b"
        raise UsageError(Problem("exactly one of the two has to be NAME:PATH", hint=hint))
    name, path = source or target or ("", "")
    if not path.startswith("/") or "\0" in path:
        raise UsageError(Problem(f"{name}: expected an absolute path in the guest, got {path!r}"))
    with look(arguments) as seen:
        one = find(seen, name, arguments.environment)
        if one.id.kind not in GUESTS:
            raise UsageError(Problem("expected a VirtualMachine or a Container", subject=str(one.id)))
        with cast(Guests, seen.backends[one.backend]).files(one.id) as files:
            try:
                _copy(files, path, arguments, into=target is not None)
            except BrokenPipeError:
                raise  # nobody reads standard output any more
            except OSError as error:
                raise Refused(Problem(error.strerror or str(error), subject=str(error.filename or name))) from error
    return DONE


def _copy(files: GuestFiles, path: str, arguments: argparse.Namespace, into: bool) -> None:
    def say(words: str) -> None:
        tell([line(clean(words))])

    if into and arguments.source == "-":
        push_stream(files, path)
    elif into:
        push(files, Path(arguments.source), path, say)
    elif arguments.target == "-":
        pull_stream(files, path)
    else:
        pull(files, path, Path(arguments.target), say)


def _parsed(word: str) -> tuple[str, str] | None:
    """NAME:PATH; None for a path of this host."""
    found = _REMOTE.fullmatch(word)
    return (found[1], found[2]) if found else None
