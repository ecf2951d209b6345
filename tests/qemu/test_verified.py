"""Read-only, verified images: any number of VMs from one file, and not one bit of it may be another than it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.images.cache import Entry
from reconciler.backends.qemu import kernels
from reconciler.model import Desired, Outcome, Power, ResourceId, Result, Verb
from reconciler.problems import Problem
from tests.support.qemu import MIB, Lab, lab_in
from tests.support.verified import SOURCE, flip, put_into_cache

IMAGE = "verified"
IDENTITY = "c" * 64
NAMES = ("one", "two")
WHERE = 96
"""The first of what is in the file system, behind the words that describe it."""
TAKE = """
import sys
from pathlib import Path
from reconciler.backends.images import machine_image
from reconciler.problems import Refused
from tests.support.verified import SOURCE
try:
    machine_image(SOURCE, Path(sys.argv[1]), print)
except Refused as error:
    print(error.problem)
"""


@pytest.fixture(scope="module")
def store(images: Path) -> Iterator[tuple[Path, Entry]]:
    """An image store with the verified image in it."""
    state = Path(tempfile.mkdtemp(prefix="rt-verified-"))
    try:
        yield state / "images", put_into_cache(state, images)
    finally:
        shutil.rmtree(state)


@pytest.fixture
def host(store: tuple[Path, Entry]) -> Iterator[Lab]:
    """The engine, with the image at hand."""
    with lab_in(store[0]) as opened:
        yield opened


def image(lab: Lab) -> Desired:
    spec = {"type": "virtual-machine", "source": SOURCE, "identity": IDENTITY}
    return lab.desired("Image", IMAGE, spec)


def machine(lab: Lab, name: str = "vm", **spec: Any) -> Desired:
    boot = {"image": {"name": IMAGE, "identity": IDENTITY}}
    made = lab.machine(name, boot=boot, ready={"guestAgent": True, "timeout": 160}, **spec)
    return replace(made, needs=(ResourceId("Image", IMAGE),))


def refused(outcomes: list[Outcome]) -> Problem:
    """Why the one guest that was started did not boot: its root is not what it was."""
    [problem] = [one.problem for one in outcomes if one.result is Result.FAILED]
    assert problem is not None
    assert problem.summary.startswith("it does not boot: its read-only root was changed since it was made")
    assert "dm-verity device corrupted" in problem.summary
    assert "verity" in str(problem.detail)
    assert "`reconciler reset` makes the guest anew" in str(problem.hint)
    return problem


def test_one_changed_bit_and_it_does_not_boot(host: Lab, store: tuple[Path, Entry]) -> None:
    """The disk of this host failed after the image was looked at: only the guest's kernel can know."""
    host.converge(image(host), machine(host, power="stopped"))
    root = store[1].folder / "root.img"
    flip(root, WHERE)
    try:
        problem = refused(host.apply(image(host), machine(host)))
    finally:
        flip(root, WHERE)
    assert problem.subject == "VirtualMachine/vm"
    assert host.look().power is Power.STOPPED


@pytest.mark.proof
def test_several_from_one_file_and_none_from_another(host: Lab, store: tuple[Path, Entry]) -> None:
    wanted = [machine(host, name) for name in NAMES]
    host.converge(image(host), *wanted)
    root = store[1].folder / "root.img"
    for name in NAMES:
        assert host.folder(name).base("_boot").samefile(root)
        host.inside("sh", "-c", f"echo {name} >/etc/mine; sync", name=name)
    assert [host.inside("cat", "/etc/mine", name=name) for name in NAMES] == list(NAMES)
    verified = host.inside("sh", "-c", "cat /sys/block/dm-0/dm/name /sys/block/dm-0/ro", name="two")
    assert verified.split() == ["verified", "1"]

    # One bit is another one: the guest that boots now says so and stays down, the one that runs goes on.
    host.signal(signal.SIGKILL, "two")
    flip(root, WHERE)
    try:
        outcomes = host.apply(image(host), *wanted)
    finally:
        flip(root, WHERE)
    assert refused(outcomes).subject == "VirtualMachine/two"
    assert host.look("two").power is Power.STOPPED

    # What a guest writes is in its own memory: a fresh start forgets it, and no other guest ever sees it.
    assert host.converge(image(host), *wanted) == [Verb.NOOP, Verb.NOOP, Verb.UPDATE]
    assert host.ask("cat", "/etc/mine", name="two").code != 0
    assert host.inside("cat", "/etc/mine", name="one") == "one"


def test_a_kernel_that_was_changed_beside_the_cache_is_not_taken_either(lab: Lab) -> None:
    source, targets = lab.state / "kernel", [lab.state / "vms" / name / "kernel" for name in NAMES]
    source.write_bytes(b"a kernel")
    kernels.share(lab.state, "key", [(source, targets[0])])
    [kept] = (lab.state / "boot").glob("key.*")
    flip(kept, 3)
    os.utime(kept, (1, 1))  # this process has read it already
    kernels.share(lab.state, "key", [(source, targets[1])])
    assert targets[1].read_bytes() == b"a kernel"
    for target in targets:
        target.unlink()
        target.parent.rmdir()
    kernels.sweep(lab.state)


@pytest.mark.parametrize("name", ["root.img", "kernel.elf", "initrd"])
def test_what_was_changed_in_the_cache_is_not_taken(host: Lab, store: tuple[Path, Entry], name: str) -> None:
    """In a process of its own: this one has read the files already, and would only look when they were written."""
    path = store[1].folder / name
    flip(path, path.stat().st_size // 2 // MIB * MIB)
    try:
        command = [sys.executable, "-c", TAKE, str(host.state)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        flip(path, path.stat().st_size // 2 // MIB * MIB)
    assert f"the image in the cache is not what was put there: {name} changed since" in said
    assert "the next apply makes it anew" in said
