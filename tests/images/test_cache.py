"""The cache: one builder, all or nothing, whoever is killed when."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.images import checksums, container_image, drop, expire, key_of, machine_image, prune, size
from reconciler.backends.images.cache import Cache, Facts, _lock
from reconciler.problems import Problem, Refused

KEY = f"container-{'a' * 64}"
OTHER = f"container-{'b' * 64}"


def quiet(_: str) -> None:
    """Nobody looks at the progress."""


def small(folder: Path) -> Facts:
    """The smallest of images."""
    (folder / "image").write_bytes(b"content")
    return {"what": "small"}


def left_over(state: Path) -> list[str]:
    """Files that belong to no entry."""
    files = [path.relative_to(state / "images") for path in (state / "images").rglob("*") if not path.is_dir()]
    return [str(path) for path in files if path.parts[0] != "entries"]


def test_made_once(state: Path) -> None:
    cache = Cache(state)
    assert cache.find(KEY) is None
    made = cache.obtain(KEY, small, quiet)
    assert made == cache.find(KEY) == cache.obtain(KEY, _never, quiet)
    assert (made.folder / "image").read_bytes() == b"content"
    assert made.facts == {"what": "small"}
    assert left_over(state) == []


def _never(folder: Path) -> Facts:
    raise AssertionError(f"made again in {folder}")


def test_many_threads_make_it_once(state: Path) -> None:
    begun: list[Path] = []
    waiting = threading.Semaphore(0)

    def build(folder: Path) -> Facts:
        begun.append(folder)
        for _ in range(7):
            assert waiting.acquire(timeout=60)
        return small(folder)

    def tell(words: str) -> None:
        assert "waiting" in words
        waiting.release()

    with ThreadPoolExecutor(8) as pool:
        entries = set()
        for future in [pool.submit(Cache(state).obtain, KEY, build, tell) for _ in range(8)]:
            entries.add(future.result().folder)
    assert len(begun) == 1
    assert len(entries) == 1


def test_a_lock_that_its_holder_took_away_is_no_lock(state: Path) -> None:
    """Whoever waited for it has a lock on a file that nobody else will ever see."""
    path = state / "lock"
    handle, waiting = _lock(path, None), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        next_one = pool.submit(_lock, path, lambda _: waiting.set())
        assert waiting.wait(60)
        path.unlink()
        os.close(handle)
        handle = next_one.result(60)
    assert os.fstat(handle).st_ino == path.stat().st_ino
    os.close(handle)


CONCURRENT = """
import sys
from pathlib import Path
from reconciler.backends.images import container_image
image = container_image({"build": {"recipe": "busybox"}}, Path(sys.argv[1]), lambda words: print(words))
print(image.fingerprint)
"""


def test_many_processes_make_it_once(state: Path) -> None:
    command = (sys.executable, "-c", CONCURRENT, state)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=200)[0].splitlines() for process in processes]
    assert sum("making a busybox image" in lines for lines in said) == 1
    assert len({lines[-1] for lines in said}) == 1
    assert left_over(state) == []


def test_what_fails_leaves_nothing(state: Path) -> None:
    def build(folder: Path) -> Facts:
        small(folder)
        raise Refused(Problem("no"))

    with pytest.raises(Refused, match="no"):
        Cache(state).obtain(KEY, build, quiet)
    assert Cache(state).find(KEY) is None
    assert size(state) == 0


def test_a_full_disk_is_named(state: Path) -> None:
    def build(folder: Path) -> Facts:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "image"))

    with pytest.raises(Refused, match="No space left") as caught:
        Cache(state).obtain(KEY, build, quiet)
    assert "make room" in str(caught.value.problem.hint)


KILLED = """
import os, signal, sys
from pathlib import Path
from reconciler.backends.images import cache

def build(folder):
    (folder / "image").write_bytes(b"half")
    if sys.argv[2] == "building":
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

