"""``logs``, ``exec`` and ``shell``: what a person does with a VM, through its agent or its serial console."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from reconciler.accounts import find_account
from reconciler.backends.qemu import process, serial
from reconciler.backends.qemu.agent import Agent, Finished, NotRun, is_answering
from reconciler.backends.qemu.agent_files import AgentFiles
from reconciler.backends.qemu.folders import Folder, folder_of
from reconciler.backends.qemu.records import Record, load
from reconciler.model import ResourceId
from reconciler.passing import passing_on
from reconciler.ports import Call, Settings
from reconciler.problems import Problem, Refused

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BLOCK = 64 * 1024
_AGENT = 2.0
"""Seconds that the agent has to answer before the serial console is tried."""


def logs(settings: Settings, id: ResourceId, follow: bool) -> Iterator[bytes]:
    """The serial console from its beginning; with ``follow`` until the guest ends."""
    folder, record = _look(settings, id)
    if not folder.serial_log.exists():
        return
    with folder.serial_log.open("rb") as file:
        while True:
            while block := file.read(_BLOCK):
                yield block
            if not follow or record.process is None or process.wait_gone(record.process, 0.2):
                yield file.read()
                return


def execute(settings: Settings, id: ResourceId, call: Call) -> int:
    """Run a command in the guest: through its agent when it answers, else in the shell on its serial console.

    Its exit code; 127 when there is no such program, 126 when it may not be run.
    """
    folder = _running(settings, id)
    if not is_answering(folder.agent, str(id), _AGENT):
        if call.stdin or call.user is not None:
            hint, what = "install qemu-guest-agent in the guest", "input" if call.stdin else "--user"
            raise Refused(Problem(f"{what} needs a guest agent, and none answers", subject=str(id), hint=hint))
        return serial.run(folder.serial, str(id), call.words, call.environment, call.timeout)
    given = sys.stdin.buffer.read() if call.stdin else b""
    words, environment = call.words, call.environment
    try:
        with passing_on() as passing, Agent(folder.agent, str(id)) as agent:
            if call.user not in (None, "root", "0"):
                words, environment = _as_account(agent, id, str(call.user), words, environment)
            done = agent.run(words, call.timeout, environment, given, passing.take)
    except NotRun as error:
        done = Finished(error.code, b"", f"{error.problem}\n".encode())
    _show(done)
    return done.code


def _as_account(
    agent: Agent, id: ResourceId, who: str, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Sequence[str], Mapping[str, str]]:
    """The same as that account, in its groups: su hands the words on as they are, no shell reads them."""
    account = find_account(agent.read_file("/etc/passwd").decode("utf-8", "replace"), who)
    if account is None:
        raise Refused(Problem(f'there is no account "{who}" in it', subject=str(id)))
    own = {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    words = ["su", "-m", "-s", "/bin/sh", "-c", 'exec "$@"', "--", account.name, "sh", *command]
    return words, {"PATH": _PATH, **own, **environment}


@contextmanager
def files(settings: Settings, id: ResourceId) -> Iterator[AgentFiles]:
    """The guest's files, through its agent. Raises Refused, Unreachable without one."""
    with Agent(_running(settings, id).agent, str(id)) as agent:
        yield AgentFiles(agent)


def shell(settings: Settings, id: ResourceId, user: str | None = None) -> int:
    """The serial console on our terminal, until Ctrl-]."""
    if user is not None:
        hint = "log in as whoever you like"
        raise Refused(
            Problem("the shell of a VM is its serial console: it takes no --user", subject=str(id), hint=hint)
        )
    return serial.shell(_running(settings, id).serial, str(id))


def monitor(settings: Settings, id: ResourceId, words: Sequence[str]) -> int:
    """QEMU's monitor for people: one command, or without words its shell."""
    from reconciler.backends.qemu import people

    path = _running(settings, id).people
    return people.say(path, str(id), words) if words else people.converse(path, str(id))


def _show(done: Finished) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for handle, data in ((1, done.out), (2, done.err)):
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(data)


def _look(settings: Settings, id: ResourceId) -> tuple[Folder, Record]:
    folder = folder_of(settings.state, settings.runtime, id.name)
    record = load(folder)
    if record is None:
        raise Refused(Problem("there is no such VM", subject=str(id)))
    return folder, record


def _running(settings: Settings, id: ResourceId) -> Folder:
    folder, record = _look(settings, id)
    if process.find(folder, record) is None:
        raise Refused(Problem("it is not running", subject=str(id), hint=f"`reconciler start {id}` starts it"))
    return folder
