"""A real QEMU around a machine image, with its serial console, guest agent and monitor at hand."""

from __future__ import annotations

import base64
import json
import re
import select
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from reconciler.backends.images import MachineImage

PATIENCE = 200.0
"""Seconds; a boot takes 2 when nobody else needs the processors."""
AGENT = "org.qemu.guest_agent.0"


class Channel:
    """One connection to a running QEMU, read until something is there."""

    def __init__(self) -> None:
        self._socket, self.far_end = socket.socketpair()
        self.seen = b""

    def send(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def until(self, pattern: bytes) -> re.Match[bytes]:
        """Read on until the pattern is there; what was read up to its end is forgotten."""
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._socket], [], [], left)[0], self.seen.decode(errors="replace")
            more = self._socket.recv(1 << 16)
            assert more, f"closed after: {self.seen.decode(errors='replace')}"
            self.seen += more
        self.seen = self.seen[match.end() :]
        return match

    def ask(self, command: str, **arguments: Any) -> Any:
        """A command in JSON, and its answer; events between are passed over."""
        self.send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.until(rb"[^\n]*\n")[0])
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]

    def close(self) -> None:
        self._socket.close()


class Vm:
    """A running VM; ``serial``, ``agent`` and ``monitor`` are its channels."""

    def __init__(self, image: MachineImage, *options: str, machine: str = "q35", kernel: Path | None = None) -> None:
        self.monitor, self.serial, self.agent = Channel(), Channel(), Channel()
        self._begun = time.monotonic()
        ends = [channel.far_end for channel in self._channels.values()]
        command = self._command(image, machine, kernel, options)
        self._process = subprocess.Popen(command, pass_fds=[end.fileno() for end in ends])
        for end in ends:
            end.close()
        self.monitor.until(rb"\n")
        self.monitor.ask("qmp_capabilities")
        self.monitor.ask("cont")

    @property
    def _channels(self) -> dict[str, Channel]:
        return {"monitor": self.monitor, "serial": self.serial, "agent": self.agent}

    def _command(self, image: MachineImage, machine: str, kernel: Path | None, options: Sequence[str]) -> list[str]:
        words = [
            "qemu-system-x86_64",
            "-S",
            "-machine",
            machine,
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "256",
        ]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += [
            "-kernel",
            str(kernel or image.kernel_elf),
            "-initrd",
            str(image.initrd),
            "-append",
            image.command_line,
        ]
        for name, channel in self._channels.items():
            words += ["-chardev", f"socket,id={name},fd={channel.far_end.fileno()}"]
        words += ["-mon", "monitor,mode=control", "-serial", "chardev:serial", "-device", "virtio-serial-pci"]
        words += ["-device", f"virtserialport,chardev=agent,name={AGENT}"]
        return [*words, *options]

    def ready(self) -> float:
        """Wait for the guest's own word; seconds since QEMU was started."""
        self.serial.until(rb"reconciler-guest: ready\r\n")
        return time.monotonic() - self._begun

    def run(self, script: str) -> str:
        """What a shell in the guest says, through the guest agent."""
        given = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = self.agent.ask("guest-exec", **given)["pid"]
        while not (answer := self.agent.ask("guest-exec-status", pid=pid))["exited"]:
            pass
        said = base64.b64decode(answer.get("out-data", "")).decode()
        assert answer["exitcode"] == 0, said + base64.b64decode(answer.get("err-data", "")).decode()
        return said

    def ended(self) -> int:
        """Wait for QEMU to end by itself; its exit code."""
        return self._process.wait(PATIENCE)

    def __enter__(self) -> Vm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for channel in self._channels.values():
            channel.close()
