"""APPLY's end and ``describe``: is the guest up? Its conditions, each tried once, and the wait until all hold."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from reconciler.backends.qemu import process
from reconciler.backends.qemu.agent import Agent, is_answering
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.records import Process, Record
from reconciler.model import Condition, Spec
from reconciler.ports import Tell
from reconciler.problems import BackendError, GuestFailed, Problem
from reconciler.sockets import parse

TIMEOUT = 120.0
"""Seconds that a guest has when its manifest names no ``ready.timeout``."""
_PAUSE = 0.1
_AGENT = 1.0
"""Seconds that an agent has to answer, where it is asked again if it does not."""
PATIENCE = 5.0
"""The same where it is asked once: guests are slow where the host is busy."""
_PANIC = re.compile(
    r"Kernel panic - not syncing(?=[^\r\n]*[\r\n])[^\r\n]{0,120}|reconciler-guest: [^\r\n]*: not booting"
    r"|No bootable device|No bootable option or device was found"
)
_DAMAGED = re.compile(
    r"dm-verity device corrupted|the root disk cannot be verified|the root disk holds no file system of ours"
)
"""What a guest says of a root disk that is not the one whose hash stands on its kernel's command line."""
_NO_MEMORY = re.compile(r"deadlocked on memory|Out of memory|out of memory")
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")
_LOOPBACK6 = "::1"
_LOOK_BACK = 64 * 1024
_COMMAND = 10.0
_INTERFACES = "guest-network-get-interfaces"
_CLOUD_RESULT = "/run/cloud-init/result.json"


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest that is (or should be) running. patience: seconds that its agent has to answer."""

    folder: Folder
    record: Record
    subject: str
    patience: float = _AGENT

    @property
    def process(self) -> Process | None:
        """Its QEMU, as recorded."""
        return self.record.process


def conditions(guest: Guest, ready: Spec, needs_agent: bool = False) -> tuple[Condition, ...]:
    """Every condition that ``ready`` names, tried once, and ``Ready`` that sums them up."""
    found: list[Condition] = []
    if ready.get("guestAgent") or needs_agent:
        found.append(_agent(guest))
    if ready.get("ip"):
        found.append(_ip(guest))
    if "tcp" in ready:
        found.append(_tcp(guest, int(ready["tcp"])))
    if "log" in ready:
        found.append(_log(guest, str(ready["log"])))
    if "command" in ready:
        found.append(_command(guest, [str(word) for word in ready["command"]]))
    if ready.get("cloudInit"):
        found.append(_cloud_init(guest))
    missing = [one for one in found if not one.status]
    summary = "; ".join(one.message for one in missing)
    return (Condition("Ready", not missing, "AllHold" if not missing else missing[0].reason, summary), *found)


def await_ready(guest: Guest, ready: Spec, needs_agent: bool, tell: Tell, limit: float) -> None:
    """Return when all conditions hold. GuestFailed, with its last words, when it dies, panics or takes too long."""
    allowed = min(float(ready.get("timeout", TIMEOUT)), limit)
    deadline = time.monotonic() + allowed
    told = ""
    while True:
        now = conditions(guest, ready, needs_agent)
        if now[0].status:
            return
        if now[0].message != told:
            told = now[0].message
            tell(f"waiting: {told}")
        _check_alive(guest)
        if time.monotonic() > deadline:
            raise _failed(guest, f"it did not become ready within {allowed:g} s: {told}")
        _pause(guest)


def watch(guest: Guest, seconds: float) -> None:
    """GuestFailed when it dies or panics within so many seconds."""
    deadline = time.monotonic() + seconds
    _check_alive(guest)
    while time.monotonic() < deadline:
        _pause(guest)
        _check_alive(guest)


def is_lost(guest: Guest) -> bool:
    """Whether it has said that it will never be up."""
    return _PANIC.search(process.serial_tail(guest.folder, guest.record.log_start, _LOOK_BACK)) is not None


def _check_alive(guest: Guest) -> None:
    gone = guest.process is None or process.wait_gone(guest.process, 0)
    text = process.serial_tail(guest.folder, guest.record.log_start, _LOOK_BACK)
    if found := _PANIC.search(text):
        raise _does_not_boot(guest, found.group().removeprefix("reconciler-guest: "))
    if gone:
        raise _failed(guest, "it ended while it was starting")


def _does_not_boot(guest: Guest, said: str) -> GuestFailed:
    if not _DAMAGED.search(said):
        return _failed(guest, f"it does not boot: {said}", way_out(said))
    hint = (
        "somebody wrote to it, or the disk of this host fails; `reconciler reset` makes the guest anew from its image"
    )
    return _failed(guest, f"it does not boot: its read-only root was changed since it was made ({said})", hint)


def way_out(said: str) -> str | None:
    """What to do about a kernel's last word, where that is known."""
    if _NO_MEMORY.search(said):
        return "give it more memory.size; a Linux guest sets 64 MiB of it aside where there is a memory.max"
    return None


