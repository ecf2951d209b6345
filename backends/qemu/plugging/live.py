"""APPLY: a QEMU whose machine is being put together or changed, and the three things done to it: look, plug, unplug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.grace import GRACE
from reconciler.backends.qemu.machine import Drive
from reconciler.backends.qemu.records import Record, save
from reconciler.model import Json, Spec
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

PERIPHERAL = "/machine/peripheral"
"""Where QEMU keeps what has an id of ours."""
_TAKEN = "not available"
"""What QEMU says of a slot that holds something already."""
_ALREADY = "already in the process of unplug"
_GONE = "not found"


@dataclass(slots=True)
class Live:
    """One machine under our hands. The VM's lock is held, and the monitor is ours, while this lasts.

    spec: as it is to become; drives: in boot order; booted: its CPUs have run, so that the guest has a say in it;
    patience: seconds that it has to let go of a device
    """

    folder: Folder
    monitor: Monitor
    record: Record
    spec: Spec
    drives: Sequence[Drive]
    tell: Tell
    booted: bool
    patience: float = GRACE.device
    _next_port: int = field(default=0)
    _present: frozenset[str] | None = field(default=None)

    @property
    def subject(self) -> str:
        """Whom problems are about."""
        return self.record.id

    def present(self) -> frozenset[str]:
        """The ids of all devices that QEMU has. Asked anew once we have had a hand in it."""
        if self._present is None:
            self._present = frozenset(one["name"] for one in self.monitor.execute("qom-list", {"path": PERIPHERAL}))
        return self._present

    def add(self, device: Mapping[str, Json]) -> None:
        """``device_add``. Refused when QEMU does not take it."""
        self._present = None
        self.monitor.execute("device_add", device)

    def remember(self, parts: Mapping[str, Json]) -> None:
        """Write down with what each of these is about to be plugged in."""
        self.record = self.record.but(plugged={**self.record.plugged, **parts})
        self.save()

    def forget(self, id: str) -> None:
        """It is gone. Written with whatever is written next: until then it is looked for in vain."""
        rest = {key: part for key, part in self.record.plugged.items() if key != id}
        self.record = self.record.but(plugged=rest)

    def save(self) -> None:
        """Before anything is done to the machine: the record says that somebody is at work on it, and what with."""
        save(self.folder, self.record)

    def plug(self, device: Mapping[str, Json]) -> None:
        """``device_add`` on a free PCIe port. Refused when there is none, or when QEMU does not take the device."""
        for port in self._ports():
            try:
                self.add({**device, "bus": port})
            except Refused as error:
                if _TAKEN not in error.problem.summary:
                    raise
            else:
                return
        what = f"{device['id']}: every PCIe port of the machine is taken"
        raise Refused(Problem(what, subject=self.subject, hint="it gets more ports when it starts next: restart it"))

    def unplug(self, id: str) -> None:
        """Ask for the device back, and wait until QEMU says that it is gone: asking alone is answered at once.

        Refused when the guest's time is over; the guest may let go of it still, and the next pass will see.
        """
        if id not in self.present():
            return
        self.tell(f"unplugging {id}")
        self._present = None
        gone = self._ask_back(id)
        if id in self.present():
            why = "refuses to let go of it" if gone else f"did not let go of it within {self.patience:g} s"
            hint = "does its system run, and take notice of devices that go? a restart takes it out for sure"
            raise Refused(Problem(f"{id}: the guest {why}", subject=self.subject, hint=hint))

    def _ask_back(self, id: str) -> bool:
        """Whether QEMU has said what became of it. It may have gone just now, because it was asked for before."""
        try:
            return self.monitor.execute_and_wait(
                "device_del",
                ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR"),
                self.patience,
                {"id": id},
                lambda event: event["data"].get("device") == id,
                tolerate=_ALREADY,
            )
        except Refused as error:
            if _GONE not in error.problem.summary:
                raise
            return True

    def _ports(self) -> Sequence[str]:
        """Free root ports: by counting while nothing but us has had a hand in it, later by asking."""
        if not self.booted:
            self._next_port += 1
            return (f"port{self._next_port - 1}",)
        return free_ports(self.monitor.execute("query-pci"))


def free_ports(buses: Sequence[Json]) -> list[str]:
    """The root ports of ``query-pci``'s answer that hold nothing, as far as the guest's firmware has numbered them."""
    return [
        device["qdev_id"]
        for device in buses[0]["devices"]
        if device["qdev_id"].startswith("port")
        and device.get("pci_bridge", {}).get("bus", {}).get("secondary")
        and not device["pci_bridge"].get("devices")
    ]
