"""``reconciler reset`` on real guests: thrown away and back from their images, with what was declared beside them."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Place
from tests.e2e.test_commands import IMAGE, container, verbs

STORE = """\
---
apiVersion: reconciler/v1
kind: StoragePool
metadata: {name: reset-pool}
spec: {driver: dir}
---
apiVersion: reconciler/v1
kind: Volume
metadata: {name: kept}
spec: {pool: reset-pool, deletionPolicy: delete, attachTo: [{target: Container/web, path: /kept}]}
"""
MACHINE = """\
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox-vm}
spec: {type: virtual-machine, deletionPolicy: delete, source: {build: {recipe: busybox}}}
---
apiVersion: reconciler/v1
kind: Disk
metadata: {name: kept}
spec: {size: 32MiB, deletionPolicy: delete, attachTo: VirtualMachine/vm, mount: /kept}
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: vm}
spec:
  memory: 256MiB
  boot: {image: busybox-vm}
  disks: [{name: own, size: 32MiB}]
  ready: {guestAgent: true, timeout: 3m}
"""
WRITE = 'for one in "$@"; do echo there >"$one/mark"; done; sync'
OWN = 'for one in /sys/block/vd*; do if [ "$(cat "$one/serial")" = own ]; then head -c 5 "/dev/${one##*/}"; fi; done'
WRITE_OWN = OWN.replace("head -c 5", "echo there >")
READ = 'for one in "$@"; do if [ -e "$one/mark" ]; then echo "$one"; fi; done'


def marked(place: Place, guest: str, *folders: str) -> list[str]:
    return place.ok("exec", guest, "--", "sh", "-c", READ, "sh", *folders).out.split()


def test_a_container_is_back_from_its_image_with_its_volume(place: Place) -> None:
    file = place.write("all.yaml", IMAGE + container("web") + container("other") + STORE)
    place.ok("apply", file)
    for guest in ("web", "other"):
        place.ok("exec", guest, "--", "sh", "-c", WRITE, "sh", "/root")
    place.ok("exec", "web", "--", "sh", "-c", WRITE, "sh", "/kept")

    refused = place.run("reset", "web", file)
    assert refused.code == 1  # nobody can be asked, and it is not done without a word
    assert "would be stopped, restarted, replaced or deleted: Container/web" in refused.err
    assert "kept: Volume/kept" in refused.err
    assert marked(place, "web", "/root", "/kept") == ["/root", "/kept"]

    done = place.ok("reset", "web", "--yes", "-o", "json", file)
    assert done.json["converged"]
    assert verbs(done)["Container/web"] == "replace"
    assert marked(place, "web", "/root", "/kept") == ["/kept"]
    assert marked(place, "other", "/root") == ["/root"]
    assert place.ok("plan", "--exit-code", file).code == 0
    [run, *_] = place.ok("history", "-o", "json").json
    assert run["trigger"] == "reset"

    place.write("all.yaml", IMAGE + container("web", protect=True) + container("other") + STORE)
    assert "not reset: it is protected" in place.run("reset", "web", "--yes", file).err
    place.write("all.yaml", IMAGE + container("web") + container("other") + STORE)
    place.ok("apply", file)
    place.ok("delete", "--yes", "--confirm-delete", file)


@pytest.mark.proof
def test_a_vm_is_back_from_its_image_with_its_disks(place: Place) -> None:
    file = place.write("vm.yaml", MACHINE)
    place.ok("apply", file)
    place.ok("exec", "vm", "--", "sh", "-c", f"{WRITE}; {WRITE_OWN}; sync", "sh", "/root", "/kept")
    assert place.ok("exec", "vm", "--", "sh", "-c", OWN).out == "there"
    done = place.ok("reset", "VirtualMachine/vm", "--yes", file)
    assert "its own disks go: own" in done.err
    assert marked(place, "vm", "/root", "/kept") == ["/kept"]
    assert place.ok("exec", "vm", "--", "sh", "-c", OWN).out == "\0" * 5
    assert place.ok("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", "--confirm-delete", file)
