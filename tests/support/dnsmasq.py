"""A real dnsmasq of a test's own: its folder, its port on loopback, and questions to it over UDP."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.unique import own_port

PATIENCE = 120.0
_NO_SUCH_NAME = 3


class Dnsmasq:
    """Reads the configuration in ``folder`` when it starts, as one of a distribution does; asks nobody else."""

    def __init__(self, root: Path, *words: str) -> None:
        self.folder = root / "dnsmasq.d"
        self.folder.mkdir(exist_ok=True)
        self.port = own_port()
        self._main = root / "dnsmasq.conf"
        self._main.write_text(
            f"port={self.port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n"
            f"pid-file=\nlog-facility=-\nuser=root\nconf-dir={self.folder},*.conf\n" + "".join(f"{w}\n" for w in words)
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the block; it answers when the block begins."""
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={self._main}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + PATIENCE
                while not self._answers():
                    assert process.poll() is None and time.monotonic() < deadline
                yield
            finally:
                process.terminate()

    def ask(self, name: str) -> list[str]:
        """The IPv4 addresses of a name; nothing where there is no such name."""
        code, found = self._ask(name)
        assert code in (0, _NO_SUCH_NAME), f"{name}: code {code}"
        return found

    def _ask(self, name: str) -> tuple[int, list[str]]:
        labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
        question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(PATIENCE)
            line.connect(("127.0.0.1", self.port))
            line.send(question)
            answer = line.recv(4096)
        _, flags, _, count, _, _ = struct.unpack(">6H", answer[:12])
        records = [answer[len(question) + 16 * at :][:16] for at in range(count)]  # each 12 bytes, and an address
        return flags & 15, sorted(socket.inet_ntoa(one[12:]) for one in records)

    def until(self, name: str, addresses: list[str]) -> None:
        """Ask until this is the answer: it hears of what was written a moment later."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.ask(name)) != addresses:
            assert time.monotonic() < deadline, f"{name}: {found}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            self._ask("localhost")
        except OSError:
            time.sleep(0.01)
            return False
        return True
