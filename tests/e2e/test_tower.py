"""manifests/crostini, from inside the container in the VM: all of it is there, and what dies is back by one apply."""

from __future__ import annotations

import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder, folder_of
from tests.e2e.conftest import ROOT, Done, Place

pytestmark = pytest.mark.timeout(900)  # the image of the VM is made first, where it is not at hand
PORT = 28981
USER = 1000
SHARED, DATA = "/mnt/chromeos/Downloads", "/data"
EVERYTHING = {"Container/penguin", "VirtualMachine/termina", "Share/downloads", "Device/key", "PortForward/web"}


@dataclass(frozen=True, slots=True)
class Tower:
    """The tower of the example, up. folder: where the copy of its manifests is."""

    place: Place
    folder: Path

    @property
    def manifests(self) -> str:
        return str(self.folder)

    @property
    def vm(self) -> Folder:
        return folder_of(self.place.state, self.place.state / "run", "termina")

    def apply(self) -> Done:
        """One apply, after which nothing is left to do."""
        done = self.place.ok("apply", "--yes", "-o", "json", self.manifests, timeout=600)
        assert done.json["converged"], done
        assert self.place.ok("plan", "--exit-code", self.manifests).out.startswith("Nothing to do")
        return done

    def inside(self, script: str) -> str:
        """What a script says in the container; it has to end well."""
        return self.place.ok("exec", "penguin", "--", "sh", "-c", script).out

    def in_vm(self, script: str) -> str:
        """What a script says in the VM; it has to end well."""
        with Agent(self.vm.agent, "termina", patience=120) as agent:
            done = agent.run(["/bin/sh", "-c", script], 240.0)
        assert done.code == 0, done
        return done.out.decode()

    def fetch(self) -> str:
        """What this machine gets on the forwarded port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/Downloads/hello", timeout=120) as answer:
            return str(answer.read().decode())

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What somebody else does behind our back."""
        with Monitor(self.vm.people, "people") as monitor:
            return monitor.execute(command, arguments)

    def is_whole(self) -> None:
        """Everything that the manifests say, by the container's own word."""
        assert self.inside(f"cat {SHARED}/hello") == "from the host"
        write = f"echo written > {SHARED}/back"
        self.place.ok("exec", "--user", "chronos", "penguin", "--", "sh", "-c", write)
        said = self.inside(f"echo kept > {DATA}/file && cat {DATA}/file")
        assert said == "kept\n"
        back = self.folder / "Downloads" / "back"
        assert (back.read_text(), back.stat().st_uid) == ("written\n", USER)
        assert self.key() == ["crw-rw-rw-"]
        assert self.fetch() == "from the host"

    def key(self) -> list[str]:
        """The rights of every USB device that the container has."""
        return self.inside("find /dev/bus/usb -type c 2>/dev/null | xargs -r ls -l | cut -c1-10").split()


@pytest.fixture(scope="module")
def tower(machine: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tower]:
    folder = tmp_path_factory.mktemp("tower") / "crostini"
    shutil.copytree(ROOT / "manifests" / "crostini", folder)
    folder.chmod(0o700)
    manifest = folder / "crostini.yaml"
    manifest.write_text(manifest.read_text().replace('127.0.0.1:8080"\n  target', f'127.0.0.1:{PORT}"\n  target'))
    (folder / "Downloads" / "hello").write_text("from the host")
    for path in (folder / "Downloads", *(folder / "Downloads").iterdir()):
        os.chown(path, USER, USER)
    place = Place(machine.state, folder, machine.environment)
    up = Tower(place, folder)
    try:
        up.apply()
        yield up
    finally:
        place.run("delete", "--yes", "--confirm-delete", str(folder), timeout=600)
    assert place.names() == set()


