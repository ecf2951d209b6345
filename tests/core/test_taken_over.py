"""known: whatever became of the files, what is taken over comes to what preparing everything from scratch comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import again, known
from reconciler.manifest import parsing
from reconciler.model import ResourceId
from reconciler.validation import accept, checks
from tests.core.test_again import Folder, folder, saved
from tests.support.drawn import BASE, ENVIRONMENT, few, one_of, text

NAMES = ["a.yaml", "c.yaml", "in/a.yaml", "in/er/a.yaml", "fresh/a.yaml", "z.yml"]
SECRET = ENVIRONMENT.replace("  patches:", "  generators: {TOKEN: {file: payload.txt}}\n  patches:")
ENVIRONMENTS = [
    ENVIRONMENT,
    ENVIRONMENT.replace("128MiB", "256MiB"),
    f"# moved\n{ENVIRONMENT}",
    ENVIRONMENT.replace(", in]", ", in, fresh]"),
    ENVIRONMENT.replace("name: c1}", "name: c2}"),
    SECRET,
]


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """How many texts were parsed, and how often all of it was resolved, since this was asked last."""
    found = [0, 0]
    parse, scratch = parsing.parse, known.from_scratch

    def parsed(*words: object) -> object:
        found[0] += 1
        return parse(*words)  # type: ignore[arg-type]  # as it is called

    def resolved(*words: object) -> object:
        found[1] += 1
        return scratch(*words)  # type: ignore[arg-type]  # as it is called

    def since() -> tuple[int, int]:
        told = found[0], found[1]
        found[:] = [0, 0]
        return told

    monkeypatch.setattr(parsing, "parse", parsed)
    monkeypatch.setattr(again, "from_scratch", resolved)
    return since


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(1, 8), one_of([None, *ENVIRONMENTS[:1]]))
def test_whatever_changes_it_comes_to_what_it_comes_to_from_scratch(
    data: st.DataObject, rounds: int, environment: str | None
) -> None:
    with folder(environment) as here:
        for number in range(rounds):
            touched = data.draw(
                st.lists(one_of([*NAMES, *BASE, "payload.txt", "environment.yaml"]), unique=True, **few)
            )
            before = {name: (here.path / name).read_text() for name in touched if (here.path / name).exists()}
            for name in touched:
                written(data, here, name, number)
            expected = here.expected()
            here.whole(expected)
            if isinstance(expected, list) and data.draw(st.booleans()):  # most of what is drawn is wrong
                for name in touched:
                    (here.path / name).write_text(before[name]) if name in before else (here.path / name).unlink(True)
                here.whole(here.expected())


def written(data: st.DataObject, here: Folder, name: str, number: int) -> None:
    place = here.path / name
    place.parent.mkdir(exist_ok=True)
    if name == "environment.yaml":
        place.write_text(data.draw(one_of(ENVIRONMENTS)))
    else:
        saved(data, here, name, number)


def test_of_many_files_only_those_are_parsed_that_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below an environment, and without one; new ones, gone ones, a new folder, the environment itself."""
    since = counted(monkeypatch)
    for environment in (None, ENVIRONMENT.replace(", in]", ", in, fresh]")):
        with folder() as here:
            (here.path / "fresh").mkdir()
            (here.path / "fresh" / "p.yaml").write_text(text([("Profile", "fresh", {})]))
            if environment is not None:
                here.put("c1.yaml", [("Container", "c1", {"image": "i0"})])
                (here.path / "in" / "there.yaml").write_text(text([("Project", "j0", {})]))
                (here.path / "environment.yaml").write_text(environment)
            here.whole(here.expected())
            since()

            def taken_over(here: Folder = here) -> tuple[int, int]:
                now = here.prepared.whole()
                told = since()
                expected = here.expected()
                since()
                assert dict(now.desired) == dict(expected.desired)  # type: ignore[union-attr]  # it is right
                return told

            assert taken_over() == (0, 0), "nothing changed"
            (here.path / "in" / "new.yaml").write_text(text([("Project", "j1", {}), ("Project", "j2", {})]))
            assert taken_over() == (1, 0), "a new file"
            (here.path / "fresh" / "deep").mkdir()
            (here.path / "fresh" / "deep" / "a.yaml").write_text(text([("Project", "j3", {})]))
            assert taken_over() == (1, 0), "a new folder"
            here.put("c0.yaml", [("Container", "c0", {"image": "i1", "host": "v0"})])
            (here.path / "in" / "new.yaml").unlink()
            assert taken_over() == (1, 0), "one saved, one gone"
            if environment is not None:
                (here.path / "environment.yaml").write_text(environment.replace("128MiB", "192MiB"))
                assert taken_over() == (1, 0), "a value of the environment"
                spec = here.prepared.whole().desired[ResourceId("Container", "c1")].spec
                assert spec["memory"] == {"size": 192 << 20}
                since()
            here.put("c0.yaml", [("Container", "c0", {"image": "nowhere"})])
            assert isinstance(here.expected(), list)
            since()
            with pytest.raises(Exception, match=r"nowhere"):
                here.prepared.whole()
            assert since() == (1, 1), "what is wrong is told from scratch, and nothing else is parsed for it"


def test_what_is_right_is_not_validated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def accepts(data: Mapping[str, Any]) -> bool:
        asked.append(data["metadata"]["name"])
        return accept.accepts(data)

    monkeypatch.setattr(checks, "accepts", accepts)
    with folder() as here:
        asked.clear()
        for kind in ("i0", "i1"):
            here.put("c1.yaml", [("Container", "c1", {"image": kind})])
            here.prepared.whole()
        assert asked == ["c1", "c1"]
        (here.path / "c1.yaml").write_text("kind: [")
        with pytest.raises(Exception, match=r"c1\.yaml"):
            here.prepared.whole()
        assert asked == ["c1", "c1"], "nor while another one cannot be read"


def test_what_the_files_point_at_is_asked_again(tmp_path: Path) -> None:
    """An image's file, a payload, a secret: nobody tells a watch which resource is made of them."""
    with folder(SECRET) as here:
        (here.path / "source.txt").write_text("source")
        files = {"c1": {"path": "/s", "content": "${TOKEN}"}, "c0": {"path": "/p", "source": "source.txt"}}
        for name, file in files.items():
            here.put(f"{name}.yaml", [("Container", name, {"image": "i0", "files": [file]})], comment=2)
        here.whole(here.expected())
        for name, hangs in {"payload.txt": "Container/c1", "source.txt": "Container/c0", "i.img": "Image/i2"}.items():
            before = here.wanted
            (here.path / name).write_text(f"other {name}")
            here.whole(here.expected())
            assert {str(id) for id, want in here.wanted.desired.items() if want != before.desired[id]} == {hangs}


def test_a_patch_that_is_aimed_at_nothing_by_now_is_told() -> None:
    with folder(ENVIRONMENT) as here:
        here.put("c1.yaml", [("Container", "c9", {"image": "i0"})])
        expected = here.expected()
        assert isinstance(expected, list) and "there is no Container" in expected[0]
        here.whole(expected)
