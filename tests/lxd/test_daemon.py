"""The embedded LXD: detached, recorded, identified before it is signalled, and gone without a trace when stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reconciler.backends.lxd import checkup, daemon
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.ports import Settings
from reconciler.problems import Refused, Unreachable
from tests.support.lxd import busybox_image, lab_on, private_lxd, remains


@pytest.fixture
def folder() -> Iterator[Path]:
    state = Path(tempfile.mkdtemp(prefix="rt"))
    yield state / "lxd"
    daemon.stop(state / "lxd")
    assert remains(None, state) == []
    shutil.rmtree(state)


def test_it_outlives_the_command_that_started_it(folder: Path) -> None:
    program = "import sys, pathlib; from reconciler.backends.lxd import daemon; daemon.start(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    found = daemon.find(folder)
    assert found is not None and os.getsid(found.pid) != os.getsid(0)
    again = daemon.start(folder)
    assert again == found


def test_folders_and_records_are_private(folder: Path) -> None:
    daemon.start(folder)
    assert folder.stat().st_mode & 0o066 == 0
    assert (folder / daemon.RECORD).stat().st_mode & 0o022 == 0


def test_containers_run_although_the_state_folder_is_closed(folder: Path) -> None:
    assert folder.parent.stat().st_mode & 0o077 == 0
    with private_lxd() as lxd, lab_on(lxd) as lab:
        assert lxd.state.stat().st_mode & 0o077 == 0
        lab.converge(busybox_image(lab))
        name = lxd.name()
        lab.converge(lab.container(name))
        assert lab.inside(name, "id", "-u").strip() == "0"
        pid = lab.raw("instances", name, "state")["pid"]
        assert os.stat(f"/proc/{pid}").st_uid >= 65536


def test_what_a_killed_daemon_leaves_is_taken_up_and_stopped() -> None:
    with private_lxd() as lxd, lab_on(lxd) as lab:
        lab.converge(busybox_image(lab))
        bridge, name = lxd.name("b"), lxd.name()
        network = lab.desired(
            "Network", bridge, {"ipv4": {"address": f"{lab.net}.3.1/24"}, "ipv6": {"address": "none"}}
        )
        nic = {"eth0": {"type": "nic", "network": bridge, "name": "eth0"}}
        lab.converge(network, lab.container(name, needs=[network.id], devices=nic))
        began = lab.init_start(name)
        kill(lxd.daemon)
        assert daemon.find(lxd.state / "lxd") is None and daemon.leftovers(lxd.state / "lxd")
        daemon.start(lxd.state / "lxd")
        assert lab.init_start(name) == began  # the container never noticed
        assert lab.inside(name, "echo", "still here") == "still here\n"
        lab.converge(network, lab.container(name, needs=[network.id], devices=nic))
        # private_lxd stops what is there by now, and checks that nothing remains


def test_a_killed_daemon_is_stopped_without_being_started_by_hand() -> None:
    with private_lxd() as lxd:
        with lab_on(lxd) as lab:
            lab.converge(busybox_image(lab))
            lab.converge(lab.container(lxd.name()))
            lab.sweep = lambda: None  # type: ignore[method-assign]
        kill(lxd.daemon)


def kill(lxd: daemon.Daemon) -> None:
    handle = os.pidfd_open(lxd.pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    deadline = Deadline.after(60)
    while daemon.find(lxd.folder) is not None:
        assert not deadline.passed
        time.sleep(0.01)
    os.close(handle)


def test_a_stranger_with_the_recorded_pid_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        started = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (folder / daemon.RECORD).write_text(f"{stranger.pid} {started}\n")
        assert daemon.find(folder) is None
        daemon.stop(folder)
        assert stranger.poll() is None
        stranger.kill()


def test_preseed_twice_is_preseed_once(folder: Path) -> None:
    started = daemon.start(folder)
    with closing(Client(Address(socket=started.socket))) as client:
        for _ in range(2):
            daemon.preseed(client)
        assert len(client.get("storage-pools").metadata) == 1
        assert client.get("profiles", "default").metadata["devices"]["root"]["pool"] == "default"


def test_a_folder_too_deep_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="too long for a unix socket"):
        daemon.start(tmp_path / ("x" * 100) / "lxd")


def test_an_lxd_that_dies_at_once_leaves_its_last_words(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "database").write_text("where LXD wants a folder")
    with pytest.raises(Exception, match=r"(?s)does not answer.*database") as caught:
        daemon.start(folder)
    assert "directory" in str(caught.value)


def test_an_lxd_that_is_gone_before_anybody_looks_leaves_them_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lxd").write_text("#!/bin/sh\necho no luck today >&2\n")
    (tmp_path / "lxd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unreachable, match=r"(?s)started and does not answer.*no luck today"):
        daemon.start(folder)


def test_doctor_starts_it_and_then_finds_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.backends.lxd.address.DISTRIBUTION_SOCKET", folder / "no")
    for name in ("LXD_SOCKET", "LXD_DIR"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings("e", folder.parent, folder.parent / "run")
    silent = {check.name: check for check in checkup.checks(settings)}["LXD answers"]
    assert silent.ok is False and silent.fix is not None
    said: list[str] = []
    silent.fix(said.append)
    checks = {check.name: check for check in checkup.checks(settings)}
    assert all(checks[name].ok for name in ("lxd", "LXD answers", "LXD API extensions", "storage pool"))
    assert checks["default profile"].ok and "LXD 5." in checks["LXD answers"].found


def test_doctor_names_missing_extensions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "EXTENSIONS", ("etag", "from_the_future"))
    monkeypatch.setenv("LXD_SOCKET", str(daemon.start(folder).socket))
    found = {check.name: check for check in checkup.checks(Settings("e", folder.parent, folder.parent))}
    assert found["LXD API extensions"].ok is False and "from_the_future" in found["LXD API extensions"].found
