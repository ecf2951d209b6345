"""APPLY: the channel to the guest agent. It is there from birth or not at all: agents look for it when they start."""

from __future__ import annotations

from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.sockets import listen


def plug(live: Live) -> None:
    """A socket of ours at one end, a virtio-serial port at the other."""
    if not live.spec.get("guestAgent", True):
        return
    monitor = live.monitor
    with listen(live.folder.agent) as sock:
        monitor.execute_with(sock.fileno(), "getfd", {"fdname": "agent"})
    address = {"type": "fd", "data": {"str": "agent"}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    monitor.execute("chardev-add", {"id": "agent", "backend": backend})
    live.plug({"driver": "virtio-serial-pci", "id": "serial-bus"})
    channel = {"driver": "virtserialport", "id": "agent", "chardev": "agent", "bus": "serial-bus.0"}
    live.add({**channel, "name": "org.qemu.guest_agent.0"})
