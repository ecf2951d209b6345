"""B4: a container's init killed, a container deleted by hand, a QEMU killed: back, against the bare calls for that.

From the moment in which LXD tells that it has ended (how long LXD takes to see that is its own affair) until LXD tells
that it runs; for QEMU from the signal until its monitor answers, against spawning the same QEMU and asking it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bench.measure import Figures, absolute, alternate, table
from bench.watching import Lifecycle, Watch, until, watching
from bench.world import World, world
from tests.support.qemu import IDLE_SAYS, idle_disk

ROUNDS = 5
KILLED, DELETED, MACHINE, DETECTED = 1.1, 1.2, 2.0, 0.005
ENDED, STARTED = ("instance-shutdown", "instance-stopped", "instance-deleted"), "instance-started"
VM = f"""
---
apiVersion: reconciler/v1
kind: Image
metadata: {{name: idle}}
spec: {{type: virtual-machine, source: {{file: ./idle.img, format: raw}}}}
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {{name: healed}}
spec:
  accelerator: tcg
  cpus: 1
  memory: 64MiB
  guestAgent: false
  deletionPolicy: delete
  disks: [{{name: root, image: idle}}]
  ready: {{log: "{IDLE_SAYS}", timeout: 30s}}
"""


def main() -> int:
    with world() as here:
        folder = here.manifests(1, "running", "heal")
        (folder / "idle.img").write_bytes(idle_disk())
        (folder / "vm.yaml").write_text(VM)
        told, name = Lifecycle(here), "heal1-0"
        with watching(here, folder, telling=True) as watch:
            watch.until("InSync")
            here.call("POST", "/1.0/instances", _body(here, "bare"))
            killed = alternate(
                {"watch": lambda: _killed(here, watch, told, name), "bare start": lambda: _start(here, told)}, ROUNDS
            )
            deleted = alternate(
                {"watch": lambda: _deleted(here, watch, told, name), "bare create, start": lambda: _create(here, told)},
                ROUNDS,
            )
            seen: list[float] = []
            heard: list[float] = []
            machine = alternate(
                {"watch": lambda: _machine(here, watch, heard, seen), "bare spawn": lambda: _spawn(here.folder)}, ROUNDS
            )
        here.clear()
    print(table("B4  init killed → running again", "watch", killed, ("bare start", KILLED)))
    print(table("B4  deleted by hand → running again", "watch", deleted, ("bare create, start", DELETED)))
    print(table("B4  QEMU killed → its monitor answers", "watch", machine, ("bare spawn", MACHINE)))
    detected, planned = Figures("heard", tuple(sorted(heard))), Figures("seen", tuple(sorted(seen)))
    print(absolute("B4  QEMU killed", {"the watch knows": (detected, DETECTED)}))
    print(f"  {'looked at, planned, and told':34} p50 {planned.p50 * 1000:.1f} ms  p95 {planned.p95 * 1000:.1f} ms")
    return 0


def _forgiven(here: World, watch: Watch, id: str) -> None:
    """A clean slate: no pause counts. And a moment for LXD to end what it is doing."""
    here.run("reconcile", id)
    time.sleep(0.5)


def _killed(here: World, watch: Watch, told: Lifecycle, name: str) -> float:
    _forgiven(here, watch, f"Container/{name}")
    told.skip()
    os.kill(int(here.call("GET", f"/1.0/instances/{name}/state")["pid"]), signal.SIGKILL)
    began = told.until(name, *ENDED)
    ended = told.until(name, STARTED)
    watch.until("Applied", f"Container/{name}")
    watch.until("Ready", f"Container/{name}")
    return ended - began


def _deleted(here: World, watch: Watch, told: Lifecycle, name: str) -> float:
    """An ephemeral one goes with its stop, so that nobody starts it between the two."""
    here.call("PATCH", f"/1.0/instances/{name}", {"ephemeral": True})
    _forgiven(here, watch, f"Container/{name}")
    told.skip()
    here.call("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True, "timeout": 30})
    began = told.until(name, "instance-deleted")
    ended = told.until(name, STARTED)
    watch.until("Applied", f"Container/{name}")
    watch.until("Ready", f"Container/{name}")
    return ended - began


def _start(here: World, told: Lifecycle) -> float:
    if here.call("GET", "/1.0/instances/bare")["status"] != "Stopped":
        here.call("PUT", "/1.0/instances/bare/state", {"action": "stop", "force": True, "timeout": 30})
    time.sleep(0.5)
    told.skip()
    began = time.perf_counter()
    here.call("PUT", "/1.0/instances/bare/state", {"action": "start", "timeout": 30})
    return told.until("bare", STARTED) - began


def _create(here: World, told: Lifecycle) -> float:
    if here.call("GET", "/1.0/instances/bare")["status"] != "Stopped":
        here.call("PUT", "/1.0/instances/bare/state", {"action": "stop", "force": True, "timeout": 30})
    here.call("DELETE", "/1.0/instances/bare")
    time.sleep(0.5)
    told.skip()
    began = time.perf_counter()
    here.call("POST", "/1.0/instances", _body(here, "bare"))
    here.call("PUT", "/1.0/instances/bare/state", {"action": "start", "timeout": 30})
    return told.until("bare", STARTED) - began


def _body(here: World, name: str) -> dict[str, object]:
    source = {"type": "image", "fingerprint": here.fingerprint()}
    return {"name": name, "source": source, "config": {"limits.memory": "64MiB"}}


def _machine(here: World, watch: Watch, heard: list[float], seen: list[float]) -> float:
    """Until the monitor for people greets: the new QEMU is at its main loop by then.

    heard: seconds from the signal until the watch was told of its end; seen: until the restart was begun
    """
    state = Path(here.environment["RECONCILER_STATE_DIR"])
    monitor = state / "run" / "vms" / "healed" / "people.sock"
    _forgiven(here, watch, "VirtualMachine/healed")
    pid = json.loads((state / "vms" / "healed" / "record.json").read_bytes())["process"]["pid"]
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    ended = until(lambda: _greets(monitor))
    heard.append(watch.until("Told", "VirtualMachine/healed", began) - began)
    seen.append(watch.until("Restarting", "VirtualMachine/healed") - began)
    watch.until("Applied", "VirtualMachine/healed")
    watch.until("Ready", "VirtualMachine/healed")
    return ended - began


def _greets(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one, suppress(OSError):
        one.connect(str(path))
        one.settimeout(60)
        return b"QMP" in one.recv(4096)
    return False


def _spawn(folder: Path) -> float:
    """The same machine, and its monitor's first answer."""
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "64", "-display", "none"]
    began = time.perf_counter()
    with subprocess.Popen([*command, "-qmp", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None and one.stdout is not None
        one.stdin.write(b'{"execute": "qmp_capabilities"}\n')
        one.stdin.flush()
        one.stdout.readline()
        one.stdout.readline()
        took = time.perf_counter() - began
        one.kill()
    return took


if __name__ == "__main__":
    sys.exit(main())
