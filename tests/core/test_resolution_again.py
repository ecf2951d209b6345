"""resolution/again: what is resolved of a change alone is what resolving everything comes to, attachments above all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.manifest import Document, parse
from reconciler.model import Desired, ResourceId
from reconciler.problems import ManifestError
from reconciler.resolution import Surroundings, document_id, resolve
from reconciler.resolution.again import Anew, Resolution
from tests.support.drawn import GUESTS, having, one_of

Declared = tuple[str, str, dict[str, Any]]
Known = dict[ResourceId, Document]
AROUND = Surroundings(lambda path, _base: path.encode(), lambda _path: "1", {}, lambda _path: "char")
USB = {"vendor": "0403", "product": "6001"}
BASE: list[Declared] = [
    ("Image", "i0", {"type": "container", "source": {"build": {"recipe": "busybox"}}}),
    ("Network", "n0", {}),
    ("VirtualMachine", "v0", {"lxd": True, "nics": [{"name": "n"}]}),
    ("VirtualMachine", "v1", {"nics": [{"name": "n"}]}),
    ("Host", "h0", {"lxd": {"virtualMachine": "v0"}}),
    ("Container", "c0", {"image": "i0", "host": "v0"}),
    ("Container", "c1", {"image": "i0", "host": "h0"}),
    ("Container", "c2", {"image": "i0"}),
]
paths = one_of(["/m", "/n", "/o"])
SPECS = {
    "Container": having({"image": "i0"}, host=one_of(["v0", "h0"]), files=st.just([{"path": "/x", "source": "x"}])),
    "VirtualMachine": having(
        {"nics": one_of([[{"name": "n"}], [{"name": "n", "type": "bridge", "bridge": "n0"}]])}, lxd=st.just(True)
    ),
    "Network": having({}, host=one_of(["local", "v0"])),
    "Share": having(
        {
            "source": "./in",
            "mounts": st.lists(
                having({"target": one_of(GUESTS), "path": paths}),
                min_size=1,
                max_size=3,
                unique_by=lambda one: one["path"],
            ),
        },
        readOnly=st.booleans(),
    ),
    "PortForward": having(
        {"target": one_of(GUESTS), "listen": one_of(["127.0.0.1:1", "[::1]:2"]), "port": one_of([80, 81])}
    ),
    "Device": having(
        {
            "attachTo": one_of(GUESTS),
            "match": one_of([{"usb": USB}, *({"usb": {**USB, "serial": one}} for one in "123")]),
        }
    ),
    "Disk": having({"size": "1GiB", "attachTo": one_of(GUESTS)}, mount=paths),
}
NAMES = {
    "Container": ["c0", "c1", "c2"],
    "VirtualMachine": ["v0", "v1"],
    "Network": ["n0"],
    **{kind: ["a", "b", "c"] for kind in ("Share", "PortForward", "Device", "Disk")},
}


@st.composite
def edits(draw: st.DrawFn) -> Document | ResourceId:
    """A document to be put in, or the name of one to be taken out."""
    kind = draw(one_of(sorted(SPECS)))
    name = draw(one_of(NAMES[kind]))
    if draw(one_of([False, False, True])):
        return ResourceId(kind, name)
    return document(kind, name, draw(SPECS[kind]))


def document(kind: str, name: str, spec: dict[str, Any]) -> Document:
    made = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return parse(json.dumps(made), "/manifests/all.yaml")[0]


def base() -> Known:
    return {document_id(one): one for one in (document(*declared) for declared in BASE)}


def fresh(documents: Known) -> Resolution:
    found = Resolution()
    found.take(documents)
    found.update(list(documents), AROUND)
    return found


def from_scratch(documents: Known) -> dict[ResourceId, Desired] | None:
    try:
        return resolve(documents.values(), AROUND)
    except ManifestError:
        return None


def again(before: Resolution, after: Known, changed: set[ResourceId]) -> bool:
    """Whether it was right; then it is equal to what comes of all of it, and says what differs."""
    expected, old = from_scratch(after), before.desired
    try:
        before.take({id: after.get(id) for id in changed}, list(after))
        differing = before.update(changed, AROUND)
    except Anew:
        assert expected is None
        return False
    assert before.desired == expected
    assert differing == {id for id in old.keys() | expected.keys() if old.get(id) != expected.get(id)}
    return True


@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(edits(), min_size=1, max_size=3), min_size=1, max_size=8))
def test_what_is_resolved_again_is_what_all_of_it_comes_to(rounds: list[list[Document | ResourceId]]) -> None:
    documents, resolved = base(), fresh(base())
    for changes in rounds:
        after, changed = dict(documents), set()
        for one in changes:
            id = one if isinstance(one, ResourceId) else document_id(one)
            after.pop(id, None)
            if isinstance(one, Document):
                after[id] = one
            changed.add(id)
        if again(resolved, after, changed):
            documents = after
        else:
            resolved = fresh(documents)


TOWER: list[Declared] = [
    *BASE,
    ("Share", "s", {"source": "./in", "mounts": [{"target": "Container/c0", "path": "/m"}]}),
    ("PortForward", "f", {"target": "Container/c0", "listen": "127.0.0.1:1", "port": 80}),
    ("Device", "a", {"attachTo": "Container/c0", "match": {"usb": {**USB, "serial": "1"}}}),
    ("Device", "b", {"attachTo": "VirtualMachine/v0", "match": {"usb": {**USB, "serial": "2"}}}),
    ("Disk", "k", {"size": "1GiB", "attachTo": "Container/c0", "mount": "/k"}),
    ("Disk", "o", {"size": "1GiB", "attachTo": "VirtualMachine/v0"}),
]


@pytest.mark.parametrize(
    ("declared", "right"),
    [
        (("PortForward", "f", {"target": "Container/c0", "listen": "127.0.0.1:1", "port": 81}), True),
        (("PortForward", "f", {"target": "Container/c2", "listen": "127.0.0.1:1", "port": 80}), True),
        (("Container", "c0", {"image": "i0"}), False),
        (("Container", "c0", {"image": "i0", "host": "h0"}), True),
        (("Device", "b", {"attachTo": "VirtualMachine/v1", "match": {"usb": USB}}), True),
        (("Device", "b", {"attachTo": "VirtualMachine/v0", "match": {"usb": USB}}), False),
        (("Disk", "k", {"size": "1GiB", "attachTo": "Container/c0", "mount": "/m"}), False),
        (("Disk", "k", {"size": "1GiB", "attachTo": "VirtualMachine/v1"}), True),
        (("VirtualMachine", "v0", {"lxd": True, "nics": [{"name": "n"}], "memory": "1GiB"}), True),
        (("VirtualMachine", "v0", {"lxd": True}), False),
        (("Network", "n0", {"host": "v0"}), True),
    ],
)
def test_what_is_attached_together_is_resolved_together(declared: Declared, right: bool) -> None:
    documents = {document_id(one): one for one in (document(*one) for one in TOWER)}
    changed = document(*declared)
    after = {**documents, document_id(changed): changed}
    assert again(fresh(documents), after, {document_id(changed)}) == right


def test_what_would_need_itself_is_seen() -> None:
    bridged = {"lxd": True, "nics": [{"name": "n", "type": "bridge", "bridge": "n0"}]}
    machine, network = document("VirtualMachine", "v0", bridged), document("Network", "n0", {"host": "v0"})
    documents = {**base(), document_id(machine): machine}
    assert not again(fresh(documents), {**documents, document_id(network): network}, {document_id(network)})


def test_a_file_beside_the_manifests_is_known_by_whoever_reads_it() -> None:
    reading = document("Container", "c2", {"image": "i0", "files": [{"path": "/x", "source": "x"}]})
    resolved = fresh({**base(), document_id(reading): reading})
    assert resolved.files() == {"/manifests/x"}
    assert resolved.update((), AROUND, ["/manifests/x"]) == set(), "as before"
    other = Surroundings(lambda _path, _base: b"other", lambda _path: "1", {})
    assert resolved.update((), other, ["/manifests/x"]) == {document_id(reading)}
