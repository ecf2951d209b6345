"""B20: a share, a device and a disk into a running VM and out again, against the bare QMP sequence on the same VM.

Ours is one whole ``reconciler apply``: start, look, plan, act, look again. What it costs to start is measured beside
it, as the same command when there is nothing to do, and taken off. Bare is the shortest way to the same facts: the same
QMP commands from a loop that is running already and knows everything beforehand, the same virtiofsd, the same mount
through the agent; then the list of devices, for what was accepted is not what is there; and before a disk goes, the
guest's word that nothing of it is mounted. Neither waits until the guest's system has found a device or a disk.

What ours does beyond that is not taken off: the modules that only a change needs, the lock, the record on the disk
before and after (so that it may be killed at any moment), the policy of a shared folder, the whole look afterwards, the
history. That is some forty milliseconds however small the change: of a device, which QEMU plugs in within five, most.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.measure import Contestant, alternate, process, table
from bench.world import World, world
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder, folder_of
from reconciler.backends.qemu.plugging.live import free_ports

ROUNDS = 7
GOAL = 1.5
VM = """apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: virtual-machine, source: {build: {recipe: busybox}}}
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: vm}
spec: {boot: {image: busybox}, memory: 192MiB, ready: {guestAgent: true}, updatePolicy: live}
"""
MORE = {
    "share": "---\napiVersion: reconciler/v1\nkind: Share\nmetadata: {name: thing}\n"
    "spec: {source: ./folder, mounts: [{target: VirtualMachine/vm, path: /mnt/thing}]}\n",
    "device": "---\napiVersion: reconciler/v1\nkind: Device\nmetadata: {name: thing}\n"
    "spec: {emulate: {driver: usb-tablet}, attachTo: VirtualMachine/vm}\n",
    "disk": "---\napiVersion: reconciler/v1\nkind: Disk\nmetadata: {name: thing}\n"
    "spec: {size: 16MiB, attachTo: VirtualMachine/vm, deletionPolicy: delete}\n",
}
_UNUSED = """
for disk in /sys/block/vd*; do
    read -r serial 2>/dev/null <$disk/serial || [ -n "$serial" ] || continue
    if [ "$serial" = bare ]; then ! grep -q "^/dev/${disk##*/}" /proc/mounts; exit; fi
done
"""
"""Ends well, too, where the guest has not found the disk yet."""
_VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")


def main() -> int:
    with world() as here:
        folder = here.folder / "live"
        (folder / "folder").mkdir(parents=True)
        manifest = folder / "vm.yaml"
        manifest.write_text(VM)
        here.run("apply", "--yes", str(folder))
        for kind, more in MORE.items():
            manifest.write_text(VM + more)  # once in and out: what is plugged in once stays (the USB controller)
            here.run("apply", "--yes", str(folder))
            manifest.write_text(VM)
            here.run("apply", "--yes", "--prune", "--confirm-delete", str(folder))
            _compare(here, kind, more, manifest)
    return 0


def _compare(here: World, kind: str, more: str, manifest: Path) -> None:
    apply = process(here.reconciler("apply", "--yes", str(manifest.parent)), here.environment)
    away = process(
        here.reconciler("apply", "--yes", "--prune", "--confirm-delete", str(manifest.parent)), here.environment
    )
    bare = _Bare(_folder(here), manifest.parent / "folder")
    put, take = getattr(bare, f"put_{kind}"), getattr(bare, f"take_{kind}")

    def idle(text: str) -> float:
        """Right after the work, on the same manifests: they are as declared by now."""
        return apply() if text != VM else away()

    def ours(text: str, work: Contestant, back: str) -> Contestant:
        def run() -> float:
            manifest.write_text(text)
            seconds = work() - idle(text)
            if back:
                manifest.write_text(back)
                away()
            return seconds

        return run

    attach = alternate({"reconciler apply": ours(VM + more, apply, VM), "bare QMP": _timed(put, take)}, ROUNDS)
    print(table(f"B20 {kind} attached (start taken off)", "reconciler apply", attach, ("bare QMP", GOAL)))

    def detach() -> float:
        manifest.write_text(VM + more)
        apply()
        return ours(VM, away, "")()

    def bare_detach() -> float:
        put()
        return _timed(take, lambda: None)()

    gone = alternate({"reconciler apply": detach, "bare QMP": bare_detach}, ROUNDS)
    print(table(f"B20 {kind} detached (start taken off)", "reconciler apply", gone, ("bare QMP", GOAL)))


def _timed(work: Callable[[], None], back: Callable[[], None]) -> Contestant:
    def run() -> float:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        back()
        return seconds

    return run


def _folder(here: World) -> Folder:
    environment = here.environment
    return folder_of(Path(environment["RECONCILER_STATE_DIR"]), _runtime(environment), "vm")


def _runtime(environment: dict[str, str]) -> Path:
    found = subprocess.run(
        [sys.executable, "-c", "from reconciler.paths import runtime_dir; print(runtime_dir())"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip())


class _Bare:
    """The bare sequences on the VM of ``folder``."""

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
        _Bare._look(monitor, there=True)

    @staticmethod
    def _remove(monitor: Monitor) -> None:
        monitor.execute_and_wait(
            "device_del", ["DEVICE_DELETED"], 20, {"id": "bare"}, lambda event: event["data"].get("device") == "bare"
        )
        _Bare._look(monitor, there=False)

    @staticmethod
    def _look(monitor: Monitor, there: bool) -> None:
        devices = monitor.execute("qom-list", {"path": "/machine/peripheral"})
        if any(one["name"] == "bare" for one in devices) is not there:
            raise RuntimeError("accepted, and not done")


if __name__ == "__main__":
    sys.exit(main())
