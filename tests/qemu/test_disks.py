"""Disks: overlays, growth, formats, Disk resources; and one disk never under two QEMUs."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.images import cached_machine
from reconciler.backends.qemu.headers import check, read_header
from reconciler.model import Desired, Effect, Power, ResourceId, Result, Verb
from reconciler.problems import Refused
from tests.support.examples import SEED
from tests.support.qemu import IDLE_SAYS, MIB, Lab, busybox_image, idle_disk

VM = ResourceId("VirtualMachine", "vm")
DISK = ResourceId("Disk", "data")


def disk(size: int, **more: Any) -> dict[str, Any]:
    return {"size": size, "format": "qcow2", "readOnly": False, **more}


def data_disk(lab: Lab, size: int = MIB, **spec: Any) -> Desired:
    return lab.desired("Disk", "data", {"size": size, "format": "qcow2", "deletionPolicy": "retain", **spec})


def attached(format: str = "qcow2") -> dict[str, Any]:
    return {"data": {"disk": "data", "format": format, "readOnly": False}}


def info(path: Path) -> dict[str, Any]:
    done = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def image_of(lab: Lab, path: Path, format: str) -> Desired:
    source = {"file": str(path), "format": format}
    return lab.desired("Image", "golden", {"type": "virtual-machine", "source": source, "identity": "d" * 64})


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_vm_boots_from_an_overlay_and_the_image_is_never_written(lab: Lab, format: str) -> None:
    raw, path = lab.state / "golden.raw", lab.state / f"golden.{format}"
    raw.write_bytes(idle_disk())
    if format == "qcow2":
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    image = image_of(lab, path, format)
    root = {"image": {"name": "golden", "identity": "d" * 64}, "format": "qcow2", "readOnly": False, "size": 2 * MIB}
    want = lab.machine("vm", guestAgent=False, disks={"root": root}, ready={"log": IDLE_SAYS, "timeout": 60})
    lab.converge(image, replace(want, needs=(image.id,)))
    base, overlay = lab.folder().base("root"), lab.folder().disk("root", "qcow2")
    assert info(overlay)["virtual-size"] == 2 * MIB
    assert info(overlay)["backing-filename"] == "root.base"
    assert base.stat().st_nlink > 1  # a link, not a copy
    lab.delete(image.id)
    lab.converge(replace(want, spec={**want.spec, "power": "stopped"}))
    if format == "qcow2":  # whatever a header may say by now: nothing is followed from it
        subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/none", base], check=True)
    lab.converge(want)  # it stands on its own link


def test_boot_from_an_image_that_is_a_disk(lab: Lab) -> None:
    raw = lab.state / "golden.raw"
    raw.write_bytes(idle_disk())
    boot = {"image": {"name": "golden", "identity": "d" * 64}}
    ready = {"log": IDLE_SAYS, "timeout": 60}
    image, vm = image_of(lab, raw, "raw"), lab.machine("vm", boot=boot, guestAgent=False, ready=ready)
    lab.converge(image, replace(vm, needs=(image.id,)))
    assert lab.folder().disk("_boot", "qcow2").exists()


def test_an_image_whose_files_are_gone_is_made_again(lab: Lab) -> None:
    raw = lab.state / "golden.raw"
    raw.write_bytes(idle_disk())
    image = image_of(lab, raw, "raw")
    lab.converge(image)
    shutil.rmtree(lab.state / "images/entries")
    assert lab.converge(image) == [Verb.UPDATE]


def test_the_files_of_a_source_that_nobody_names_any_more_go(lab: Lab) -> None:
    first, second = lab.state / "first.raw", lab.state / "second.raw"
    first.write_bytes(idle_disk())
    second.write_bytes(idle_disk() + bytes(512))
    lab.converge(image_of(lab, first, "raw"))
    before = {path.name for path in (lab.state / "images/entries").iterdir()}
    lab.converge(image_of(lab, second, "raw"))
    after = {path.name for path in (lab.state / "images/entries").iterdir()}
    assert (len(before), len(after), before & after) == (1, 1, set())


def test_what_was_built_stays_at_hand_for_a_while_when_nobody_names_it_any_more(lab: Lab, images: Path) -> None:
    shutil.copytree(images, lab.state / "images", copy_function=os.link)
    image = busybox_image(lab)
    built = cached_machine(image.spec["source"], lab.state)
    assert built is not None
    lab.delete(image.id)
    assert cached_machine(image.spec["source"], lab.state) == built
    long_ago = time.time() - 8 * 86400
    shutil.copy2(built.folder / "entry.json", built.folder / "copy")  # no link of the other store's
    (built.folder / "copy").rename(built.folder / "entry.json")
    os.utime(built.folder / "entry.json", (long_ago, long_ago))
    raw = lab.state / "golden.raw"
    raw.write_bytes(idle_disk())
    lab.converge(image_of(lab, raw, "raw"))
    assert cached_machine(image.spec["source"], lab.state) is None


def test_a_damaged_note_holds_its_disk_and_no_other(lab: Lab) -> None:
    other = lab.desired("Disk", "other", {"size": MIB, "format": "raw"})
    lab.converge(data_disk(lab), other)
    (lab.state / "disks/data.json").write_text("{")
    assert lab.verbs(data_disk(lab), other) == [Verb.HOLD, Verb.NOOP]


def test_an_image_bigger_than_the_disk_is_refused(lab: Lab) -> None:
    raw = lab.state / "golden.raw"
    raw.write_bytes(idle_disk())
    root = {"image": {"name": "golden", "identity": "d" * 64}, "format": "qcow2", "readOnly": False, "size": 512}
    lab.converge(image_of(lab, raw, "raw"))
    assert "its image is bigger" in lab.fail(lab.machine("vm", disks={"root": root})).summary


def test_boot_order_is_the_order_of_the_disks(lab: Lab) -> None:
    lab.idle()
    blank = {"size": MIB, "format": "raw", "readOnly": False}
    root = {"path": str(lab.state / "idle.img"), "format": "raw", "readOnly": True}
    want = lab.idle()
    lab.converge(replace(want, spec={**want.spec, "disks": {"a": root, "b": blank}}))
    assert "Boot failed" not in lab.serial()
    lab.delete(VM)
    problem = lab.fail(replace(want, spec={**want.spec, "disks": {"a": blank, "b": root}}))
    assert "No bootable device" in problem.summary  # this firmware tries the first disk and no other


@pytest.mark.parametrize("power", ["running", "stopped"])
def test_a_disk_grows_whether_the_vm_is_up_or_down_and_never_shrinks(lab: Lab, power: str) -> None:
    lab.converge(lab.idle(disks={"own": disk(MIB)}, power=power))
    assert lab.converge(lab.idle(disks={"own": disk(3 * MIB)}, power=power)) == [Verb.UPDATE]
    assert info(lab.folder().disk("own", "qcow2"))["virtual-size"] == 3 * MIB
    smaller = lab.idle(disks={"own": disk(2 * MIB)}, power=power)
    assert lab.verbs(smaller) == [Verb.HOLD]
    assert [change.effect for change in lab.changes(smaller)] == [Effect.IMPOSSIBLE]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_disk_of_its_own_grows_live_and_outlives_its_vm(lab: Lab, format: str) -> None:
    small = data_disk(lab, format=format)
    want = replace(lab.idle(disks=attached(format)), needs=(DISK,))
    lab.converge(small, want)
    first = lab.process()
    lab.converge(data_disk(lab, 2 * MIB, format=format), want)
    assert lab.process() == first
    lab.delete(VM)
    lab.converge(data_disk(lab, 3 * MIB, format=format))  # and at rest
    path = lab.state / f"disks/data.{format}"
    assert info(path)["virtual-size"] == 3 * MIB
    assert path.stat().st_uid == os.geteuid()
    assert lab.verbs(data_disk(lab, MIB, format=format)) == [Verb.HOLD]


def test_a_disk_is_written_by_its_guest_and_kept(linux: Lab) -> None:
    want = replace(linux.busybox(disks=attached("raw")), needs=(DISK,))
    linux.converge(data_disk(linux, format="raw"), want)
    linux.inside("sh", "-c", "echo precious > /dev/vda; sync")
    linux.delete(VM)
    linux.converge(data_disk(linux, format="raw"), want)
    assert linux.inside("head", "-n", "1", "/dev/vda") == "precious"
    linux.delete(VM)


def test_read_only_is_read_only(linux: Lab) -> None:
    path = linux.state / "ro.raw"
    path.write_bytes(b"x" * MIB)
    linux.converge(linux.busybox(disks={"ro": {"path": str(path), "format": "raw", "readOnly": True}}))
    assert linux.inside("cat", "/sys/block/vda/ro") == "1"
    assert linux.ask("sh", "-c", "echo y > /dev/vda").code != 0
    assert not [handle for handle in handles_of(linux.process().pid, path) if handle & os.O_ACCMODE != os.O_RDONLY]
    assert path.read_bytes() == b"x" * MIB


def handles_of(pid: int, path: Path) -> list[int]:
    """How a process has that file open: the flags of each descriptor."""
    open_ones = [link for link in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link) == str(path)]
    assert open_ones
    infos = [Path(f"/proc/{pid}/fdinfo/{link.name}").read_text() for link in open_ones]
    return [int(info.split("flags:")[1].split()[0], 8) for info in infos]


def test_two_vms_never_write_the_same_disk(lab: Lab) -> None:
    lab.converge(data_disk(lab), replace(lab.idle("a", disks=attached()), needs=(DISK,)))
    problem = lab.fail(lab.idle("b", disks=attached()))
    assert "lock" in problem.summary
    assert lab.look("a").power is Power.RUNNING
    lab.delete(ResourceId("VirtualMachine", "b"))


def test_a_disk_whose_file_is_gone_is_not_made_anew(lab: Lab) -> None:
    lab.converge(data_disk(lab))
    path = lab.state / "disks/data.qcow2"
    away = path.rename(path.with_suffix(".away"))
    assert lab.verbs(data_disk(lab)) == [Verb.HOLD]
    away.rename(path)
    assert lab.verbs(data_disk(lab)) == [Verb.NOOP]


def test_a_retained_disk_goes_only_when_confirmed_and_what_was_there_before_us_never(lab: Lab) -> None:
    given = lab.state / "given.raw"
    given.write_bytes(bytes(MIB))
    lab.converge(data_disk(lab, format="raw", path=str(given)))
    assert [outcome.result for outcome in lab.delete(DISK)] == [Result.APPLIED]
    assert given.exists()
    lab.converge(data_disk(lab))
    lab.delete(DISK)
    assert not (lab.state / "disks/data.qcow2").exists()


def test_a_format_never_changes(lab: Lab) -> None:
    lab.converge(data_disk(lab))
    assert lab.verbs(data_disk(lab, format="raw")) == [Verb.HOLD]
    assert lab.verbs(data_disk(lab, path=str(lab.state / "elsewhere"))) == [Verb.HOLD]


def qcow2(path: Path, *more: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *more, path, "1M"], check=True)
    return path


@pytest.mark.parametrize("kind", ["qcow2-as-raw", "raw-as-qcow2", "backing", "data-file", "missing", "vmdk-as-raw"])
def test_files_that_are_not_what_they_are_said_to_be(lab: Lab, kind: str) -> None:
    path, format, expected = lab.state / "disk", "qcow2", ""
    secret = lab.state / "secret"
    secret.write_bytes(bytes(MIB))
    if kind == "qcow2-as-raw":
        qcow2(path)
        format, expected = "raw", "declared as raw, its header says qcow2"
    elif kind == "raw-as-qcow2":
        path.write_bytes(bytes(MIB))
        expected = "declared as qcow2, its header says raw"
    elif kind == "backing":
        qcow2(path, "-b", str(secret), "-F", "raw")
        expected = "backing file"
    elif kind == "data-file":
        qcow2(path, "-o", f"data_file={lab.state}/data")
        expected = "data file"
    elif kind == "vmdk-as-raw":
        path.write_bytes(b"KDMV".ljust(MIB, b"\0"))
        format, expected = "raw", "its header says vmdk"
    else:
        expected = "No such file"
    problem = lab.fail(lab.idle(disks={"bad": {"path": str(path), "format": format, "readOnly": False}}))
    assert expected in problem.summary


def test_what_a_guest_writes_on_its_own_raw_disk_is_its_own_business(lab: Lab) -> None:
    want = lab.idle(disks={"own": disk(MIB, format="raw")})
    lab.converge(want)
    off = replace(want, spec={**want.spec, "power": "stopped"})
    lab.converge(off)
    own = lab.folder().disk("own", "raw")
    with own.open("r+b") as file:
        file.write(b"QFI\xfb" + b"\0\0\0\3" + b"/etc/shadow")
    lab.converge(want)
    assert own.stat().st_size == MIB


def test_a_truncated_qcow2(lab: Lab) -> None:
    path = qcow2(lab.state / "disk")
    os.truncate(path, 1000)
    problem = lab.fail(lab.idle(disks={"bad": {"path": str(path), "format": "qcow2", "readOnly": False}}))
    assert "truncated" in problem.summary


def test_no_beginning_of_a_file_crashes_us(tmp_path: Path) -> None:
    path = tmp_path / "x"
    chance = random.Random(SEED)
    for number in range(2000):
        path.write_bytes((b"QFI\xfb" if number % 2 else b"") + chance.randbytes(number % 120))
        handle = os.open(path, os.O_RDONLY)
        assert read_header(handle).format in ("raw", "qcow2", "vmdk", "qed", "vhdx", "vpc")
        os.close(handle)


def test_a_raw_file_is_as_big_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(4096))
    handle = os.open(path, os.O_RDONLY)
    try:
        assert check(handle, "raw", "vm", "x").size == 4096
        with pytest.raises(Refused):
            check(handle, "qcow2", "vm", "x")
    finally:
        os.close(handle)


def test_a_full_file_system_is_a_clear_no(lab: Lab) -> None:
    tiny = lab.state / "disks"
    tiny.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tiny], check=True)
    try:
        problem = lab.fail(data_disk(lab, 1 << 30, format="qcow2"))
        assert "qemu-img create failed" in problem.summary or "No space" in problem.summary
    finally:
        subprocess.run(["umount", tiny], check=True)
        shutil.rmtree(tiny)


@pytest.mark.proof
def test_uefi_keeps_its_variables(lab: Lab) -> None:
    want = lab.idle(firmware="uefi", memory={"size": 128 * MIB}, power="paused", ready={"log": "B", "timeout": 50})
    lab.converge(want)
    before = lab.folder().firmware_vars.stat().st_ino
    lab.converge(replace(want, spec={**want.spec, "cpus": {"count": 2}}))
    assert lab.folder().firmware_vars.stat().st_ino == before


def test_a_disk_of_its_own_that_is_taken_out_is_deleted(lab: Lab) -> None:
    with_disk = lab.idle(disks={"data": disk(MIB, format="raw")})
    lab.converge(with_disk)
    file = lab.folder().disk("data", "raw")
    lab.converge(lab.idle(power="stopped", disks={"data": disk(MIB, format="raw")}))
    file.write_bytes(b"sentinel".ljust(MIB, b"\0"))
    without = lab.idle(power="stopped")  # under a guest that runs: see test_hotplug
    assert [change.destroys for change in lab.changes(without)] == [True]
    lab.converge(without)
    assert lab.folder().disks() == []

    lab.converge(lab.idle(disks={"data": disk(2 * MIB, format="raw")}))
    assert file.stat().st_size == 2 * MIB
    assert b"sentinel" not in file.read_bytes()


def test_a_disk_that_is_left_over_never_comes_back(lab: Lab) -> None:
    lab.converge(lab.idle(disks={"keep": disk(MIB)}))
    left = lab.folder().disk("data", "raw")
    left.write_bytes(b"sentinel".ljust(4 * MIB, b"\0"))
    lab.converge(lab.idle(disks={"keep": disk(MIB), "data": disk(MIB, format="raw")}))
    assert left.stat().st_size == MIB
    assert b"sentinel" not in left.read_bytes()


def test_a_disk_made_from_an_image_is_made_anew_when_it_comes_back(lab: Lab) -> None:
    raw = lab.state / "golden.raw"
    raw.write_bytes(idle_disk())
    lab.converge(image_of(lab, raw, "raw"))
    data = {"image": {"name": "golden", "identity": "d" * 64}, "format": "qcow2", "readOnly": False}
    lab.converge(lab.idle(disks={"data": data}, power="stopped"))
    inode = lab.folder().disk("data", "qcow2").stat().st_ino
    lab.converge(lab.idle(disks={"data": {**data, "readOnly": True}}, power="stopped"))
    assert lab.folder().disk("data", "qcow2").stat().st_ino == inode  # what was written is kept meanwhile
    lab.converge(lab.idle(power="stopped"))
    assert lab.folder().disks() == []
    assert lab.record().images == {}
    lab.converge(lab.idle(disks={"data": data}))
    assert lab.folder().base("data").exists()


def test_disks_that_are_not_its_own_stay_when_they_are_taken_out(lab: Lab) -> None:
    path = lab.state / "mine.raw"
    path.write_bytes(b"mine".ljust(MIB, b"\0"))
    lab.converge(data_disk(lab))
    mine = {"path": str(path), "format": "raw", "readOnly": False}
    lab.converge(data_disk(lab), replace(lab.idle(disks={**attached(), "mine": mine}), needs=(DISK,)))
    lab.converge(data_disk(lab), lab.idle(power="stopped"))
    assert path.read_bytes().startswith(b"mine")
    assert (lab.state / "disks/data.qcow2").exists()