def eventually(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_all_of_it_is_in_the_container(tower: Tower) -> None:
    tower.is_whole()
    assert {outcome["verb"] for outcome in tower.apply().json["outcomes"]} == {"noop"}
    names = {tuple(line.split()) for line in tower.place.ok("hosts").out.splitlines()}
    assert ("127.0.0.1", "penguin.termina.linux.test", "penguin.linux.test") in names
    said = tower.place.run("exec", "--user", "chronos", "termina/penguin", "--", "sh", "-c", "id -un; exit 3")
    assert (said.code, said.out) == (3, "chronos\n")


def test_each_is_shown_as_the_one_thing_that_it_is(tower: Tower) -> None:
    listed = {one["id"]: one for one in tower.place.ok("get", "-o", "json").json}
    assert listed.keys() >= EVERYTHING and all(listed[id]["owned"] for id in EVERYTHING)
    share = listed["Share/downloads"]["spec"]
    assert share["source"] == str(tower.folder / "Downloads") and share["readOnly"] is False
    assert share["mounts"] == [{"target": "Container/penguin", "path": SHARED}]
    assert listed["Device/key"]["spec"]["attachTo"] == "Container/penguin"
    assert listed["PortForward/web"]["spec"]["port"] == 8080
    said = tower.place.ok("plan", "-o", "json", tower.manifests).json["steps"]
    reasons = {one["id"]: one["reason"] for one in said}
    assert reasons["Share/downloads"] == "carried by VirtualMachine/termina and Container/penguin"
    assert "Container/penguin" in tower.place.ok("describe", "Share/downloads").out


def test_one_that_is_deleted_leaves_both_and_comes_back(tower: Tower) -> None:
    for id, gone in (("Share/downloads", f"! cat {SHARED}/hello"), ("Device/key", '[ -z "$(find /dev/bus -type c)" ]')):
        tower.place.ok("delete", "--yes", id)
        tower.inside(f"{gone} 2>/dev/null")
    assert "downloads" not in tower.in_vm("cat /proc/mounts")
    assert not {"Share/downloads", "Device/key"} & tower.place.names()
    tower.apply()
    tower.is_whole()


def test_a_key_that_is_pulled_out_is_back(tower: Tower) -> None:
    tower.qmp("device_del", id="device-key")
    eventually(lambda: not tower.key())
    tower.apply()
    eventually(lambda: tower.key() == ["crw-rw-rw-"])


def test_it_goes_down_in_order_and_comes_up_again(tower: Tower) -> None:
    """Whoever is in the container is told, and has the time to write something down, before the VM is gone."""
    last = f"trap 'echo told >{DATA}/last; sync; exit' TERM; while :; do sleep 1 & wait; done"
    tower.inside(f'rm -f {DATA}/last; (setsid sh -c "{last}") </dev/null >/dev/null 2>&1 &')
    tower.place.ok("stop", "termina", timeout=300)
    assert not process.is_alive(tower.vm)
    tower.apply()
    assert tower.inside(f"cat {DATA}/last") == "told\n"
    tower.is_whole()


@pytest.mark.proof
def test_a_restart_of_the_vm_brings_back_what_ran_in_it(tower: Tower) -> None:
    said = tower.place.ok("restart", "termina", timeout=600)
    assert said.err.index("Container/penguin: started") < said.err.index("VirtualMachine/termina: restarted")
    tower.is_whole()
    assert tower.place.ok("plan", "--exit-code", tower.manifests).out.startswith("Nothing to do")


@pytest.mark.proof
def test_a_container_that_is_made_anew_has_it_all_again(tower: Tower) -> None:
    tower.place.ok("delete", "--yes", "Container/penguin")
    tower.apply()
    tower.is_whole()


def the_init_of_the_container(tower: Tower) -> None:
    tower.in_vm("kill -9 $(lxc info penguin | sed -n 's/^PID: //p')")
    eventually(lambda: "STOPPED" in tower.in_vm("lxc list -c s -f csv"))


def the_lxd_in_the_vm(tower: Tower) -> None:
    tower.in_vm("kill -9 $(pidof lxd)")


def the_virtiofsd(tower: Tower) -> None:
    place = str(tower.vm.path / "shares" / "downloads" / "root").encode()
    pids = [int(one) for one in os.listdir("/proc") if one.isdigit() and _is_daemon(int(one), place)]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _is_daemon(pid: int, place: bytes) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"virtiofsd" in words.split(b"\0")[0] and place in words


def the_vm(tower: Tower) -> None:
    record = records.load(tower.vm)
    assert record is not None
    running = process.find(tower.vm, record)
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    eventually(lambda: not process.is_alive(tower.vm))


@pytest.mark.parametrize("kill", [the_init_of_the_container, the_lxd_in_the_vm, the_virtiofsd, the_vm])
def test_what_dies_is_back_by_one_apply(tower: Tower, kill: Callable[[Tower], None]) -> None:
    kill(tower)
    tower.apply()
    tower.is_whole()


@pytest.mark.proof
def test_each_is_back_from_its_image_by_a_reset(tower: Tower) -> None:
    """The container alone, then the VM with the container in it; the Disk that is led through to it stays."""
    for name in ("termina/penguin", "termina"):
        tower.inside(f"echo mine >/root/mark; echo {name} >{DATA}/kept; sync")
        done = tower.place.ok("reset", name, "--yes", "-o", "json", tower.manifests, timeout=600)
        assert done.json["converged"], done
        assert tower.inside(f"cat {DATA}/kept; ls /root/mark 2>/dev/null; true") == f"{name}\n"
        tower.is_whole()
