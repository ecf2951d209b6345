"""Watch mode against what really happens: files that are saved, guests that end, people who change things by hand."""

from __future__ import annotations

import json
import os
import select
import signal
from pathlib import Path

from reconciler.backends.lxd import daemon
from tests.support.unique import own_port
from tests.watch.conftest import Place

PORT = own_port()


def killed(pid: int, then_gone: int | None = None) -> None:
    """Killed, and gone by now; with it another one that looks after it."""
    handle = os.pidfd_open(then_gone or pid)
    os.kill(pid, signal.SIGKILL)
    select.select([handle], [], [])
    os.close(handle)


def test_a_saved_file_is_made_so_and_what_others_do_is_undone(place: Place) -> None:
    with place.watching() as watch:
        watch.until("InSync")
        web = place.container("web", memory="64MiB")
        watch.until("Ready", web)

        os.kill(place.init("web"), signal.SIGKILL)
        watch.until("Restarting", web)
        watch.until("Ready", web)
        assert place.raw("web")["status"] == "Running"

        place.set_config("web", limits_memory="32MiB")
        watch.until("Applied", web, "update")
        watch.until("Ready", web)
        assert place.raw("web")["config"]["limits.memory"] == "64MiB"

        place.delete("web")
        watch.until("Applied", web, "create")
        watch.until("Ready", web)

        place.container("web", memory="96MiB")
        watch.until("Applied", web, "update")
        assert place.raw("web")["config"]["limits.memory"] == "96MiB"
    assert place.raw("web")["status"] == "Running", "the guest outlives the watch"
    place.run("plan", str(place.folder), "--exit-code")


def test_a_machine_that_is_killed_is_back_and_what_others_stop_too(place: Place) -> None:
    vm = place.machine("vm")
    with place.watching() as watch:
        watch.until("Ready", vm)
        first = place.qemu("vm")
        os.kill(first, signal.SIGKILL)
        watch.until("Restarting", vm)
        watch.until("Ready", vm)
        assert place.qemu("vm") != first
        place.machine("vm", restart="never")
        watch.until("Ready", vm)
        os.kill(place.qemu("vm"), signal.SIGKILL)
        watch.until("Ended", vm, "restart: never")
        place.machine("vm", restart="always")
        watch.until("Ready", vm)


def test_what_others_do_to_a_machine_that_runs_is_undone_at_once(place: Place) -> None:
    vm = place.machine("vm")
    spec = {"emulate": {"driver": "usb-tablet"}, "attachTo": vm}
    document = {"apiVersion": "reconciler/v1", "kind": "Device", "metadata": {"name": "tablet"}, "spec": spec}
    place.save("tablet.yaml", json.dumps(document))
    with place.watching("--resync", "1h") as watch:
        watch.until("InSync")
        qemu = place.qemu("vm")
        place.ask("vm", "stop")
        watch.until("Applied", vm)
        watch.until("Ready", vm)
        assert place.ask("vm", "query-status")["status"] == "running"
        place.ask("vm", "device_del", id="device-tablet")
        watch.until("Applied", vm)
        watch.until("Ready", vm)
        assert "device-tablet" in {one["name"] for one in place.ask("vm", "qom-list", path="/machine/peripheral")}
        place.machine("vm", driftPolicy="report")
        watch.until("Ready", vm)
        place.ask("vm", "stop")
        watch.until("DriftReported", vm, "power")
        assert place.ask("vm", "query-status")["status"] == "paused"
        place.ask("vm", "device_del", id="device-tablet")
        watch.until("DriftReported", "Device/tablet", "devices.tablet")
        assert place.qemu("vm") == qemu


def test_a_guest_that_ends_again_and_again_is_called_so(place: Place) -> None:
    web = place.container("web")
    with place.watching() as watch:
        watch.until("Ready", web)
        for reason in ("Restarting", "Restarting", "CrashLoop"):
            os.kill(place.init("web"), signal.SIGKILL)
            watch.until(reason, web)
            watch.until("Ready", web)


def test_half_a_file_and_no_folder_change_nothing(place: Place) -> None:
    web = place.container("web")
    with place.watching() as watch:
        watch.until("InSync")
        started = place.init("web")
        (place.folder / "more.yaml").write_text("kind: [")
        watch.until("NotUsed", words="more.yaml")
        watch.until("LastGoodKept")
        (place.folder / "more.yaml").unlink()
        watch.until("UsedAgain")

        place.folder.rename(place.folder.with_name("elsewhere"))
        watch.until("LastGoodKept")
        place.folder.mkdir(mode=0o700)
        place.folder.rmdir()
        place.folder.with_name("elsewhere").rename(place.folder)
        watch.until("UsedAgain")

        texts = {path: path.read_text() for path in place.folder.iterdir()}
        for path in texts:
            path.unlink()
        watch.until("LastGoodKept")
        for path, text in texts.items():
            path.write_text(text)
        watch.until("UsedAgain")
        place.container("web", config={"user.seen": "yes"})  # the folder that came back is watched still
        watch.until("Applied", web)
        assert place.init("web") == started


def test_what_begins_to_listen_is_forwarded_and_goes_again(place: Place) -> None:
    web = place.container("web")
    follow = {"listen": "127.0.0.1", "target": web, "port": "auto", "allow": [PORT]}
    document = {"apiVersion": "reconciler/v1", "kind": "PortForward", "metadata": {"name": "dev"}, "spec": follow}
    place.save("dev.yaml", json.dumps(document))
    with place.watching() as watch:
        watch.until("InSync")
        serve = f"busybox httpd -f -p {PORT} -h / </dev/null >/dev/null 2>&1 & echo $! >/pid"
        place.run("exec", "web", "--", "sh", "-c", serve)
        watch.until("Applied", web, "update")
        assert place.raw("web")["devices"][f"port-dev-{PORT}"]["listen"] == f"tcp:127.0.0.1:{PORT}"
        place.run("exec", "web", "--", "sh", "-c", "kill $(cat /pid)")
        watch.until("Applied", web, "update")
        assert not place.raw("web")["devices"]


def test_saving_the_same_again_does_nothing(place: Place) -> None:
    web = place.container("web")
    with place.watching() as watch:
        watch.until("InSync")
        place.container("web")
        place.container("other")
        watch.until("Ready", "Container/other")
        assert watch.reasons(web) == []
        assert not [one for one in watch.events if one["resource"] == web and one["reason"] == "Step"][1:]


def test_what_lxd_could_not_tell_is_seen_once_it_is_back(place: Place) -> None:
    """Its daemon is killed, and while it is away the container ends: no event of that ever comes."""
    web = place.container("web")
    with place.watching() as watch:
        watch.until("InSync")
        lxd = daemon.find(place.state / "lxd")
        assert lxd is not None
        init = place.init("web")
        monitor = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        killed(lxd.pid)
        killed(init, then_gone=monitor)
        watch.skip()
        daemon.start(place.state / "lxd")
        watch.until("Ready", web)
        assert place.raw("web")["status"] == "Running" and place.init("web") != init
