"""exec and shell without an agent: the serial console, for images whose console is a root shell."""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.backends.qemu.sockets import connect
from reconciler.problems import Interrupted, Problem, Refused

ESCAPE = b"\x1d"
"""Ctrl-], as telnet and virsh have it."""
_LONGEST = 3500
"""A terminal takes lines of at most 4096 characters."""
_ANSWERS_WITHIN = 5.0
_CALL_AGAIN = 0.5


def run(path: Path, subject: str, command: Sequence[str], environment: Mapping[str, str], timeout: float | None) -> int:
    """Run a command in the shell on the console, its output to ours as it comes; the exit code.

    Raises Refused when no shell answers there, or the command is too long for a terminal's line.
    """
    token = secrets.token_hex(8)
    line = _line(command, environment, token, subject)
    with _console(path, subject) as sock:
        _find_shell(sock, subject)
        sock.sendall(line)
        return _relay(sock, token, subject, timeout)


def shell(path: Path, subject: str) -> int:
    """The console on our own terminal, until Ctrl-] or the guest's end."""
    with _console(path, subject) as sock, _raw(sys.stdin.fileno()):
        sys.stderr.write(f"{subject}: serial console; Ctrl-] leaves it\r\n")
        sys.stderr.flush()
        sock.sendall(b"\n")  # so that a waiting prompt shows itself again
        _converse(sock)
    sys.stderr.write("\n")
    return 0


def _find_shell(sock: socket.socket, subject: str) -> None:
    """Call until a shell answers: one that is only just coming up may throw away what was said to it before."""
    token = secrets.token_hex(8)
    answer = f"{token}-here".encode()
    deadline = time.monotonic() + _ANSWERS_WITHIN
    buffer = bytearray()
    while answer not in buffer:
        if time.monotonic() > deadline:
            hint = "install qemu-guest-agent in the guest, or log in with `reconciler shell`"
            what = "neither a guest agent nor a shell on its serial console answers"
            raise Refused(Problem(what, subject=subject, hint=hint))
        # Ctrl-U: away with what somebody left half-typed. The shell puts the answer together, so that no echo holds it.
        sock.sendall(f"\x15\nprintf '%s%s\\n' {token} -here\n".encode())
        quiet = time.monotonic() + _CALL_AGAIN
        while answer not in buffer and (left := quiet - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                buffer += _receive(sock, subject)


def _line(command: Sequence[str], environment: Mapping[str, str], token: str, subject: str) -> bytes:
    """One line for the guest's shell. The marks are put together by the shell, so that its echo does not hold them."""
    words = [*(f"{key}={value}" for key, value in environment.items()), *command]
    wanted = shlex.join(["env", *words] if environment else words)
    text = f"printf '%s%s\\n' {token} -begin; {wanted} </dev/null; printf '%s%s %s\\n' {token} -end $?\n"
    if len(text) > _LONGEST or any(character in text[:-1] for character in "\n\r\x03\x04"):
        hint = "the image needs a guest agent for commands like this"
        raise Refused(Problem("the command does not fit on a console's line", subject=subject, hint=hint))
    return text.encode()


def _relay(sock: socket.socket, token: str, subject: str, timeout: float | None) -> int:
    """Show what lies between the two marks; the exit code that stands in the second."""
    deadline = None if timeout is None else time.monotonic() + timeout
    begin, end = re.compile(f"{token}-begin\r?\n".encode()), re.compile(f"{token}-end ([0-9]{{1,3}})\r?\n".encode())
    kept = len(token) + 64  # a mark may have arrived in part
    buffer = bytearray()
    while not (found := begin.search(buffer)):
        del buffer[:-kept]
        buffer += _more(sock, deadline, subject)
    del buffer[: found.end()]
    while not (found := end.search(buffer)):
        if len(buffer) > kept:
            _show(bytes(buffer[:-kept]))
            del buffer[:-kept]
        buffer += _more(sock, deadline, subject)
    _show(bytes(buffer[: found.start()]))
    return int(found.group(1))


def _more(sock: socket.socket, deadline: float | None, subject: str) -> bytes:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    if not select.select([sock], [], [], left)[0]:
        raise Interrupted(Problem("the command did not end in time: it may still be running", subject=subject))
    return _receive(sock, subject)


def _receive(sock: socket.socket, subject: str) -> bytes:
    if not (data := sock.recv(65536)):
        raise Interrupted(Problem("the guest ended", subject=subject))
    return data


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data.replace(b"\r\n", b"\n"))
    sys.stdout.buffer.flush()


def _converse(sock: socket.socket) -> None:
    """Both ways at once, until one side has enough."""
    ours = sys.stdin.fileno()
    sources: list[int | socket.socket] = [ours, sock]
    while True:
        ready = select.select(sources, [], [])[0]
        if sock in ready:
            if not (data := sock.recv(65536)):
                return
            os.write(sys.stdout.fileno(), data)
        if ours in ready:
            typed = os.read(ours, 4096)
            if not typed and not os.isatty(ours):
                sources.remove(ours)  # the end of a pipe: what the guest still says is shown until it ends
                continue
            before, escape, _ = typed.partition(ESCAPE)
            sock.sendall(before)
            if escape or not typed:
                return


@contextmanager
def _console(path: Path, subject: str) -> Iterator[socket.socket]:
    with connect(path, subject) as sock:
        sock.setblocking(True)
        yield sock


@contextmanager
def _raw(handle: int) -> Iterator[None]:
    """The terminal hands every key through; as it was, afterwards."""
    if not os.isatty(handle):
        yield
        return
    before = termios.tcgetattr(handle)
    try:
        tty.setraw(handle)
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
