"""The command line: from words to a verb to an exit code. The only importer of backends, one file a group of verbs.

0 done or in sync · 1 a problem that we name · 2 changes found · 3 a bug of ours · 130 interrupted
(141: nobody reads what we say).
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence

_ROOM = "make room, then run it again: it goes on where it was"
_RIGHTS = "run it as whoever may, or name another place (RECONCILER_STATE_DIR moves our own files)"
_NO_BUG = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EMFILE: "raise the limit on open files (ulimit -n), or look at less at once",
    errno.ENFILE: "this machine has too many files open: end something, then run it again",
    errno.EIO: "look at the disk: the kernel's log says more (dmesg)",
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
}
"""What the system refuses, and the way out."""
_HURRIED = ["reconcile", "--now"]
"""What push hooks say: somebody waits for every millisecond of it."""
DONE, PROBLEM, CHANGES, BUG, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; never raises, never shows a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    gc.set_threshold(100_000)  # a short life: collecting while modules load and things are read costs 5 % of it
    os.environ["PATH"] = _system_path(os.environ.get("PATH", os.defpath))  # an LXD that we start inherits it
    _open_streams()
    try:
        code = _run(words)
        sys.stdout.flush()
        gc.freeze()  # what is in memory goes with the process: to look through it once more would cost 4 % more
        return code
    except BrokenPipeError:
        _silence(sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last boundary: what has no name is a bug of ours
        return _failed(error, words)


def _failed(error: Exception, words: Sequence[str]) -> int:
    """Say what went wrong, by whoever's fault. Imports here: ``--help`` needs none of it."""
    from reconciler.problems import ReconcilerError

    if isinstance(error, ReconcilerError):
        from reconciler.cli.screen import show_problems

        show_problems(error.problems)
        return PROBLEM
    if isinstance(error, OSError) and error.errno in _NO_BUG:
        return _refused_by_system(error)
    from reconciler.cli.report import report

    sys.stderr.write(report(error, words))
    return BUG


def _refused_by_system(error: OSError) -> int:
    """A full disk, too many open files, no rights: nobody's bug, and nothing that another try would change."""
    from contextlib import suppress

    words = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    with suppress(OSError):
        sys.stderr.write(f"reconciler: {words}\n  hint: {_NO_BUG[error.errno or 0]}\n")
    _silence(sys.stdout.fileno())
    return PROBLEM


def _system_path(path: str) -> str:
    """With the folders of nft, dnsmasq and iptables: Debian leaves them out for users, and for root after ``su``."""
    folders = path.split(os.pathsep)
    more = [folder for folder in ("/usr/local/sbin", "/usr/sbin", "/sbin") if folder not in folders]
    return os.pathsep.join([*folders, *more])


def _open_streams() -> None:
    """Where one of the three is closed, the next file that we open must not take its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null == number:
                os.set_inheritable(null, True)
            else:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _knocked() -> bool:
    """Whether the one watch that runs looks now; else the long way says why not."""
    from reconciler.bases import watches
    from reconciler.cli.knock import SAID, knock

    if not knock(watches()):
        return False
    sys.stderr.write(f"{SAID}\n")
    return True


def _run(words: Sequence[str]) -> int:
    if words == _HURRIED and _knocked():
        return DONE
    from reconciler.cli.parser import build, parse

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal that cannot show a glyph
    try:
        arguments = parse(words)
    except SystemExit as leave:  # argparse's own way out: --help, usage errors
        return int(leave.code or 0)
    if arguments.version:
        arguments.module = "version"
    elif arguments.verb is None:
        sys.stdout.write(build().format_help())
        return PROBLEM
    from importlib import import_module

    code: int = import_module(f"reconciler.cli.{arguments.module}").run(arguments)
    return code


def _silence(handle: int) -> None:
    """Point a stream that nobody reads at /dev/null, so that the interpreter's last flush does not complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, handle)
    os.close(null)
