"""A pool on btrfs: there, unlike on ``dir``, the size of a volume is kept to, and grows under whoever uses it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from reconciler.backends.images.packages import workshop
from reconciler.model import Effect, Result, Verb
from tests.support.lxd import Lab, lab_on, stocked_lxd

MIB = 1 << 20
FULL = "dd if=/dev/zero of=/data/big bs=1M count=96 && sync"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """On a private LXD that finds the programs of btrfs: the distribution's, unpacked and not installed."""
    folder = tmp_path_factory.mktemp("btrfs")
    with workshop(tmp_path_factory.mktemp("packages"), print) as packages:
        command = ["dpkg-deb", "--extract", str(packages.download("btrfs-progs")), str(folder)]
        subprocess.run(command, check=True)
    places = [str(folder / place) for place in ("bin", "sbin", "usr/bin", "usr/sbin")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join([*places, os.environ["PATH"]]))
        with stocked_lxd() as lxd, lab_on(lxd) as opened:
            yield opened


@pytest.mark.proof
def test_a_volume_on_btrfs_comes_grows_and_goes_under_its_user(lab: Lab) -> None:
    store, data, name = lab.lxd.name("s"), lab.lxd.name("v"), lab.lxd.name()
    config = {"size": "1GiB"}
    pool = lab.desired("StoragePool", store, {"driver": "btrfs", "config": config})
    small = lab.desired("Volume", data, {"pool": store, "size": 64 * MIB}, [pool.id])
    big = lab.desired("Volume", data, {"pool": store, "size": 160 * MIB}, [pool.id])
    root = {"root": {"type": "disk", "path": "/", "pool": store}}
    without = lab.container(name, needs=[pool.id], devices=root)
    device = {"type": "disk", "pool": store, "source": data, "path": "/data"}
    user = lab.container(name, needs=[pool.id, small.id], devices={**root, "volume-data": device})
    lab.converge(pool, without)
    began = lab.init_start(name)
    lab.converge(pool, small, user)
    assert " /data btrfs " in lab.inside(name, "cat", "/proc/mounts")
    assert "quota exceeded" in lab.inside(name, "sh", "-c", f"{FULL} 2>&1; rm /data/big; echo precious >/data/file")
    outcomes = lab.converge(pool, big, user)
    assert [(one.step.id, one.step.effect) for one in outcomes if one.step.verb is Verb.UPDATE] == [
        (big.id, Effect.LIVE)
    ]
    lab.inside(name, "sh", "-c", FULL)
    held = next(one for one in lab.apply(pool, small, user) if one.step.id == small.id)
    assert held.result is Result.HELD and "cannot shrink" in str(held.problem)
    lab.converge(pool, big, without)
    assert "/data" not in lab.inside(name, "cat", "/proc/mounts")
    lab.converge(pool, big, user)
    assert lab.inside(name, "cat", "/data/file") == "precious\n"
    options = {"btrfs.mount_options": "user_subvol_rm_allowed,noatime"}
    pool = lab.desired("StoragePool", store, {"driver": "btrfs", "config": {**config, **options}})
    assert lab.converge(pool, big, user)[1].step.effect is Effect.LIVE
    assert lab.raw("storage-pools", store)["config"].items() >= options.items()
    assert lab.init_start(name) == began
