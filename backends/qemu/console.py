"""``logs``, ``exec`` and ``shell``: what a person does with a VM, through its agent or its serial console."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from reconciler.backends.qemu import process, serial
from reconciler.backends.qemu.agent import Agent, Finished, NotRun, is_answering
from reconciler.backends.qemu.folders import Folder, folder_of
from reconciler.backends.qemu.records import Record, load
from reconciler.model import ResourceId
from reconciler.ports import Settings
from reconciler.problems import Problem, Refused

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


def execute(
    settings: Settings,
    id: ResourceId,
    command: Sequence[str],
    environment: Mapping[str, str],
    stdin: bool,
    timeout: float | None,
) -> int:
    """Run a command in the guest: through its agent when it answers, else in the shell on its serial console.

    Its exit code; 127 when there is no such program, 126 when it may not be run.
    """
    folder = _running(settings, id)
    if not is_answering(folder.agent, str(id), _AGENT):
        if stdin:
            hint = "install qemu-guest-agent in the guest"
            raise Refused(Problem("input needs a guest agent, and none answers", subject=str(id), hint=hint))
        return serial.run(folder.serial, str(id), command, environment, timeout)
    given = sys.stdin.buffer.read() if stdin else b""
    try:
        with Agent(folder.agent, str(id)) as agent:
            done = agent.run(command, timeout, environment, given)
    except NotRun as error:
        done = Finished(error.code, b"", f"{error.problem}\n".encode())
    _show(done)
    return done.code


def shell(settings: Settings, id: ResourceId) -> int:
    """The serial console on our terminal, until Ctrl-]."""
    return serial.shell(_running(settings, id).serial, str(id))


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
