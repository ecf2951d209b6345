"""composition: whatever patches do to a document, every value of it is found where it was written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.composition import compose
from reconciler.composition.origins import Patched
from reconciler.manifest import Document, parse
from reconciler.problems import ManifestError

TARGET = {"kind": "Container", "name": "web"}
Path = tuple[str | int, ...]


def document(kind: str, name: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def patched(spec: Any, patches: list[Any]) -> Document:
    """Through as many environments inside of each other as there are patches, which is how the next one sees it."""
    files = {"web.yaml": json.dumps(document("Container", "web", spec))}
    inner = "web.yaml"
    for number, patch in enumerate(patches):
        name = f"e{number}.yaml"
        files[name] = json.dumps(document("Environment", f"e{number}", {"resources": [inner], "patches": [patch]}))
        inner = name
    composed = compose(parse(files[inner], inner), lambda path: parse(files[path], path))
    return composed.documents[0]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*path, key))
    else:
        yield path, value


def at(data: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Of everything in it, itself left out."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(one, (*path, key))


def room(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where something can be added."""
    if isinstance(value, dict):
        yield (*path, "new")
    elif isinstance(value, list):
        yield from ((*path, index) for index in range(len(value) + 1))
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from room(one, (*path, key))


def pointer(path: Path) -> str:
    return "/spec/" + "/".join(map(str, path))


def merging(path: Path, value: Any) -> Any:
    """A merge patch for the place, as far as mappings lead to it."""
    names = list(itertools.takewhile(lambda part: isinstance(part, str), path))
    for name in reversed(names):
        value = {name: value}
    return value


def drawn(data: st.DataObject, spec: Any, fresh: Iterator[int]) -> Any:
    """A patch that can be applied to the spec, and brings values that nothing else has."""
    makers: list[Callable[[], Any]] = [
        lambda: next(fresh),
        lambda: [next(fresh), next(fresh)],
        lambda: {"x": next(fresh), "y": [next(fresh)]},
    ]
    value = data.draw(st.sampled_from(makers))()
    there, free = list(places(spec)), list(room(spec))
    verb = data.draw(st.sampled_from(["add", "replace", "remove", "move", "copy", "merge"] if there else ["add"]))
    if verb == "add":
        return {
            "target": TARGET,
            "json": [{"op": "add", "path": pointer(data.draw(st.sampled_from(free))), "value": value}],
        }
    at = data.draw(st.sampled_from(there))
    if verb == "merge":
        return {"target": TARGET, "merge": {"spec": merging(at, data.draw(st.sampled_from([value, None])))}}
    operation = {"op": verb, "path": pointer(at), **({"value": value} if verb == "replace" else {})}
    if verb in ("move", "copy"):
        operation = {"op": verb, "from": pointer(at), "path": pointer(data.draw(st.sampled_from(free)))}
    return {"target": TARGET, "json": [operation]}


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 6))
def test_every_value_is_found_where_it_was_written(data: st.DataObject, steps: int) -> None:
    fresh = itertools.count(100)
    spec = {"a": [1, 2, 3], "b": {"c": [4, {"d": 5}, 6], "e": 7}}
    done: list[Any] = []
    found = patched(spec, done)
    for _ in range(steps):
        patch = drawn(data, found.data["spec"], fresh)
        try:
            found = patched(spec, [*done, patch])
        except ManifestError:
            continue  # moved into itself, or behind the end of a list that got shorter by that: told elsewhere
        done.append(patch)
    for path, value in leaves(found.data):
        if isinstance(found.origins, Patched):
            written, place = found.origins.trace(path)
            assert at(written.data, place) == value, (path, place, done)


@given(st.text(alphabet="$${}{}NAB_ x", max_size=40))
def test_what_is_escaped_stays_as_it_is(text: str) -> None:
    document_ = document("Container", "web", {"x": text.replace("${", "$${")})
    files = {"web.yaml": json.dumps(document_)}
    files["e.yaml"] = json.dumps(document("Environment", "e", {"resources": ["web.yaml"], "values": {"A": "no"}}))
    found = compose(parse(files["e.yaml"], "e.yaml"), lambda path: parse(files[path], path))
    assert found.documents[0].data["spec"]["x"] == text
