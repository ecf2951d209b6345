"""What a proof of an effect consists of: two specs, a question to the guest itself, and what it answers to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.backends.qemu.sockets import connect
from reconciler.model import Desired, Effect, ResourceId
from tests.support.qemu import Lab

PRELUDE = """
dev() { for d in /sys/block/vd*; do if [ "$(cat $d/serial 2>/dev/null)" = "$1" ]; then echo /dev/${d##*/}; fi; done; }
text() { dev=$(dev "$1"); if [ -n "$dev" ]; then dd if=$dev bs=8 count=1 iflag=direct 2>/dev/null | tr -d '\\0'; fi; }
"""
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_PATIENCE = 60.0


Around = Callable[[Lab], Sequence[Desired]]
Fields = Mapping[str, Any] | Callable[[Lab], Mapping[str, Any]]


@dataclass(frozen=True)
class Proof:
    """A change, and the guest's word on it.

    before, after: fields of the VM over those of the base, as they are or as made in the lab; None takes one out
    word:   a shell script, or what asks the guest in another way
    says:   what it answers before and after; None: it cannot be asked then
    around: what else is declared, before and after
    effect: of the change, where it is not that of the row
    name:   of the VM, before and after; console: there is no agent to ask
    next_boot: it answers so once it has booted again
    """

    before: Fields
    after: Fields
    word: str | Callable[[Lab], str]
    says: tuple[str | None, str | None]
    around: tuple[Around, Around] | None = None
    effect: Effect | None = None
    name: tuple[str, str] = ("vm", "vm")
    console: bool = False
    next_boot: bool = False
    payload: Mapping[str, bytes] = field(default_factory=dict)

    def wanted(self, lab: Lab, base: Mapping[str, Any], which: int) -> list[Desired]:
        """Everything that is declared: 0 before, 1 after."""
        own = (self.before, self.after)[which]
        fields = {**base, **(own(lab) if callable(own) else own)}
        more = list(self.around[which](lab)) if self.around is not None else []
        vm = lab.busybox(self.name[which], **{key: value for key, value in fields.items() if value is not None})
        old = ResourceId("VirtualMachine", self.name[0]) if which and self.name[0] != self.name[1] else None
        needs = tuple(one.id for one in more)
        return [replace(vm, needs=needs, payload=self.payload, renamed_from=old), *more]

    def ask(self, lab: Lab, script: str, which: int) -> str:
        """What the guest says to a script."""
        if self.console:
            return on_console(lab, script, self.name[which])
        return lab.inside("sh", "-c", PRELUDE + script, name=self.name[which])

    def answers(self, lab: Lab, which: int) -> None:
        """It says what it should, at once or after a moment: guests take one to notice."""
        expected = self.says[which]
        if expected is None:
            return
        deadline = time.monotonic() + _PATIENCE
        while (said := self._said(lab, which)) != expected:
            assert time.monotonic() < deadline, f"the guest says {said!r}, not {expected!r}"
            time.sleep(0.1)

    def _said(self, lab: Lab, which: int) -> str:
        return self.ask(lab, self.word, which) if isinstance(self.word, str) else self.word(lab)


def on_console(lab: Lab, script: str, name: str = "vm") -> str:
    """What the root shell on the serial console says to a line."""
    deadline = time.monotonic() + _PATIENCE
    with connect(lab.folder(name).serial, name) as sock:
        while time.monotonic() < deadline:
            # Said again until it is heard: a shell that only just begins loses what came before it.
            sock.sendall(f" echo be''gin; {script}; echo e''nd\n".encode())
            heard = _heard(sock, min(deadline, time.monotonic() + 3.0))
            if b"begin\r\n" in heard and b"\r\nend\r\n" in heard:
                said = heard.rpartition(b"begin\r\n")[2].partition(b"\r\nend\r\n")[0]
                return said.decode().replace("\r", "").strip()
    raise AssertionError("nobody answers on the console")


def _heard(sock: Any, deadline: float) -> bytes:
    heard = b""
    while b"\r\nend\r\n" not in heard and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            heard += sock.recv(65536)
        except TimeoutError:
            break
    return heard
