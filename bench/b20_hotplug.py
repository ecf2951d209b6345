"""B20: a share, a device and a disk into a running guest and out again, against the bare sequence on the same guest.

Into a VM (a virtiofs share, a USB tablet, a Disk of its own) beside the bare QMP commands; into a container (a share, a
card of its own, a Volume) beside the bare calls of LXD's API.

Ours is one whole ``reconciler apply``: start, look, plan, act, look again; what it costs to start is measured beside it
and taken off. Start is the same command with nothing to do, right after it and on the same manifests: Python, the code,
the manifests, the first look. Both load all the modules that the change needs, for loading code is no work that is
done; how much that is stands in a row of its own, in which the idle command loads only what it needs itself. What is
counted is then what ours does because something changed: the plan's words, the record on the disk before and after (so
that it may be killed at any moment), the policy of a shared folder, the whole look afterwards, the history.

Bare is the shortest way to the same facts (peers/bare_machine, peers/bare_container): from a process that is running
already and knows everything beforehand, the same commands, the same virtiofsd, the same mount; ``qemu-img``, as a
script would; then a look whether it is there. Neither writes down what it has done, nor could it be cut off half-way.
Neither waits until a VM's system has found a device or a disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.loading import loaded, modules
from bench.measure import Contestant, alternate, process, table
from bench.peers.bare_container import Container
from bench.peers.bare_machine import Machine
from bench.world import World, world
from reconciler.backends.qemu.folders import Folder, folder_of

ROUNDS = 7
GOAL = 1.5
OURS, LOADING = "reconciler apply", "and loading its code"
VM = """apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: virtual-machine, source: {build: {recipe: busybox}}}
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: guest}
spec: {boot: {image: busybox}, memory: 192MiB, ready: {guestAgent: true}, updatePolicy: live}
"""
CONTAINER = """apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: container, source: {build: {recipe: busybox}}}
---
apiVersion: reconciler/v1
kind: Container
metadata: {name: guest}
spec: {image: busybox, updatePolicy: live, devices: {}}
"""
_MORE = "---\napiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: thing}}\nspec: {}\n"
_CARD = "devices: {thing: {type: nic, nictype: p2p, name: thing}}"
IN_VM = {
    "share": VM
    + _MORE.format("Share", "{source: ./folder, mounts: [{target: VirtualMachine/guest, path: /mnt/thing}]}"),
    "device": VM + _MORE.format("Device", "{emulate: {driver: usb-tablet}, attachTo: VirtualMachine/guest}"),
    "disk": VM + _MORE.format("Disk", "{size: 16MiB, attachTo: VirtualMachine/guest, deletionPolicy: delete}"),
}
IN_CONTAINER = {
    "share": CONTAINER
    + _MORE.format("Share", "{source: ./folder, mounts: [{target: Container/guest, path: /mnt/thing}]}"),
    "device": CONTAINER.replace("devices: {}", _CARD),
    "disk": CONTAINER
    + _MORE.format("Volume", "{attachTo: [{target: Container/guest, path: /mnt/thing}], deletionPolicy: delete}"),
}


@dataclass(frozen=True, slots=True)
class Guest:
    """One running guest. name: of its kind; without, with_: manifests; bare: knows the bare sequences."""

    here: World
    name: str
    manifest: Path
    without: str
    with_: dict[str, str]
    bare: Any

    def apply(self, text: str, loading: Sequence[str] = ()) -> Contestant:
        """One whole apply of these manifests. loading: modules to load at its start, whether it needs them or not."""
        words = self.words(text)
        command = loaded(loading, words) if loading else self.here.reconciler(*words)
        work = process(command, self.here.environment)

        def run() -> float:
            self.manifest.write_text(text)
            return work()

        return run

    def words(self, text: str) -> list[str]:
        """What our command is told for these manifests."""
        prune = ("--prune", "--confirm-delete") if text == self.without else ()
        return ["apply", "--yes", *prune, str(self.manifest.parent)]

    def change(self, text: str, loading: Sequence[str] = ()) -> float:
        """The same, what it costs to start taken off: right after it they are as declared."""
        return self.apply(text, loading)() - self.apply(text, loading)()

    def loads(self, text: str) -> list[str]:
        """The modules that only a change to these manifests loads."""
        found = []
        for _ in range(2):
            self.manifest.write_text(text)
            found.append(modules(self.words(text), self.here.environment))
        return [name for name in found[0] if name not in found[1]]


def main() -> int:
    with world() as here:
        _measure(_machine(here))
        _measure(_container(here))
    return 0


def _machine(here: World) -> Guest:
    manifest = _began(here, "vm", VM)
    return Guest(here, "VM", manifest, VM, IN_VM, Machine(_folder(here), manifest.parent / "folder"))


def _container(here: World) -> Guest:
    manifest = _began(here, "container", CONTAINER)
    bare = Container(here, "guest", manifest.parent / "folder")
    return Guest(here, "container", manifest, CONTAINER, IN_CONTAINER, bare)


def _began(here: World, name: str, text: str) -> Path:
    """The guest runs; where its manifests are."""
    folder = here.folder / name
    (folder / "folder").mkdir(parents=True)
    folder.chmod(0o700)
    manifest = folder / "guest.yaml"
    manifest.write_text(text)
    here.run("apply", "--yes", str(folder))
    return manifest


def _measure(guest: Guest) -> None:
    bare = "bare QMP" if guest.name == "VM" else "bare LXD calls"
    for kind, text in guest.with_.items():
        put, take = getattr(guest.bare, f"put_{kind}"), getattr(guest.bare, f"take_{kind}")
        guest.apply(text)()  # what is plugged in once stays (the USB controller)
        guest.apply(guest.without)()
        coming, going = guest.loads(text), guest.loads(guest.without)
        back, forth = guest.apply(guest.without), guest.apply(text)
        ways: dict[str, dict[str, Contestant]] = {
            "in": {
                OURS: _once(partial(guest.change, text, coming), after=back),
                LOADING: _once(partial(guest.change, text), after=back),
                bare: _once(put, after=take),
            },
            "out": {
                OURS: _once(partial(guest.change, guest.without, going), before=forth),
                LOADING: _once(partial(guest.change, guest.without), before=forth),
                bare: _once(take, before=put),
            },
        }
        for way, contestants in ways.items():
            title = f"B20 {guest.name}: {kind} {way} (start taken off)"
            print(table(title, OURS, alternate(contestants, ROUNDS), (bare, GOAL)), flush=True)


def _nothing() -> None:
    pass


def _once(
    work: Callable[[], float | None], before: Callable[[], object] = _nothing, after: Callable[[], object] = _nothing
) -> Contestant:
    """``work`` says its seconds, or is timed; what is around it does not count."""

    def run() -> float:
        before()
        began = time.perf_counter()
        said = work()
        seconds = time.perf_counter() - began
        after()
        return seconds if said is None else said

    return run


def _folder(here: World) -> Folder:
    environment = here.environment
    return folder_of(Path(environment["RECONCILER_STATE_DIR"]), _runtime(environment), "guest")


def _runtime(environment: dict[str, str]) -> Path:
    found = subprocess.run(
        [sys.executable, "-c", "from reconciler.paths import runtime_dir; print(runtime_dir())"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip())


if __name__ == "__main__":
    sys.exit(main())
