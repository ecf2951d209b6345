"""A VM's life on a real QEMU: every test looks at the world afterwards, and at a second plan that has nothing to do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from reconciler.backends.qemu.client import Monitor
from reconciler.model import Desired, Power, ResourceId, Result, Verb
from tests.support.qemu import IDLE_SAYS, MIB, Lab, busybox_image, remains

VM = ResourceId("VirtualMachine", "vm")


def but(want: Desired, **spec: object) -> Desired:
    return replace(want, spec={**want.spec, **spec})


def test_a_vm_is_created_and_the_second_plan_is_empty(lab: Lab) -> None:
    want = lab.idle(nics={"eth0": {"type": "user", "model": "virtio-net-pci"}}, cpus={"count": 2})
    assert lab.converge(want) == [Verb.CREATE]
    seen = lab.look()
    assert (seen.power, seen.owned, seen.environment, seen.pending) == (Power.RUNNING, True, "tests", None)
    assert IDLE_SAYS in lab.serial()


def test_power_cycle(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    first = lab.process()
    assert lab.converge(but(want, power="stopped")) == [Verb.UPDATE]
    assert lab.look().power is Power.STOPPED
    assert lab.converge(want) == [Verb.UPDATE]
    assert lab.process() != first


def test_pause_and_go_on_keep_the_process(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    first = lab.process()
    lab.converge(but(want, power="paused"))
    assert lab.look().power is Power.PAUSED
    lab.converge(want)
    assert (lab.look().power, lab.process()) == (Power.RUNNING, first)


def test_created_stopped_and_created_paused(lab: Lab) -> None:
    lab.converge(lab.idle("off", power="stopped"), lab.idle("hold", power="paused"))
    assert lab.look("off").power is Power.STOPPED
    assert lab.look("hold").power is Power.PAUSED
    assert IDLE_SAYS in lab.serial("hold")


def test_a_paused_vm_stops(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(but(want, power="paused"))
    lab.converge(but(want, power="stopped"))
    assert lab.look().power is Power.STOPPED


def test_a_changed_field_restarts_and_holds(lab: Lab) -> None:
    lab.converge(lab.idle())
    first = lab.process()
    bigger = lab.idle(memory={"size": 96 * MIB}, cpus={"count": 2})
    assert lab.converge(bigger) == [Verb.RESTART]
    assert lab.process() != first
    assert lab.look().spec["memory"] == {"size": 96 * MIB}
    assert lab.look().spec["cpus"] == {"count": 2}


def test_every_field_that_qemu_tells_is_seen_as_it_is(lab: Lab) -> None:
    lab.converge(lab.idle(cpuModel="qemu64", machine="pc-q35-7.0"))
    spec = lab.look().spec
    assert (spec["cpuModel"], spec["machine"], spec["accelerator"]) == ("qemu64", "pc-q35-7.0", "tcg")


def test_what_somebody_unplugs_is_seen(lab: Lab) -> None:
    want = lab.idle(nics={"eth0": {"type": "user", "model": "virtio-net-pci"}}, power="paused")
    lab.converge(want)
    with Monitor(lab.folder().people, "people") as monitor:
        monitor.execute("device_del", {"id": "nic-eth0"})
        monitor.execute("system_reset")
        monitor.execute("cont")
    assert [change.field for change in lab.changes(want) if change.path[0] == "nics"] == ["nics.eth0"]


def test_odd_sizes_do_not_drift(lab: Lab) -> None:
    odd = lab.idle(memory={"size": 64 * MIB + 12345}, disks={"data": disk(MIB + 100)})
    lab.converge(odd)
    lab.converge(but(odd, power="stopped"))


def disk(size: int, **more: object) -> dict[str, object]:
    return {"size": size, "format": "qcow2", "readOnly": False, **more}


def test_restart_is_a_new_boot(linux: Lab) -> None:
    want = linux.busybox()
    linux.converge(want)
    first = linux.inside("cat", "/proc/sys/kernel/random/boot_id")
    linux.converge(linux.busybox(cpus={"count": 2}))
    assert linux.inside("cat", "/proc/sys/kernel/random/boot_id") != first
    assert linux.inside("nproc") == "2"


def test_replace_makes_everything_anew_but_the_disks_that_stand_for_themselves(lab: Lab) -> None:
    data = lab.desired("Disk", "data", {"size": MIB, "format": "raw"})
    attached = {"data": {"disk": "data", "format": "raw", "readOnly": False}}
    lab.converge(data)
    lab.converge(replace(lab.idle(disks={"own": disk(MIB), **attached}), needs=(data.id,)), data)
    mine, other = lab.state / "disks/data.raw", lab.folder().disk("own", "qcow2")
    assert other.exists()
    mine.write_bytes(b"kept".ljust(MIB, b"\0"))
    lab.converge(replace(lab.idle(disks={"own": disk(MIB, format="raw"), **attached}), needs=(data.id,)), data)
    assert not other.exists()
    assert mine.read_bytes().startswith(b"kept")


def test_rename_in_place(lab: Lab) -> None:
    lab.converge(lab.idle(disks={"own": disk(MIB)}))
    before = lab.record()
    own = lab.folder().disk("own", "qcow2").stat().st_ino
    want = lab.idle("new", disks={"own": disk(MIB)})
    assert lab.converge(replace(want, renamed_from=VM)) == [Verb.RESTART]
    assert not lab.folder("vm").exists()
    assert lab.record("new").uuid != before.uuid
    assert lab.folder("new").disk("own", "qcow2").stat().st_ino == own
    assert lab.look("new").power is Power.RUNNING


def test_delete_leaves_nothing(lab: Lab) -> None:
    lab.converge(lab.idle(disks={"own": disk(MIB)}, cloudInit={"userData": "#!/bin/sh\n"}))
    assert [outcome.result for outcome in lab.delete(VM)] == [Result.APPLIED]
    assert remains(lab.state) == []
    assert VM not in lab.backend.observe().resources


def test_a_kernel_is_kept_once_for_all_and_no_longer_than_needed(linux: Lab) -> None:
    linux.converge(linux.busybox("a", power="stopped"), linux.busybox("b", power="stopped"))
    assert linux.folder("a").kernel.stat().st_ino == linux.folder("b").kernel.stat().st_ino
    linux.delete(ResourceId("VirtualMachine", "a"))
    linux.converge(linux.busybox("c", power="stopped"))
    assert linux.folder("b").kernel.stat().st_ino == linux.folder("c").kernel.stat().st_ino
    linux.delete(ResourceId("VirtualMachine", "c"))
    linux.delete(ResourceId("VirtualMachine", "b"))
    assert list((linux.state / "boot").iterdir()) == []


def test_a_guest_outlives_its_image_and_follows_a_new_one_only_when_told(linux: Lab) -> None:
    image = busybox_image(linux, "other")
    linux.converge(image)
    boot = {"image": {"name": "other", "identity": image.spec["identity"]}}
    want = replace(linux.busybox(boot=boot, power="stopped"), needs=(image.id,))
    linux.converge(want)
    newer = busybox_image(linux, "other", "c" * 64)
    later = but(want, boot={"image": {"name": "other", "identity": "c" * 64}})
    linux.converge(newer, later)
    linux.converge(newer, but(later, memory={"size": 200 * MIB}))  # it is prepared anew, and stands where it stood
    later = but(later, memory={"size": 200 * MIB})
    assert linux.look().spec["boot"]["image"]["identity"] == image.spec["identity"]
    following = but(later, imagePolicy="follow")
    assert linux.verbs(newer, following) == [Verb.NOOP, Verb.REPLACE]
    linux.converge(newer, following)
    assert linux.look().spec["boot"]["image"]["identity"] == "c" * 64
    linux.delete(newer.id)
    assert linux.look().power is Power.STOPPED


def test_adoption_from_another_environment(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    first = lab.process()
    other = Lab(lab.state, "other")
    assert other.verbs(want) == [Verb.HOLD]
    other.converge(want, adopt=True)
    assert (lab.look().environment, lab.process()) == ("other", first)


def test_the_command_lines_power_verbs(lab: Lab) -> None:
    want = lab.idle()
    lab.converge(want)
    lab.backend.power(VM, "stop", False, 5.0, lab.told.append)
    assert lab.look().power is Power.STOPPED
    lab.backend.power(VM, "start", False, 5.0, lab.told.append)
    first = lab.process()
    lab.backend.power(VM, "restart", True, 5.0, lab.told.append)
    assert lab.process() != first
    assert lab.verbs(want) == [Verb.NOOP]


def test_it_runs_on_when_the_command_has_ended(lab: Lab) -> None:
    want = lab.idle()
    child = os.fork()
    if child == 0:
        try:
            lab.converge(want)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert lab.verbs(want) == [Verb.NOOP]
    assert os.getsid(lab.process().pid) == lab.process().pid


def test_a_hundred_sockets_deep(lab: Lab) -> None:
    deep = Path(lab.state, *["d" * 60] * 3)
    nested = Lab(deep)
    deep.mkdir(parents=True)
    nested.converge(nested.idle("a" * 63))
    nested.sweep()
    assert remains(deep) == []


def test_a_boot_from_files_and_back_is_the_images_again(linux: Lab) -> None:
    want = linux.busybox(power="stopped")
    linux.converge(want)
    folder = linux.folder()
    kernels = [file.read_bytes() for file in (folder.kernel, folder.kernel_elf, folder.initrd)]
    kernel, initrd = linux.state / "kernel", linux.state / "initrd"
    kernel.write_bytes(kernels[1])
    initrd.write_bytes(b"another")
    linux.converge(but(want, boot={"kernel": str(kernel), "initrd": str(initrd), "commandLine": "mine"}))
    assert (folder.initrd.read_bytes(), folder.kernel_elf.exists()) == (b"another", False)
    assert linux.record().images == {}
    linux.converge(want)
    assert [file.read_bytes() for file in (folder.kernel, folder.kernel_elf, folder.initrd)] == kernels
