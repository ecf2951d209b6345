"""A VM's TPM: the guest sees it, it remembers over restarts, it ends with the VM, and one that died is drift."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import tpm
from reconciler.model import Effect, Verb
from tests.support.qemu import MIB, Lab

VERSION = "/sys/class/tpm/tpm0/tpm_version_major"
STATE = "tpm2-00.permall"
SECRET = b"remember"
_OWNER, _INDEX, _NO_PASSWORD = "40000001", "01500001", "00000009" + "40000009" + "0000" + "00" + "0000"
_PUBLIC = _INDEX + "000b" + "02020002" + "0000" + "0008"  # of 8 bytes, read and written by the owner
_DEFINE = "8002" + "0000002d" + "0000012a" + _OWNER + _NO_PASSWORD + "0000" + "000e" + _PUBLIC
_WRITE = "8002" + "0000002b" + "00000137" + _OWNER + _INDEX + _NO_PASSWORD + "0008" + SECRET.hex() + "0000"
_READ = "8002" + "00000023" + "0000014e" + _OWNER + _INDEX + _NO_PASSWORD + "0008" + "0000"
_NOTHING_MORE = "00000000" + "0000" + "01" + "0000"
"""The end of an answer that holds nothing but that all went well."""


def pids(lab: Lab) -> list[int]:
    """Every swtpm of the VM."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(lab.folder().tpm.resolve()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def gone(lab: Lab) -> bool:
    deadline = time.monotonic() + 60
    while pids(lab) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not pids(lab)


def test_the_guest_sees_a_tpm_and_what_it_holds_lasts(linux: Lab) -> None:
    linux.timeout = 150.0  # on a busy machine the firmware alone takes half a minute
    spec: dict[str, Any] = {
        "firmware": "uefi",
        "ready": {"guestAgent": True, "timeout": 140},
        "memory": {"size": 256 * MIB},
    }
    want = linux.busybox(tpm=True, **spec)
    linux.converge(want)
    assert linux.inside("cat", VERSION) == "2"
    [first] = pids(linux)
    owner = Path(f"/proc/{first}").stat().st_uid
    assert owner not in (0, Path(f"/proc/{linux.process().pid}").stat().st_uid) or os.geteuid() != 0
    kept = linux.folder().tpm / STATE
    assert _tpm(linux, _DEFINE).endswith("00000000" + _NOTHING_MORE)
    assert _tpm(linux, _WRITE).endswith("00000000" + _NOTHING_MORE)
    linux.backend.power(want.id, "restart", False, 120.0, print)
    assert linux.inside("cat", VERSION) == "2"
    [second] = pids(linux)
    assert second != first
    assert SECRET.hex() in _tpm(linux, _READ)
    linux.converge(replace(want, spec={**want.spec, "power": "stopped"}))
    assert gone(linux)
    assert kept.exists()  # secrets go with the VM, and not before


def _tpm(lab: Lab, command: str) -> str:
    """What the guest's TPM answers to a command; both in hexadecimal digits."""
    script = 'exec 3<>/dev/tpm0; printf "$1" >&3; dd bs=4096 count=1 <&3 2>/dev/null | hexdump -v -e \'/1 "%02x"\''
    return lab.inside("/bin/sh", "-c", script, "sh", "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(command)))


def test_it_comes_and_goes_with_a_restart(lab: Lab) -> None:
    lab.converge(lab.idle())
    want = lab.idle(tpm=True)
    assert [(change.field, change.effect) for change in lab.changes(want)] == [("tpm", Effect.RESTART)]
    assert lab.converge(want) == [Verb.RESTART]
    assert len(pids(lab)) == 1
    assert lab.converge(lab.idle()) == [Verb.RESTART]
    assert gone(lab)


@pytest.mark.proof
def test_a_swtpm_that_died_is_drift_and_one_that_hangs_ends_with_its_vm(lab: Lab) -> None:
    want = lab.idle(tpm=True)
    lab.converge(want)
    [pid] = pids(lab)
    os.kill(pid, signal.SIGKILL)
    assert gone(lab)
    assert [(change.field, change.effect) for change in lab.changes(want)] == [("tpm", Effect.RESTART)]
    assert lab.converge(want) == [Verb.RESTART]
    [pid] = pids(lab)
    lab.signal(signal.SIGKILL)
    assert gone(lab)  # nobody of us had to be there
    lab.converge(want)
    [pid] = pids(lab)
    os.kill(pid, signal.SIGSTOP)
    lab.delete(want.id)
    assert not pids(lab)


def test_without_swtpm_it_is_refused_before_anything_is_touched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.converge(lab.idle())
    before = lab.process()
    monkeypatch.setenv("PATH", str(_without_swtpm(lab)))
    problem = lab.fail(lab.idle(tpm=True))
    assert "swtpm is not installed" in problem.summary
    assert "apt-get install swtpm" in str(problem.hint)
    assert lab.process() == before


def test_what_would_cost_the_guest_its_acpi_tables_is_refused(linux: Lab) -> None:
    problem = linux.fail(linux.busybox(tpm=True))
    assert problem.summary == "tpm: a machine with firmware: bios cannot have it beside a kernel with an initrd"
    assert problem.hint == "say firmware: uefi"
    assert not linux.folder().qemu_log.exists()


def _without_swtpm(lab: Lab) -> Path:
    """A folder with every program but that one."""
    folder = lab.state / "bin"
    folder.mkdir()
    for place in ("/usr/bin", "/usr/sbin"):
        for program in Path(place).iterdir():
            if program.name != tpm.PROGRAM and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return folder
