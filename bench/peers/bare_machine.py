"""The bare limit of changing a VM that runs: the QMP commands themselves, from a loop that knows everything already.

What was accepted is not what is there: so the list of devices is read after each, as any careful script would. Before a
disk goes, the guest's word that nothing of it is mounted; a share is mounted and unmounted in the guest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.plugging.live import free_ports

_UNUSED = """
for disk in /sys/block/vd*; do
    read -r serial 2>/dev/null <$disk/serial || [ -n "$serial" ] || continue
    if [ "$serial" = bare ]; then ! grep -q "^/dev/${disk##*/}" /proc/mounts; exit; fi
done
"""
"""Ends well, too, where the guest has not found the disk yet."""
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")


class Machine:
    """The VM of ``folder``. shared: the folder that is shared with it."""

    def __init__(self, folder: Folder, shared: Path) -> None:
        self._folder = folder
        self._shared = shared
        self._disk = shared.parent / "bare.qcow2"
        self._daemon: subprocess.Popen[bytes] | None = None

    def put_disk(self) -> None:
        create = ["qemu-img", "create", "-q", "-f", "qcow2", str(self._disk), "16M"]
        subprocess.run(create, check=True)
        handle = os.open(self._disk, os.O_RDWR)
        with self._monitor() as monitor:
            number = monitor.execute_with(handle, "add-fd", {})["fdset-id"]
            file = {"driver": "file", "filename": f"/dev/fdset/{number}"}
            monitor.execute("blockdev-add", {"driver": "qcow2", "node-name": "bare", "file": file})
            self._add(monitor, {"driver": "virtio-blk-pci", "id": "bare", "drive": "bare", "serial": "bare"})
        os.close(handle)

    def take_disk(self) -> None:
        self._inside(_UNUSED)
        with self._monitor() as monitor:
            self._remove(monitor)
            monitor.execute("blockdev-del", {"node-name": "bare"})
        self._disk.unlink()

    def put_device(self) -> None:
        with self._monitor() as monitor:
            monitor.execute("device_add", {"driver": "usb-tablet", "id": "bare"})
            self._look(monitor, there=True)

    def take_device(self) -> None:
        with self._monitor() as monitor:
            self._remove(monitor)

    def put_share(self) -> None:
        listener = self._folder.sockets / "bare.sock"
        listener.unlink(missing_ok=True)
        program = next(path for path in _VIRTIOFSD if Path(path).exists())
        self._daemon = subprocess.Popen(
            [program, f"--socket-path={listener}", "-o", f"source={self._shared}", "-o", "sandbox=namespace"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        line = socket.socket(socket.AF_UNIX)
        while True:
            try:
                line.connect(str(listener))
                break
            except OSError:
                time.sleep(0.002)
        with self._monitor() as monitor:
            monitor.execute_with(line.fileno(), "getfd", {"fdname": "bare"})
            address = {"type": "fd", "data": {"str": "bare"}}
            backend = {"type": "socket", "data": {"addr": address, "server": False}}
            monitor.execute("chardev-add", {"id": "bare", "backend": backend})
            self._add(monitor, {"driver": "vhost-user-fs-pci", "id": "bare", "chardev": "bare", "tag": "bare"})
        line.close()
        script = "mkdir -p /mnt/bare; until mount -t virtiofs -o ro bare /mnt/bare 2>/dev/null; do usleep 5000; done"
        self._inside(script)

    def take_share(self) -> None:
        self._inside("umount /mnt/bare")
        with self._monitor() as monitor:
            self._remove(monitor)
            monitor.execute("chardev-remove", {"id": "bare"})
        assert self._daemon is not None
        self._daemon.wait()

    def _monitor(self) -> Monitor:
        return Monitor(self._folder.qmp, "bench")

    def _inside(self, script: str) -> None:
        with Agent(self._folder.agent, "bench", keep=False) as agent:  # ours, right after, is not to wait for it
            if agent.run(["sh", "-c", script], 30.0).code:
                raise RuntimeError(f"the guest: {script}")

    @staticmethod
    def _add(monitor: Monitor, device: dict[str, object]) -> None:
        port = free_ports(monitor.execute("query-pci"))[0]
        monitor.execute("device_add", {**device, "bus": port})
        Machine._look(monitor, there=True)

    @staticmethod
    def _remove(monitor: Monitor) -> None:
        monitor.execute_and_wait(
            "device_del", ["DEVICE_DELETED"], 20, {"id": "bare"}, lambda event: event["data"].get("device") == "bare"
        )
        Machine._look(monitor, there=False)

    @staticmethod
    def _look(monitor: Monitor, there: bool) -> None:
        devices = monitor.execute("qom-list", {"path": "/machine/peripheral"})
        if any(one["name"] == "bare" for one in devices) is not there:
            raise RuntimeError("accepted, and not done")
