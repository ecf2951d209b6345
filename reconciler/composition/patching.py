"""COMPOSE: patches of an Environment on what it lists: RFC 7396 merges and RFC 6902 operations. Their libraries' home.

Each patched document is copied first, and remembers what was done to it (origins), so that a problem with a value
points at the patch that brought it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jsonpatch
import jsonpointer
from json_merge_patch import merge

from reconciler.composition.documents import metadata_of, spec_of, subject_of
from reconciler.composition.gathering import Gathering, Part
from reconciler.composition.origins import Done, Patched
from reconciler.composition.pointers import Wrong, copied, count, depth, resolve
from reconciler.manifest import Document, locate
from reconciler.problems import Problem

MAX_DEPTH = 64
MAX_ADDED = 100_000
"""Values that patches of one environment may add to one resource."""
MAX_GROWN = 1_000_000
"""Values that all patches together may add."""
_FIXED = ("apiVersion", "kind")
_NEEDS = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}

Path = tuple[str | int, ...]


def patch(gathering: Gathering, environment: Document, parts: Sequence[Part]) -> None:
    """Apply the Environment's patches, in their order, to all that it led to."""
    named = {(one.document.data.get("kind"), metadata_of(one.document).get("name")): one for one in parts}
    for index, one in enumerate(spec_of(environment)["patches"]):
        path: Path = ("spec", "patches", index)
        target = one["target"]
        if "kind" in target and "name" in target:
            found = named.get((target["kind"], target["name"]))
            matching = [found] if found is not None and _matches(found.document, target) else []
        else:
            matching = [part for part in parts if _matches(part.document, target)]
        if not matching:
            gathering.problems.append(_aimless(environment, (*path, "target"), target, parts))
        aim = (environment.file, environment.index, index)
        for part in matching:
            if not part.failed:
                _patch_one(gathering, environment, path, one, part)
                part.aimed = (*part.aimed, aim)


def patch_alone(gathering: Gathering, environment: Document, part: Part) -> None:
    """Apply those of the Environment's patches that are aimed at this one; of others nothing is asked."""
    for index, one in enumerate(spec_of(environment).get("patches") or ()):
        if not part.failed and _matches(part.document, one["target"]):
            _patch_one(gathering, environment, ("spec", "patches", index), one, part)
            part.aimed = (*part.aimed, (environment.file, environment.index, index))


def _matches(document: Document, target: Mapping[str, Any]) -> bool:
    metadata = metadata_of(document)
    labels = metadata.get("labels")
    given = labels if isinstance(labels, Mapping) else {}
    return (
        target.get("kind", document.data.get("kind")) == document.data.get("kind")
        and target.get("name", metadata.get("name")) == metadata.get("name")
        and all(given.get(key) == value for key, value in target.get("labels", {}).items())
    )


def _patch_one(gathering: Gathering, environment: Document, path: Path, one: Mapping[str, Any], part: Part) -> None:
    """Patch one document; a problem leaves it out of everything that follows."""
    before = part.document
    work = _Work(environment, copied(before.data))
    place: Path = path
    try:
        if "merge" in one:
            place = (*path, "merge")
            work.merge(place, one["merge"])
        for number, operation in enumerate(one.get("json", ())):
            place = (*path, "json", number)
            work.operate(place, operation)
        _check_whole(before, work.data)
        gathering.grown += work.added
        if gathering.grown > MAX_GROWN:
            raise Wrong(f"patches add more than {MAX_GROWN} values", "patch fewer resources, or with less")
    except Wrong as wrong:
        part.failed = True
        mark = locate(environment, (*place, *wrong.below))
        gathering.problems.append(Problem(wrong.summary, mark, subject_of(before), hint=wrong.hint))
        return
    done: tuple[Done, ...] = tuple(work.done)
    origins = before.origins.further(done) if isinstance(before.origins, Patched) else Patched(before, done)
    part.document = replace(before, data=work.data, floats=before.floats or environment.floats, origins=origins)


