"""manifests/crostini, from inside the container in the VM: all of it is there, and what dies is back by one apply."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.qemu import process, records
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.client import Monitor
from reconciler.backends.qemu.folders import Folder, folder_of
from tests.e2e.conftest import ROOT, Done, Place, own_hosts
from tests.e2e.test_commands import at_terminal
from tests.support.unique import own_port

pytestmark = pytest.mark.timeout(900)  # the image of the VM is made first, where it is not at hand
PORT = own_port()
USER = 1000
SHARED, DATA = "/mnt/chromeos/Downloads", "/data"
HOSTS = b"127.0.0.1\tlocalhost\n# no line end"
PENGUIN = ["penguin.termina.linux.test", "penguin.linux.test"]
NAMES = {**dict.fromkeys(PENGUIN, PENGUIN), "termina.linux.test": ["termina.linux.test"]}
KEY = "find /dev/bus/usb -type c 2>/dev/null | xargs -r ls -l | cut -c1-10"
GUESTS = {"Container/penguin", "VirtualMachine/termina"}
EVERYTHING = GUESTS | {"Share/downloads", "Device/key", "PortForward/web"}


@dataclass(frozen=True, slots=True)
class Tower:
    """The tower of the example, up. folder: where the copy of its manifests is; hosts: what /etc/hosts is
    to whoever is in it."""

    place: Place
    folder: Path
    hosts: Path

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

    def fetch(self, port: int = PORT) -> str:
        """What this machine gets on a forwarded port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/Downloads/hello", timeout=120) as answer:
            return str(answer.read().decode())

    def resolve(self, name: str) -> list[str]:
        """What a program of this machine is told when it asks for a name."""
        done = subprocess.run([*self.place.within, "getent", "hosts", name], capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    def qmp(self, command: str, **arguments: Any) -> Any:
        """What somebody else does behind our back."""
        with Monitor(self.vm.people, "people") as monitor:
            return monitor.execute(command, arguments)

    @contextmanager
    def saying(self, new: str, old: str) -> Iterator[None]:
        """While the manifest says the one in the place of the other."""
        manifest = self.folder / "crostini.yaml"
        before = manifest.read_text()
        assert old in before
        manifest.write_text(before.replace(old, new))
        try:
            yield
        finally:
            manifest.write_text(before)

    def is_whole(self) -> None:
        """Everything that the manifests say, by the container's own word."""
        said = self.inside(f"cat {SHARED}/hello && echo && echo kept > {DATA}/file && cat {DATA}/file && {KEY}")
        assert said.splitlines() == ["from the host", "kept", "crw-rw-rw-"]
        write = f"echo written > {SHARED}/back"
        self.place.ok("exec", "--user", "chronos", "penguin", "--", "sh", "-c", write)
        back = self.folder / "Downloads" / "back"
        assert (back.read_text(), back.stat().st_uid) == ("written\n", USER)
        assert self.fetch() == "from the host"
        for name, all in NAMES.items():
            assert self.resolve(name) == ["127.0.0.1", *all]

    def key(self) -> list[str]:
        """The rights of every USB device that the container has."""
        return self.inside(KEY).split()


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
    hosts = folder.parent / "hosts"
    hosts.write_bytes(HOSTS)
    with own_hosts(hosts) as within:
        place = Place(machine.state, folder, machine.environment, within)
        up = Tower(place, folder, hosts)
        try:
            up.apply()
            yield up
        finally:
            place.run("delete", "--yes", "--confirm-delete", str(folder), timeout=600)
        assert place.names() == set()
    assert hosts.read_bytes() == HOSTS


def eventually(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_all_of_it_is_in_the_container(tower: Tower) -> None:
    tower.is_whole()
    before = tower.hosts.stat().st_mtime_ns
    assert {outcome["verb"] for outcome in tower.apply().json["outcomes"]} == {"noop"}
    assert tower.hosts.stat().st_mtime_ns == before
    said = tower.place.run("exec", "--user", "chronos", "termina/penguin", "--", "sh", "-c", "id -un; exit 3")
    assert (said.code, said.out) == (3, "chronos\n")


def test_names_that_cannot_be_kept_are_a_warning_and_no_more(tower: Tower) -> None:
    tower.hosts.write_bytes(HOSTS)
    remount = [*tower.place.within, "mount", "-o"]
    subprocess.run([*remount, "remount,bind,ro", "/etc/hosts"], check=True, timeout=60)
    said = tower.apply().err
    assert "/etc/hosts: cannot be written" in said and "hint: `reconciler hosts` prints" in said
    subprocess.run([*remount, "remount,bind,rw", "/etc/hosts"], check=True, timeout=60)
    assert tower.hosts.read_bytes() == HOSTS
    assert f"127.0.0.1\t{' '.join(PENGUIN)}\n" in tower.place.ok("hosts").out
    tower.place.ok("hosts", "--write")
    assert tower.resolve(PENGUIN[0])


def test_the_vm_is_its_image_and_its_lxd_is_on_a_disk_of_its_own(tower: Tower) -> None:
    said = tower.in_vm("cd /sys/block/dm-0; cat dm/name ro; grep -o 'reconciler.verity=[^ ]*' /proc/cmdline").split()
    assert said[:2] == ["verified", "1"]
    assert re.fullmatch(r"reconciler\.verity=[0-9]+:[0-9a-f]{64}", said[2])
    disk = "sed -n 's|^/dev/\\(vd.\\) /var/lib/lxd ext4 .*|\\1|p' /proc/mounts"
    assert tower.in_vm(f"cat /sys/block/$({disk})/serial").strip() == "data"
    tower.inside("test -d /dev/.lxc/proc")  # nesting


def test_it_is_reached_by_every_verb(tower: Tower) -> None:
    dialogue = ("@penguin:", "echo $(id -un):$PWD", "chronos:/home/chronos", "exit 5")
    told, code = at_terminal(tower.place, ["shell", "termina/penguin"], *dialogue)
    assert code == 5, told
    assert tower.place.ok("exec", "-i", "termina/penguin", "--", "cat", stdin="and back\n").out == "and back\n"
    here, back = tower.folder / "here", tower.folder / "back"
    here.write_bytes(bytes(range(256)))
    tower.place.ok("cp", str(here), "termina/penguin:/tmp/there")
    tower.place.ok("cp", "termina/penguin:/tmp/there", str(back))
    assert back.read_bytes() == here.read_bytes()
    assert {one["id"] for one in tower.place.ok("top", "-o", "json").json} >= GUESTS
    assert "reconciler-guest: ready" in tower.place.ok("logs", "termina").out
    tower.place.ok("logs", "termina/penguin")


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
    tower.place.ok("delete", "--yes", "Share/downloads", "Device/key", "PortForward/web")
    assert tower.inside(f"cat {SHARED}/hello 2>/dev/null; {KEY}") == ""
    with pytest.raises(urllib.error.URLError):
        tower.fetch()
    assert "downloads" not in tower.in_vm("cat /proc/mounts")
    left = set(tower.in_vm("lxc config device list penguin").split())
    assert not {"share-downloads", "device-key", "port-web"} & left
    assert not (EVERYTHING - GUESTS) & tower.place.names()
    planned = tower.place.ok("plan", "-o", "json", tower.manifests).json["steps"]
    hops = {one["id"]: {".".join(change["path"]) for change in one["changes"]} for one in planned}
    assert hops["VirtualMachine/termina"] == {"shares.downloads", "devices.key", "forwards.web"}
    assert hops["Container/penguin"] == {"devices.share-downloads", "devices.device-key", "devices.port-web"}
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


@pytest.mark.parametrize(
    "kill",
    [
        the_init_of_the_container,
        pytest.param(the_lxd_in_the_vm, marks=pytest.mark.proof),
        the_virtiofsd,
        pytest.param(the_vm, marks=pytest.mark.proof),
    ],
)
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


@pytest.mark.proof
def test_what_listens_in_the_container_is_followed_through_the_vm(tower: Tower) -> None:
    """By the rules: one port is allowed, one is allowed and denied, and nobody spoke of the third."""
    port = PORT + 2
    rules = f"allow: ['{port}-{port + 1}'], deny: [{port + 1}]"
    head = "---\napiVersion: reconciler/v1\nkind: PortForward\nmetadata: {name: dev}\n"
    auto = f"{head}spec: {{listen: 127.0.0.1, target: Container/penguin, port: auto, {rules}}}\n"
    with tower.saying(f"{auto}---\n# Each", "---\n# Each"):
        others = "; ".join(f"httpd -p {one} -h /mnt/chromeos" for one in (port + 1, port + 2))
        tower.inside(f"{others}; httpd -f -p {port} -h /mnt/chromeos </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid")
        tower.apply()
        assert tower.place.names("PortForward") == {"PortForward/web", f"PortForward/dev-{port}"}
        assert tower.fetch(port) == "from the host"
        for refused in (port + 1, port + 2):
            with pytest.raises(urllib.error.URLError):
                tower.fetch(refused)
        tower.inside("kill $(cat /tmp/pid); while [ -e /proc/$(cat /tmp/pid) ]; do sleep 0.1; done")
        tower.apply()
        assert tower.place.names("PortForward") == {"PortForward/web"}
    tower.apply()


@pytest.mark.proof
def test_a_disk_leaves_both_and_comes_back_with_what_is_on_it(tower: Tower) -> None:
    tower.inside(f"echo stays >{DATA}/stays; sync")
    with tower.saying("", "  attachTo: Container/penguin\n  mount: /data\n"):
        tower.apply()
        tower.inside(f"! grep ' {DATA} ' /proc/mounts")
        assert "disks/extra" not in tower.in_vm("cat /proc/mounts")
        assert "disk-extra" not in tower.in_vm("lxc config device list penguin")
        assert "Disk/extra" in tower.place.names()
    tower.apply()
    assert tower.inside(f"cat {DATA}/stays") == "stays\n"


@pytest.mark.proof
def test_an_lxd_that_shows_another_certificate_is_not_spoken_to_until_it_is_trusted_anew(tower: Tower) -> None:
    tower.in_vm("cd /var/lib/lxd && rm server.crt server.key && kill -9 $(pidof lxd)")
    eventually(lambda: "penguin" in tower.in_vm("lxc list -c n -f csv 2>/dev/null; true"))
    assert tower.place.run("exec", "penguin", "--", "true").code != 0
    tower.apply()
    tower.is_whole()


@pytest.mark.proof
def test_it_goes_down_with_the_host_and_comes_up_with_it(tower: Tower) -> None:
    with tower.saying("  lifetime: boot\n  lxd: true", "  lxd: true"):
        tower.apply()
        said = tower.place.ok("boot", "--down").err
        assert said.index("Container/penguin: stopped") < said.index("VirtualMachine/termina: stopped")
        assert not process.is_alive(tower.vm)
        assert "VirtualMachine/termina: started" in tower.place.ok("boot", timeout=600).err
    tower.apply()
    tower.is_whole()


@pytest.mark.proof
def test_what_comes_back_after_all_was_deleted_is_not_built_again(tower: Tower) -> None:
    entries = tower.place.state / "images" / "entries"
    before = {path.name: path.stat().st_ino for path in entries.iterdir()}
    tower.place.ok("delete", "--yes", "--confirm-delete", tower.manifests, timeout=600)
    assert tower.hosts.read_bytes() == HOSTS
    tower.apply()
    assert {path.name: path.stat().st_ino for path in entries.iterdir()} == before
    tower.is_whole()
