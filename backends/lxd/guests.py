"""Behind the guest verbs ``logs``, ``exec`` and ``shell``: a container on our own terminal."""

from __future__ import annotations

import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from reconciler.accounts import Account, find_account, memberships
from reconciler.backends.lxd.apply.power import power_now
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.console import Console
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.files import Files
from reconciler.backends.lxd.session import Command, TookTooLong, run
from reconciler.model import Power
from reconciler.passing import passing_on
from reconciler.ports import FILE, FOLDER, Call
from reconciler.problems import Problem, Refused

_SHELL = ["/bin/sh", "-c", 'exec "$(command -v bash || echo /bin/sh)" -l']
_TIMED_OUT = 124  # what timeout(1) says
_SETPRIV = "/usr/bin/setpriv"
_NOT_RUN = {"Command not found": 127, "Command not executable": 126}  # what a shell says
_POLL = 0.5
_ANSWER = 10.0


def follow_console(console: Console, follow: bool) -> Iterator[bytes]:
    """The console log so far; with ``follow`` what is added to it, until the container is down.

    LXD has no stream of it that others may share, so it is read again and again.
    """
    told = b""
    while True:
        running = power_now(console.client, console.name, Deadline.after(_ANSWER)) is not Power.STOPPED
        log = console.read(Deadline.after(_ANSWER), running)
        fresh = log.removeprefix(told)
        if fresh:
            yield fresh
        told = log
        if not follow or not running:
            return
        time.sleep(_POLL)  # nothing tells when more is said


def execute(client: Client, name: str, call: Call) -> int:
    """Run a command on our own stdin, stdout, stderr; its exit code, 124 when it was killed for taking too long."""
    command = Command(
        call.words,
        out=lambda data: _write(1, data),
        err=lambda data: _write(2, data),
        environment=call.environment,
        stdin=0 if call.stdin else None,
    )
    if call.user not in (None, "root", "0"):
        command = as_account(client, name, str(call.user), command)
    try:
        with passing_on() as passing:
            within = None if call.timeout is None else Deadline.after(call.timeout)
            return run(client, name, replace(command, passing=passing), within)
    except TookTooLong:
        return _TIMED_OUT
    except Refused as error:
        code = _NOT_RUN.get(error.problem.summary)
        if code is None:
            raise
        _write(2, f"{call.words[0]}: {error.problem.summary.lower()}\n".encode())
        return code


def shell(client: Client, name: str, user: str | None = None) -> int:
    """An interactive shell on our terminal, which follows the terminal's size. user: as if that account logged in."""
    resized = _Resizes()
    environment = {key: value for key in ("TERM", "LANG") if (value := os.environ.get(key))}
    command = Command(
        _SHELL,
        out=lambda data: _write(1, data),
        err=lambda data: _write(2, data),
        environment=environment,
        stdin=0,
        terminal=_size(),
        resized=resized.take,
    )
    with _raw_terminal():
        if user in (None, "root", "0"):
            return run(client, name, command, None)
        account = account_in(client, name, str(user))
        login = replace(
            command, words=["su", "-l", "--", account.name], environment={"TERM": environment.get("TERM", "")}
        )
        try:
            return run(client, name, login, None)
        except Refused as error:
            if error.problem.summary not in _NOT_RUN:
                raise
        return run(
            client, name, as_account(client, name, str(user), replace(command, words=[account.shell, "-l"])), None
        )


def account_in(client: Client, name: str, who: str) -> Account:
    """The container's account of that name or number. Raises Refused."""
    passwd = Files(client, name, Deadline.after(_ANSWER)).read("/etc/passwd") or b""
    account = find_account(passwd.decode("utf-8", "replace"), who)
    if account is None:
        raise Refused(Problem(f'there is no account "{who}" in it', subject=f"Container/{name}"))
    return account


def as_account(client: Client, name: str, who: str, command: Command) -> Command:
    """The same command as that account, in its home, and in its groups where the guest has a tool for that."""
    account, files = account_in(client, name, who), Files(client, name, Deadline.after(_ANSWER))
    home = files.entry(account.home)
    own = {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    command = replace(
        command,
        environment={**own, **command.environment},
        folder=account.home if home is not None and home.type == FOLDER else "/",
    )
    tool = files.entry(_SETPRIV)
    if tool is None or tool.type != FILE:  # busybox has a link there, and cannot do it
        return replace(command, user=account.uid, group=account.gid)
    groups = memberships((files.read("/etc/group") or b"").decode("utf-8", "replace"), account)
    rights = [f"--reuid={account.uid}", f"--regid={account.gid}", f"--groups={','.join(map(str, groups))}"]
    return replace(command, words=[_SETPRIV, *rights, "--", *command.words])


class _Resizes:
    """The terminal's size, when it is not what it was."""

    def __init__(self) -> None:
        self._last = _size()

    def take(self) -> tuple[int, int] | None:
        """The new size, or None."""
        now = _size()
        if now == self._last:
            return None
        self._last = now
        return now


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the shell; the terminal is given back as it was, whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is meant for the shell
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> tuple[int, int]:
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return 80, 24
    return size.columns, size.lines


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]