def _check_whole(before: Document, after: Any) -> None:
    """What a document is called is what others (and patches) know it by."""
    kept = isinstance(after, dict) and all(after.get(name) == before.data.get(name) for name in _FIXED)
    metadata = after.get("metadata") if kept else None
    if not isinstance(metadata, dict) or metadata.get("name") != metadata_of(before).get("name"):
        raise Wrong("a patch cannot change what a resource is or is called", "declare another one; names may hold ${…}")


class _Work:
    """A document being patched. done: what was done, for origins; added: how many values came in."""

    def __init__(self, environment: Document, data: dict[str, Any]) -> None:
        self.environment = environment
        self.data = data
        self.done: list[Done] = []
        self.added = 0

    def merge(self, place: Path, given: Mapping[str, Any]) -> None:
        """RFC 7396: what is given replaces, null removes."""
        self.added += count(given)
        merge(self.data, copied(given))
        self.done.append(Done("merge", (), self.environment, place, value=given))

    def operate(self, place: Path, operation: Mapping[str, Any]) -> None:
        """One RFC 6902 operation. Raises Wrong."""
        name = operation["op"]
        if (needed := _NEEDS.get(name)) is not None and needed not in operation:
            raise Wrong(f'{name}: missing "{needed}"')
        given = {key: copied(value) for key, value in operation.items()}
        source = resolve(self.data, given["from"], new=False, below=("from",)) if needed == "from" else ()
        value = given["value"] if needed == "value" else self._at(source)
        if name == "move":  # as RFC 6902 has it: places in lists are counted once the value is gone
            self._apply(name, {"op": "remove", "path": given["from"]})
        at = resolve(self.data, given["path"], new=name in ("add", "move", "copy"), below=("path",))
        if not at and name != "test":
            raise Wrong(f"{name}: the whole document", "a patch changes part of it", below=("path",))
        self._bound(name, at, value)
        if name in ("move", "copy"):
            given = {"op": "add", "path": given["path"], "value": copied(value)}
        self._apply(name, given)
        self.done.append(Done(name, at, self.environment, (*place, "value"), source))

    def _apply(self, name: str, operation: dict[str, Any]) -> None:
        try:
            jsonpatch.JsonPatch([operation]).apply(self.data, in_place=True)
        except jsonpatch.JsonPatchTestFailed:
            found = _shown(self._at(resolve(self.data, operation["path"], new=False, below=("path",))))
            hint = "the patch was made for something else"
            raise Wrong(f"test: {operation['path']} is {found}", hint) from None
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, LookupError) as error:
            raise Wrong(f"{name}: {error}") from None

    def _bound(self, name: str, at: Path, value: Any) -> None:
        if name in ("remove", "test"):
            return
        if len(at) + depth(value) > MAX_DEPTH:
            raise Wrong(f"{name}: deeper than {MAX_DEPTH} levels", "no manifest needs that")
        self.added += count(value)
        if self.added > MAX_ADDED:
            raise Wrong(f"patches add more than {MAX_ADDED} values", "patch with less")

    def _at(self, path: Path) -> Any:
        here: Any = self.data
        for part in path:
            here = here[part]
        return here


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else "a mapping" if isinstance(value, dict) else "a list"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _aimless(environment: Document, path: Path, target: Mapping[str, Any], parts: Sequence[Part]) -> Problem:
    """A patch that changes nothing was meant for something."""
    wanted = [*([target["kind"]] if "kind" in target else []), *([f'"{target["name"]}"'] if "name" in target else [])]
    labels = ", ".join(f"{key}={value}" for key, value in target.get("labels", {}).items())
    summary = f"target: there is no {' '.join(wanted) or 'resource'}{f' with {labels}' if labels else ''} below"
    return Problem(summary, locate(environment, path), subject_of(environment), hint=_meant(target, parts))


def _meant(target: Mapping[str, Any], parts: Sequence[Part]) -> str:
    close: Callable[[Part], bool] = lambda part: target.get("kind") in (None, part.document.data.get("kind"))  # noqa: E731
    names = [str(metadata_of(part.document).get("name")) for part in parts if close(part)]
    if "name" in target and (near := difflib.get_close_matches(target["name"], names, n=1)):
        return f'did you mean "{near[0]}"?'
    listed = ", ".join(sorted(subject_of(part.document) for part in parts)[:8])
    return f"there are: {listed}" if listed else "resources lists nothing"
