"""OBSERVE: machine type, accelerator, CPU model, agent channel, and the ports that are still free."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.backends.qemu.aspects.view import Command, Reading, View
from reconciler.backends.qemu.plugging.live import free_ports
from reconciler.backends.qemu.records import Record

_FAMILIES = {"q35": "pc-q35-"}


def questions(_record: Record) -> dict[str, Command]:
    """Nothing that needs the guest."""
    return {
        "kvm": ("query-kvm", {}),
        "cpu-slots": ("query-hotpluggable-cpus", {}),
        "type": ("qom-get", {"path": "/machine", "property": "type"}),
        "pci": ("query-pci", {}),
    }


def read(view: View) -> Reading:
    """As QEMU has it, in the words of the declaration where these mean the same."""
    answers, spec = view.answers, view.spec
    fields = {
        "machine": machine_of(answers["type"], str(spec.get("machine", "q35"))),
        "accelerator": accelerator_of(answers["kvm"], str(spec.get("accelerator", "auto"))),
        "cpuModel": str(answers["cpu-slots"][0]["type"]).removesuffix("-x86_64-cpu"),
        "guestAgent": "agent" in view.devices,
    }
    return Reading(fields, room=len(free_ports(answers["pci"])))


def machine_of(kind: str, declared: str) -> str:
    """``pc-q35-7.2-machine`` is what ``q35`` stood for when the machine was started."""
    version = kind.removesuffix("-machine")
    family = _FAMILIES.get(declared)
    return declared if family and version.startswith(family) else version


def accelerator_of(kvm: Mapping[str, bool], declared: str) -> str:
    """``auto`` is whatever was chosen."""
    return declared if declared == "auto" else "kvm" if kvm["enabled"] else "tcg"
