"""What a QEMU of ours may do (as good as nothing), who may reach it, and what a manifest cannot smuggle into it."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import pwd
import shutil
import stat
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.backends import qemu
from reconciler.backends.qemu import records
from reconciler.model import ResourceId
from tests.support.qemu import MIB, Lab, holders, remains

VM = ResourceId("VirtualMachine", "vm")
SNEAKY = "x,file=/etc/shadow,id=y"
DISK = {"size": MIB, "format": "qcow2", "readOnly": False}


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_user_of_its_own_without_any_power(lab: Lab) -> None:
    before = os.getgroups()
    os.setgroups([4242])  # what we belong to is not for it
    try:
        lab.converge(lab.idle("a"), lab.idle("b"))
    finally:
        os.setgroups(before)
    seen = [status(lab.process(name).pid) for name in ("a", "b")]
    for one in seen:
        assert set(one["Uid"].split()) == set(one["Gid"].split())
        assert int(one["Uid"].split()[0]) >= 0x70000000
        assert one["Groups"] == ""
        assert int(one["CapEff"], 16) == int(one["CapPrm"], 16) == 0
        assert (one["NoNewPrivs"], one["Seccomp"]) == ("1", "2")
    assert seen[0]["Uid"] != seen[1]["Uid"]


def test_it_holds_no_file_that_it_could_have_opened_by_itself(lab: Lab) -> None:
    lab.converge(lab.idle(disks={"own": DISK}))
    vm = lab.process()
    uid = int(status(vm.pid)["Uid"].split()[0])
    for path in (lab.state, lab.state / "vms", lab.folder().path, lab.folder().sockets):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    tried = subprocess.run(["cat", str(lab.folder().serial_log)], user=uid, group=uid, capture_output=True)
    assert b"Permission denied" in tried.stderr


def test_sockets_and_records_are_ours_alone(lab: Lab) -> None:
    lab.converge(lab.idle(guestAgent=True, disks={"own": DISK}))
    sockets = {path.name: stat.S_IMODE(path.stat().st_mode) for path in lab.folder().sockets.iterdir()}
    assert sockets == dict.fromkeys(("qmp.sock", "people.sock", "events.sock", "serial.sock", "agent.sock"), 0o600)
    files = [path for path in lab.folder().path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_sandbox_is_complete_and_memory_can_be_shared_with_helpers(lab: Lab) -> None:
    lab.converge(lab.idle())
    pid = lab.process().pid
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    sandbox = words[words.index("-sandbox") + 1]
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    maps = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memory-backend-memfd" in line]
    assert maps
    assert all(line.split()[1].startswith("rw-s") for line in maps)


def test_nothing_listens_on_the_network(lab: Lab) -> None:
    lab.converge(lab.idle(guestAgent=True, nics={"eth0": {"type": "user", "model": "virtio-net-pci"}}))
    pid = lab.process().pid
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we look
            inodes.add(os.readlink(link))
    assert any(one.startswith("socket:") for one in inodes)
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        assert not [line for line in lines if f"socket:[{line.split()[9]}]" in inodes]


def test_commas_stay_where_they_were_written(lab: Lab) -> None:
    """Whatever takes free text arrives in the guest's firmware, or in QEMU's own answer, as it is."""
    image = lab.state / "a,b=c,file=x.img"
    lab.idle()
    image.write_bytes((lab.state / "idle.img").read_bytes())
    disks = {"more": {"path": str(image), "format": "raw", "readOnly": True}}
    lab.converge(lab.idle(disks=disks))
    words = Path(f"/proc/{lab.process().pid}/cmdline").read_bytes().decode().split("\0")
    assert not [word for word in words if "a,b=c" in word]


@pytest.mark.parametrize("field", ["machine", "cpuModel"])
def test_words_that_are_more_than_a_word_are_refused(lab: Lab, field: str) -> None:
    problem = lab.fail(lab.idle(**{field: f"q35,{SNEAKY}"}))
    assert problem.summary.startswith(field)
    assert holders(lab.state) == []


def test_a_nic_model_is_a_value_and_nothing_else(lab: Lab) -> None:
    problem = lab.fail(lab.idle(nics={"eth0": {"type": "user", "model": f"virtio-net-pci,{SNEAKY}"}}))
    assert "QEMU knows no network card" in problem.summary
    assert holders(lab.state) == []


def test_a_kernel_command_line_is_one_word_for_qemu(linux: Lab) -> None:
    boot = {"image": {"name": "busybox", "identity": "b" * 64}, "commandLine": f"mark={SNEAKY},-S -monitor stdio"}
    linux.converge(linux.busybox(boot=boot))
    assert linux.inside("cat", "/proc/cmdline").endswith(f"mark={SNEAKY},-S -monitor stdio")


@pytest.mark.parametrize("name", ["../x", "a/b", "a,b", "A", "", "-x", "x" * 64])
def test_names_that_are_no_names_never_become_paths(lab: Lab, name: str) -> None:
    problem = lab.fail(lab.idle(name))
    assert "expected a name" in problem.summary
    assert sorted(path.name for path in lab.state.glob("*")) == ["idle.img"]


def as_user(uid: int, work: Callable[[], str]) -> str:
    """What ``work`` returns as that user; in a fork, because our interpreter may lie where it may not look."""
    for found in pkgutil.walk_packages(qemu.__path__, "reconciler.backends.qemu."):
        importlib.import_module(found.name)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = work()
        except BaseException:  # noqa: BLE001 - told to the test as it is
            answer = traceback.format_exc()
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


def a_users_day(lab: Lab) -> str:
    """Create, restart, stop and grow, delete; and what is not for users."""
    want = lab.idle(disks={"own": DISK}, guestAgent=True)
    lab.converge(want)
    lab.converge(lab.idle(memory={"size": 80 * MIB}, disks={"own": DISK}))
    seen = status(lab.process().pid)
    lab.converge(lab.idle(memory={"size": 80 * MIB}, power="stopped", disks={"own": {**DISK, "size": 2 * MIB}}))
    lab.delete(VM)
    problem = lab.fail(lab.idle(nics={"eth0": {"type": "tap", "model": "virtio-net-pci"}}))
    lab.delete(VM)
    return f"{seen['Uid'].split()[0]} {seen['Seccomp']} {seen['NoNewPrivs']} {problem.hint}"


def test_without_root_it_works_as_that_user() -> None:
    user = pwd.getpwnam("nobody").pw_uid
    home = Path(tempfile.mkdtemp(prefix="rt-user-"))
    os.chown(home, user, user)
    try:
        said = as_user(user, lambda: a_users_day(Lab(home)))
        assert said.startswith(f"{user} 2 1 tap and bridge NICs need root"), said
        assert remains(home) == []
    finally:
        shutil.rmtree(home)


def test_uids_are_not_shared(lab: Lab) -> None:
    lab.converge(*(lab.idle(f"vm{number}", power="stopped") for number in range(5)))
    assert len({lab.record(f"vm{number}").uid for number in range(5)}) == 5


def test_a_taken_uid_is_passed_over(lab: Lab) -> None:
    lab.converge(lab.idle("a", power="stopped"))
    first = lab.record("a").uid
    text = json.loads(lab.folder("a").record.read_bytes())
    lab.delete(ResourceId("VirtualMachine", "a"))
    other = lab.folder("b")
    other.make()
    other.record.write_text(json.dumps({**text, "id": "VirtualMachine/b"}))
    fresh = records.new_record(lab.folder("a"), lab.state, lab.state / "run", "tests", "VirtualMachine/a")
    assert first is not None
    assert fresh.uid == first + 1
