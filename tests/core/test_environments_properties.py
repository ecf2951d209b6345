"""composition: whatever patches do to a document, every value of it is found where it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.composition import compose
from reconciler.composition.origins import Patched
from reconciler.manifest import Document, parse
from reconciler.problems import ManifestError

KEYS = st.sampled_from(["a", "b", "c"])
LEAVES = st.integers(0, 10_000)
VALUES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3), max_leaves=6
)
MERGES = st.recursive(LEAVES | st.none(), lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=6)
PLACES = st.lists(st.sampled_from(["a", "b", "c", "0", "1", "2", "-"]), min_size=1, max_size=3).map(
    lambda parts: "/spec/" + "/".join(parts)
)
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.sampled_from(["add", "replace"]), "path": PLACES, "value": VALUES}),
    st.fixed_dictionaries({"op": st.just("remove"), "path": PLACES}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "from": PLACES, "path": PLACES}),
)
TARGET = {"kind": "Container", "name": "web"}
PATCHES = st.one_of(
    OPERATIONS.map(lambda one: {"target": TARGET, "json": [one]}),
    st.dictionaries(KEYS, MERGES, min_size=1, max_size=3).map(lambda one: {"target": TARGET, "merge": {"spec": one}}),
)


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


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3), st.lists(PATCHES, min_size=1, max_size=6))
def test_every_value_is_found_where_it_was_written(spec: Any, patches: list[Any]) -> None:
    done: list[Any] = []
    for patch in patches:
        try:
            patched(spec, [*done, patch])
        except ManifestError:
            continue  # it leads nowhere: told elsewhere
        done.append(patch)
    found = patched(spec, done)
    for path, value in leaves(found.data):
        if isinstance(found.origins, Patched):
            written, place = found.origins.trace(path)
            assert at(written.data, place) == value, (path, place, done)
