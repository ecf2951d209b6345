"""``reconciler doctor``: what every backend says this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reconciler.cli import DONE, PROBLEM
from reconciler.cli.screen import show, show_json, show_problems, tell
from reconciler.cli.session import ANY_ENVIRONMENT, settings
from reconciler.ports import Check, Settings, Tell
from reconciler.problems import BackendError
from reconciler.view.text import Line, Span, clean, columns, line

_MARKS: dict[bool | None, Span] = {True: ("ok", "good"), False: ("missing", "bad"), None: ("-", "dim")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, and which backend asked."""

    room: str
    check: Check


def run(arguments: argparse.Namespace) -> int:
    """Show every check; ``--fix`` mends first and looks again. 1 when something that is needed is missing."""
    told = settings(ANY_ENVIRONMENT)
    if arguments.undo:
        return _undo(told)
    findings = list(_findings(told))
    if arguments.fix and _mend(findings):
        findings = list(_findings(told))
    if arguments.output == "json":
        show_json([_document(finding) for finding in findings])
    else:
        show(_lines(findings))
    return PROBLEM if any(finding.check.ok is False for finding in findings) else DONE


def _undo(told: Settings) -> int:
    from reconciler.backends.lxd import daemon
    from reconciler.backends.lxd.address import embedded_folder

    folder = embedded_folder(told.state)
    running = folder.exists() and (daemon.find(folder) is not None or daemon.leftovers(folder))
    if running:
        daemon.stop(folder)
    tell([line("embedded LXD: ", "stopped" if running else "was not running")])
    return DONE


def _findings(told: Settings) -> Iterator[Finding]:
    """All checks, backend by backend."""
    from reconciler.backends.images.checkup import checks as of_images
    from reconciler.backends.lxd.checkup import checks as of_lxd
    from reconciler.backends.qemu.checkup import checks as of_qemu
    from reconciler.names.places import Usual

    for room, checks in (("qemu", of_qemu), ("lxd", of_lxd), ("images", of_images)):
        yield from (Finding(room, check) for check in checks(told))
    yield Finding("host", Usual().check())


def _mend(findings: list[Finding]) -> bool:
    """Run the fix of everything that is missing; whether anything was tried."""
    tried = False
    for finding in findings:
        if finding.check.ok is False and finding.check.fix:
            tried = True
            _fix(finding.check.fix, clean(finding.check.name))
    return tried


def _fix(fix: Callable[[Tell], None], name: str) -> None:
    """Run one fix; what it cannot do is said, and the others go on."""

    def say(message: str) -> None:
        tell([line((f"{name}: ", "bold"), clean(message))])

    try:
        fix(say)
    except BackendError as error:
        show_problems(error.problems)


def _lines(findings: list[Finding]) -> Iterator[Line]:
    rows: list[list[Span]] = []
    hints: list[Line] = []
    for finding in findings:
        check = finding.check
        rows.append([_MARKS[check.ok], (finding.room, "dim"), (clean(check.name), "bold"), (clean(check.found), "")])
        if check.ok is not True and check.hint:
            hints.append(line((f"{clean(check.name)}: ", "bold"), clean(check.hint)))
    yield from columns(rows)
    if hints:
        yield line()
        yield from hints
    if any(finding.check.ok is False and finding.check.fix for finding in findings):
        yield line(("reconciler doctor --fix", "bold"), " mends what it can")


def _document(finding: Finding) -> dict[str, object]:
    check = finding.check
    return {
        "backend": finding.room,
        "name": check.name,
        "ok": check.ok,
        "found": check.found,
        "hint": check.hint,
        "fixable": check.fix is not None,
        **({"facts": dict(check.facts)} if check.facts else {}),
    }