rename = Path.rename
def killed(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "sealed":
    Path.rename = killed
cache.Cache(Path(sys.argv[1])).obtain("container-" + "a" * 64, build, lambda words: None)
"""


@pytest.mark.parametrize("moment", ["building", "sealed"])
def test_a_killed_builder_leaves_nothing_that_is_used(state: Path, moment: str) -> None:
    answer = subprocess.run((sys.executable, "-c", KILLED, state, moment))
    assert answer.returncode == -signal.SIGKILL
    cache = Cache(state)
    assert (state / "images/making" / KEY / "image").exists()
    assert cache.find(KEY) is None
    assert (cache.obtain(KEY, small, quiet).folder / "image").read_bytes() == b"content"
    assert left_over(state) == []


def test_prune_sweeps_up_after_killed_builders(state: Path) -> None:
    subprocess.run((sys.executable, "-c", KILLED, state, "building"))
    assert prune((), state) == ()
    assert size(state) == 0


def test_an_entry_that_lost_a_file_is_made_again(state: Path) -> None:
    cache = Cache(state)
    made = cache.obtain(KEY, small, quiet)
    (made.folder / "image").unlink()
    assert cache.find(KEY) is None
    assert (cache.obtain(KEY, small, quiet).folder / "image").read_bytes() == b"content"


def test_an_entry_that_was_changed_is_refused(state: Path) -> None:
    cache = Cache(state)
    path = cache.obtain(KEY, small, quiet).folder / "image"
    path.write_bytes(b"CONTENT")  # as long as it was
    os.utime(path, (1, 1))
    with pytest.raises(Refused) as caught:
        cache.obtain(KEY, small, quiet)
    problem = caught.value.problem
    assert problem.summary == "the image in the cache is not what was put there: image changed since"
    assert problem.detail == str(path.parent)
    assert problem.hint is not None
    shutil.rmtree(path.parent)
    assert (cache.obtain(KEY, small, quiet).folder / "image").read_bytes() == b"content"


def test_checksums_count_what_is_there_and_not_how_it_is_kept(state: Path) -> None:
    """A hole and the zeros that it stands for are the same; the same bytes elsewhere, or more zeros, are not."""
    said = []
    for number, chunks, places in ((0, 9, (4,)), (1, 9, (4,)), (2, 9, (5,)), (3, 10, (4,)), (4, 9, ())):
        path = state / str(number)
        with path.open("wb") as file:
            if number == 1:
                file.write(bytes(chunks * checksums.CHUNK))
            file.truncate(chunks * checksums.CHUNK)
            for place in places:
                file.seek(place * checksums.CHUNK + 7)
                file.write(b"x")
        said.append(checksums.of(path))
    assert said[0] == said[1]
    assert len(set(said)) == 4
    (state / "empty").touch()
    assert checksums.of(state / "empty") not in said


@pytest.mark.parametrize("facts", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b'{"files": {}}', b"\xff"])
def test_garbled_facts_are_no_entry(state: Path, facts: bytes) -> None:
    cache = Cache(state)
    (cache.obtain(KEY, small, quiet).folder / "entry.json").write_bytes(facts)
    assert cache.find(KEY) is None
    assert cache.obtain(KEY, small, quiet).facts == {"what": "small"}


def test_everything_is_private(state: Path) -> None:
    mask = os.umask(0)
    try:
        Cache(state).obtain(KEY, small, quiet)
    finally:
        os.umask(mask)
    for path in (state / "images").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_drop_and_prune(state: Path) -> None:
    cache = Cache(state)
    cache.obtain(KEY, small, quiet)
    cache.obtain(OTHER, small, quiet)
    assert prune((KEY,), state) == (OTHER,)
    assert cache.keys() == [KEY]
    assert drop(KEY, state)
    assert not drop(KEY, state)
    assert not drop(KEY, state / "nowhere")
    assert size(state) == 0


def test_what_is_not_kept_goes_once_nobody_asks_for_it(state: Path) -> None:
    cache = Cache(state)
    for key in (KEY, OTHER):
        os.utime(cache.obtain(key, small, quiet).folder / "entry.json", (1, 1))
    third = f"container-{'c' * 64}"
    cache.obtain(third, small, quiet)
    assert expire((), 3e9, state) == ()
    assert expire((KEY,), 3600, state) == (OTHER,)
    cache.obtain(KEY, small, quiet)
    assert expire((), 3600, state) == ()
    os.utime(state / "images/entries" / third / "entry.json", (1, 1))
    assert expire((), 3600, state) == (third,)


def test_prune_keeps_the_parts_of_what_is_kept(state: Path) -> None:
    cache = Cache(state)
    cache.obtain(OTHER, small, quiet)
    cache.obtain(KEY, lambda folder: {**small(folder), "parts": [OTHER]}, quiet)
    assert prune((KEY,), state) == ()
    assert prune((), state) == (KEY, OTHER)


def test_drop_waits_for_the_builder(state: Path) -> None:
    order: list[str] = []
    building, dropping = threading.Event(), threading.Event()

    def build(folder: Path) -> Facts:
        building.set()
        assert dropping.wait(60)
        order.append("made")
        return small(folder)

    def drop_it() -> None:
        assert building.wait(60)
        dropping.set()
        assert drop(KEY, state)
        order.append("dropped")

    with ThreadPoolExecutor(2) as pool:
        for future in (pool.submit(Cache(state).obtain, KEY, build, quiet), pool.submit(drop_it)):
            future.result()
    assert order == ["made", "dropped"]
    assert Cache(state).find(KEY) is None


@pytest.mark.parametrize(
    "key", ["", "..", "container-../../x", "/etc", f"container-{'A' * 64}", f"x/container-{'a' * 64}"]
)
def test_keys_that_are_none(state: Path, key: str) -> None:
    (state / "images").mkdir()
    with pytest.raises(Refused, match="not the key"):
        drop(key, state)


def test_keys_tell_sources_apart(state: Path) -> None:
    path = state / "x"
    path.write_bytes(b"1")
    sources: list[dict[str, Any]] = [
        {"build": {"recipe": "busybox"}},
        {"build": {"recipe": "busybox", "files": [{"path": "/x", "content": "y"}]}},
        {"build": {"recipe": "busybox", "kernel": str(path)}},
        {"url": "https://example.org/x", "sha256": "1" * 64},
        {"url": "https://example.org/x", "sha256": "2" * 64},
        {"file": str(path)},
        {"file": str(path), "stamp": "1"},
        {"file": str(path), "stamp": "1", "rootfs": str(path)},
    ]
    keys = [key_of(type, source) for source in sources for type in ("container", "virtual-machine")]
    assert len(set(keys)) == len(keys)
    assert keys == [key_of(type, source) for source in sources for type in ("container", "virtual-machine")]
    assert key_of("container", dict(reversed(sources[3].items()))) == key_of("container", sources[3])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"build": {"recipe": "gentoo"}}, "recipe gentoo: makes no"),
        ({"build": {"recipe": "debian", "kernel": "/bin/sh"}}, "takes no kernel"),
        ({"build": {"recipe": "busybox", "packages": ["vim"]}}, "takes no packages"),
        ({"build": {"recipe": "busybox", "commands": ["true"]}}, "takes no commands"),
        ({"build": {"recipe": "busybox", "suite": "bookworm"}}, "takes no suite"),
        ({"server": "https://example.org", "protocol": "simplestreams", "alias": "x"}, "image server"),
        ({}, "got nothing"),
    ],
)
def test_sources_that_are_refused(state: Path, source: dict[str, object], said: str) -> None:
    for make in (container_image, machine_image):
        with pytest.raises(Refused, match=said):
            make(source, state, quiet)
    assert size(state) == 0
