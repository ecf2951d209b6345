"""PLAN's data for QEMU: what each changed field does to whoever uses the resource. Nothing but tables."""

from __future__ import annotations

from reconciler.effects import Rule, Table
from reconciler.model import Effect

_AT_START = "QEMU takes it only when it starts"
_DISK_LIVE = "plugged in and out while the guest runs; it has to unmount first what it has mounted"
_NIC_LIVE = "plugged in and out while the guest runs; the guest has to bring a new one up"
_DEVICE_LIVE = "plugged in and out while the guest runs"
_SHARE = "plugged in and out, mounted and unmounted while the guest runs"
_FORWARD = "the host begins or ends to listen; connections that stand go on"
_GONE = "the guest's own disk is made anew from the new image"

_VIRTUAL_MACHINE = {
    "power": Rule(Effect.LIVE, "the guest is started, stopped or paused"),
    # How far these go while the guest runs, it tells by rules of its own (see sizing).
    "cpus.count": Rule(Effect.LIVE, "CPUs are plugged in and out while the guest runs"),
    "cpus.max": Rule(Effect.RESTART, _AT_START),
    "memory.size": Rule(Effect.LIVE, "the guest takes and gives back memory while it runs"),
    "memory.max": Rule(Effect.RESTART, _AT_START),
    "machine": Rule(Effect.RESTART, _AT_START),
    "accelerator": Rule(Effect.RESTART, _AT_START),
    "cpuModel": Rule(Effect.RESTART, _AT_START),
    "firmware": Rule(Effect.RESTART, _AT_START),
    "boot": Rule(Effect.RESTART, _AT_START),
    "boot.image.**": Rule(Effect.REPLACE, _GONE),
    "boot.kernel": Rule(Effect.RESTART, "a kernel is loaded when the guest boots"),
    "boot.initrd": Rule(Effect.RESTART, "a kernel is loaded when the guest boots"),
    "boot.commandLine": Rule(Effect.RESTART, "a kernel is loaded when the guest boots"),
    "disks": Rule(Effect.LIVE, _DISK_LIVE),
    "disks.*": Rule(Effect.LIVE, _DISK_LIVE, plugs=True),
    "disks.*.image.**": Rule(Effect.REPLACE, _GONE),
    "disks.*.size": Rule(Effect.LIVE, "the disk grows while the guest uses it", smaller=Effect.IMPOSSIBLE),
    "disks.*.path": Rule(Effect.LIVE, _DISK_LIVE),
    "disks.*.disk": Rule(Effect.LIVE, _DISK_LIVE),
    "disks.*.format": Rule(Effect.REPLACE, "a disk keeps the format that it was made in"),
    "disks.*.readOnly": Rule(Effect.LIVE, _DISK_LIVE),
    "disks.*.mount": Rule(Effect.LIVE, "mounted and unmounted in the guest by its agent; what is in use stays"),
    "bootOrder": Rule(Effect.LIVE, "the firmware goes by it when the guest boots next"),
    "nics": Rule(Effect.LIVE, _NIC_LIVE),
    "nics.*": Rule(Effect.LIVE, _NIC_LIVE, plugs=True),
    "nics.*.*": Rule(Effect.LIVE, "unplugged and plugged in again: the guest sees a new network card"),
    "devices": Rule(Effect.LIVE, _DEVICE_LIVE),
    "devices.*": Rule(Effect.LIVE, _DEVICE_LIVE, plugs=True),
    "devices.*.*.**": Rule(Effect.LIVE, "unplugged and plugged in again: to the guest it is another device"),
    "shares": Rule(Effect.LIVE, _SHARE),
    "shares.*": Rule(Effect.LIVE, _SHARE, plugs=True),
    "shares.*.*": Rule(Effect.LIVE, "unplugged and plugged in again: what the guest has open there is lost"),
    "forwards.**": Rule(Effect.LIVE, _FORWARD),
    "guestAgent": Rule(Effect.RESTART, "the agent's channel is plugged in before the guest boots"),
    "cloudInit.**": Rule(Effect.RESTART, "cloud-init reads its seed when the guest boots"),
    "files.**": Rule(Effect.LIVE, "put into the running guest, or removed from it if it is still what we put"),
    "run.**": Rule(Effect.LIVE, "commands whose moment has come are run"),
    "lifetime": Rule(Effect.LIVE, "who starts and who ends it from now on"),
    "restart": Rule(Effect.LIVE, "watch mode will act on it; this version records it"),
    "tpm": Rule(Effect.RESTART, "a TPM is plugged in before the guest boots"),
    "lxd": Rule(Effect.LIVE, "says only that the guest hosts LXD"),
    "metadata.name": Rule(Effect.RESTART, "the machine's identity is part of its QEMU"),
}

_DISK = {
    "size": Rule(Effect.LIVE, "a disk grows while it is used", smaller=Effect.IMPOSSIBLE),
    "format": Rule(Effect.IMPOSSIBLE, "a disk keeps the format that it was made in; its data would be lost"),
    "path": Rule(Effect.IMPOSSIBLE, "its data would stay behind: move the file, then declare a new Disk there"),
    "readOnly": Rule(Effect.LIVE, "concerns the machine that it is attached to"),
    "mount.**": Rule(Effect.LIVE, "concerns the machine that it is attached to"),
}

_IMAGE = {
    "type": Rule(Effect.REPLACE, "another kind of image altogether"),
    "source.**": Rule(Effect.LIVE, "guests that were made from it keep what they have"),
    "identity": Rule(Effect.LIVE, "guests that were made from it keep what they have"),
}

TABLE: Table = {"VirtualMachine": _VIRTUAL_MACHINE, "Disk": _DISK, "Image": _IMAGE}