def _failed(guest: Guest, summary: str, hint: str | None = None) -> GuestFailed:
    words = process.serial_tail(guest.folder, guest.record.log_start) + process.last_words(guest.folder)
    lines = [line.rstrip() for line in _harmless(words).splitlines() if line.strip()]
    return GuestFailed(
        Problem(
            summary,
            subject=guest.subject,
            detail="\n".join(lines[-20:]) or "(it said nothing on its serial console)",
            hint=hint or f"`reconciler logs {guest.subject}` shows all that it said",
        )
    )


def _harmless(words: str) -> str:
    """A guest's words, without what would make our reader's terminal do things."""
    plain = _ESCAPES.sub("", words.replace("\r", "\n"))
    return "".join(character for character in plain if character.isprintable() or character in "\n\t")


def _pause(guest: Guest) -> None:
    """A short wait that ends at once when the guest does."""
    if guest.process is not None:
        process.wait_gone(guest.process, _PAUSE)
    else:
        select.select([], [], [], _PAUSE)


def _agent(guest: Guest) -> Condition:
    if is_answering(guest.folder.agent, guest.subject, guest.patience):
        return Condition("GuestAgent", True, "Answering")
    return Condition("GuestAgent", False, "Silent", "the guest agent does not answer")


def _tcp(guest: Guest, port: int) -> Condition:
    """Whether something in the guest listens there: its own kernel's word, so it holds for every kind of NIC."""
    try:
        with Agent(guest.folder.agent, guest.subject, guest.patience) as agent:
            tables = b"".join(_read(agent, table) for table in ("/proc/net/tcp", "/proc/net/tcp6"))
    except BackendError as error:
        return Condition("Tcp", False, "AgentNeeded", f"tcp {port}: {error.problem.summary}")
    if port in listening(tables.decode("ascii", "replace")):
        return Condition("Tcp", True, "Listening")
    return Condition("Tcp", False, "NotListening", f"nothing listens on tcp port {port}")


def _ip(guest: Guest) -> Condition:
    """Whether it has an address that others can reach: the agent's word, so it holds for every kind of NIC."""
    try:
        with Agent(guest.folder.agent, guest.subject, guest.patience) as agent:
            found = told_addresses(agent)
    except BackendError as error:
        return Condition("Ip", False, "AgentNeeded", f"ip: {error.problem.summary}")
    if found:
        return Condition("Ip", True, "HasAddress", ", ".join(found))
    return Condition("Ip", False, "NoAddress", "it has no address yet")


def told_addresses(agent: Agent) -> list[str]:
    """Those that the guest says it has, as ``addresses`` takes them."""
    said = agent.execute(_INTERFACES)
    with agent.sense(_INTERFACES):
        return addresses(said)


def addresses(interfaces: Sequence[Mapping[str, Any]]) -> list[str]:
    """The addresses beyond loopback and link that ``guest-network-get-interfaces`` tells of; nothing that is none."""
    given = [str(one.get("ip-address")) for interface in interfaces for one in interface.get("ip-addresses", ())]
    return [text for text in given if _is_beyond(text)]


def _is_beyond(text: str) -> bool:
    try:
        at = ip_address(text)
    except ValueError:
        return False
    return "%" not in text and not at.is_loopback and not at.is_link_local


def _command(guest: Guest, command: list[str]) -> Condition:
    """Whether a command in the guest ends well; one that takes longer than a moment counts as not yet."""
    try:
        with Agent(guest.folder.agent, guest.subject, guest.patience) as agent:
            code = agent.run(command, _COMMAND).code
    except BackendError as error:
        return Condition("Command", False, "NotRun", f"command: {error.problem.summary}")
    if code == 0:
        return Condition("Command", True, "Succeeded")
    return Condition("Command", False, "Failed", f"{command[0]} ended with exit code {code}")


def _cloud_init(guest: Guest) -> Condition:
    """cloud-init leaves its result where it ends; /run is new at every boot."""
    try:
        with Agent(guest.folder.agent, guest.subject, guest.patience) as agent:
            result = agent.read_file(_CLOUD_RESULT)
    except BackendError:
        return Condition("CloudInit", False, "Running", "cloud-init has not finished")
    if b'"errors": []' in result or b'"errors":[]' in result:
        return Condition("CloudInit", True, "Done")
    return Condition("CloudInit", False, "Errors", "cloud-init finished with errors: see cloud-init status --long")


def _read(agent: Agent, path: str) -> bytes:
    try:
        return agent.read_file(path)
    except BackendError:
        return b""


def listening(table: str) -> set[int]:
    """Ports in state LISTEN in a ``/proc/net/tcp`` table, those bound to loopback alone left out."""
    found = parse(table, "tcp")
    return {port for _, address, port in found if not address.startswith("127.") and address != _LOOPBACK6}


def _log(guest: Guest, pattern: str) -> Condition:
    text = process.serial_tail(guest.folder, guest.record.log_start, 4 * 1024 * 1024)
    if re.search(pattern, text, re.MULTILINE):
        return Condition("Log", True, "Seen")
    return Condition("Log", False, "NotSeen", f"the serial console has not shown /{pattern}/")


def is_wanted(ready: Mapping[str, object] | None) -> bool:
    """Whether there is anything to wait for."""
    return bool(ready and any(key != "timeout" for key in ready))
