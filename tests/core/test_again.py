"""again: whatever is saved, what is prepared of it alone is what preparing everything comes to."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.again import Prepared, alike
from reconciler.model import ResourceId
from reconciler.preparation import Wanted, prepare_watched
from reconciler.problems import ManifestError
from reconciler.watch.source import settings as about
from tests.support.drawn import BASE, ENVIRONMENT, FILES, SPECS, Declared, declared, few, one_of, text


class Folder:
    """Manifests, and what is known of them."""

    def __init__(self, path: Path, environment: str | None = None) -> None:
        self.path = path
        (path / "in" / "er").mkdir(parents=True)
        (path / "i.img").write_text("image")
        (path / "payload.txt").write_text("payload")
        for name, documents in BASE.items():
            self.put(name, documents)
        if environment is not None:
            (path / "in" / "there.yaml").write_text(text([("Project", "j0", {})]))
            (path / "environment.yaml").write_text(environment)
        self.prepared = Prepared([str(path)])
        self.wanted = self.prepared.whole()

    def put(self, name: str, documents: list[Declared], comment: int = 0) -> None:
        (self.path / name).write_text(text(documents, comment))

    def again(self, *names: str) -> bool:
        """Whether it was prepared without all of it; then it is equal to all of it."""
        expected = self.expected()
        change = self.prepared.again([str(self.path / name) for name in names])
        if change is None:
            return self.whole(expected)
        assert isinstance(expected, Wanted), expected
        assert dict(change.wanted.desired) == dict(expected.desired)
        assert expected.files - {str(self.path / "in" / "payload.txt")} <= change.wanted.files
        before, after = self.wanted.desired, change.wanted.desired
        moved = {id for id in before.keys() | after.keys() if not alike(before.get(id), after.get(id))}
        assert change.moved == moved
        self.wanted = change.wanted
        return True

    def expected(self) -> Wanted | list[str]:
        """What it comes to from scratch, or everything that is wrong with it."""
        try:
            return prepare_watched([str(self.path)])
        except ManifestError as error:
            return list(map(str, error.problems))

    def whole(self, expected: Wanted | list[str]) -> bool:
        """The same when all of it is read, and what is as it was is taken over."""
        if not isinstance(expected, Wanted):
            with pytest.raises(ManifestError) as caught:
                self.prepared.whole()
            assert list(map(str, caught.value.problems)) == expected
            return False
        self.wanted = self.prepared.whole()
        assert about(self.wanted) == about(expected)
        assert dict(self.wanted.desired) == dict(expected.desired)
        assert self.wanted.files >= {str(self.path / name) for name in BASE if (self.path / name).exists()}
        assert self.wanted.files >= expected.files
        return False


@contextmanager
def folder(environment: str | None = None) -> Iterator[Folder]:
    with TemporaryDirectory(prefix="again") as path:
        yield Folder(Path(path), environment)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 8), one_of([None, ENVIRONMENT]))
def test_again_comes_to_what_all_of_it_comes_to(data: st.DataObject, rounds: int, environment: str | None) -> None:
    with folder(environment) as here:
        for number in range(rounds):
            touched = data.draw(st.lists(one_of([*FILES, *BASE, "payload.txt", "notes.txt"]), unique=True, **few))
            before = {name: (here.path / name).read_text() for name in touched if (here.path / name).exists()}
            for name in touched:
                saved(data, here, name, number)
            if not here.again(*touched):  # most of what is drawn is wrong: back to what was right, and on
                for name in touched:
                    (here.path / name).write_text(before[name]) if name in before else (here.path / name).unlink(True)
                here.wanted = here.prepared.whole()


def saved(data: st.DataObject, here: Folder, name: str, number: int) -> None:
    place = here.path / name
    if name.endswith(".txt"):
        place.write_text(f"{number}")
    elif data.draw(one_of(["put", "put", "put", "gone"])) == "gone":
        place.unlink(missing_ok=True)
    elif name in BASE:
        kind, called, _ = BASE[name][0]
        here.put(name, [(kind, called, data.draw(SPECS[kind][1])), *BASE[name][1:]], data.draw(st.integers(0, 2)))
    else:
        here.put(name, data.draw(st.lists(declared(), max_size=2, min_size=1)), data.draw(st.integers(0, 2)))


@pytest.mark.parametrize("count", [0, 3])
def test_what_is_plainly_of_single_resources_is_not_prepared_with_all_others(count: int) -> None:
    with folder() as here:
        others = {"more.yaml": [("Container", f"more{number}", {"image": "i0"}) for number in range(count)]}
        edits: dict[str, list[Declared]] = {
            "c1.yaml": [("Container", "c1", {"image": "i0", "memory": "64MiB"})],
            "in/new.yaml": [("PortForward", "f0", {"target": "Container/c1", "listen": "127.0.0.1:1", "port": 80})],
            "v1.yaml": [*BASE["v1.yaml"], ("Disk", "k0", {"size": "1GiB", "attachTo": "VirtualMachine/v1"})],
            **others,
        }
        (here.path / "in" / "there.yaml").write_text(text([("Project", "j0", {})]))
        here.wanted = here.prepared.whole()
        for name, documents in edits.items():
            here.put(name, documents)
            assert here.again(name) == bool(documents), name


def test_what_matters_to_everything_is_prepared_as_a_whole() -> None:
    with folder() as here:
        (here.path / "environment.yaml").write_text("")
        assert not here.prepared.again([str(here.path / "environment.yaml")])
        (here.path / "environment.yaml").unlink()
        here.prepared.whole()
        assert here.prepared.again([str(here.path / "i.img")]) is None, "what an image is made of"
        here.prepared.whole()
        (here.path / "fresh").mkdir()
        (here.path / "fresh" / "a.yaml").write_text(text([("Project", "j1", {})]))
        assert here.prepared.again([str(here.path / "fresh" / "a.yaml")]) is None, "a folder that was not read yet"
        here.prepared.whole()
        assert here.prepared.again([str(here.path / "notes.txt")]) is not None, "nobody's file"


def test_below_an_environment_a_saved_file_is_composed_alone() -> None:
    with folder(ENVIRONMENT) as here:
        here.put("c1.yaml", [("Container", "c1", {"image": "i1"})])
        assert here.again("c1.yaml")
        spec = here.wanted.desired[ResourceId("Container", "c1")].spec
        assert spec["memory"] == {"size": 128 << 20} and spec["power"] == "stopped"
        here.put("c0.yaml", [("Container", "c0", {"image": "i0", "host": "v0", "memory": "64MiB"})], comment=1)
        assert here.again("c0.yaml"), "the patch for its label is aimed at the other one still"
        assert here.wanted.desired[ResourceId("Container", "c0")].spec["memory"] == {"size": 64 << 20}
        here.put("in/there.yaml", [("Project", "j1", {})])
        assert not here.again("in/there.yaml"), "another one than before"
        here.put("c1.yaml", [("Container", "c1", {"image": "i1"})], comment=1)
        assert not here.again("c1.yaml"), "and now it is aimed at nothing"


def test_saving_again_and_again_leaves_nothing_behind() -> None:
    with folder() as here:
        extra = ("PortForward", "f0", {"target": "Container/c1", "listen": "127.0.0.1:1", "port": 80})

        def save(times: int) -> int:
            for number in range(times):
                memory = f"{64 + number % 7}MiB"
                here.put("c1.yaml", [("Container", "c1", {"image": f"i{number % 2}", "memory": memory})])
                here.put("new.yaml", [extra][: number % 2])
                names = ["c1.yaml", "new.yaml"]
                if not number % 2:
                    (here.path / "new.yaml").unlink()
                change = here.prepared.again([str(here.path / name) for name in names])
                assert change is not None and change.moved
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            sizes = [save(42) for _ in range(6)]
            # What is left behind is left by each save; another thread, or what is only made once, takes room once.
            assert min(after - before for before, after in pairwise(sizes)) < 4096, sizes
        finally:
            tracemalloc.stop()


def test_a_file_in_a_folder_that_others_can_write_by_now_is_not_taken() -> None:
    with folder() as here:
        here.put("c1.yaml", [("Container", "c1", {"image": "i1"})])
        here.path.chmod(0o777)
        assert not here.again("c1.yaml")
        here.path.chmod(0o700)
        here.prepared.whole()
        (here.path / "c1.yaml").chmod(0o666)
        assert not here.again("c1.yaml")
