"""Manifests drawn by Hypothesis: resources that refer to each other, clash, and are patched, in a few files."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

FILES = ["a.yaml", "b.yaml", "c.yaml", "in/a.yaml", "in/er/a.yaml", "z.yml"]
MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
CONTAINERS, MACHINES = ["c0", "c1", "c2"], ["v0", "v1"]
GUESTS = [*(f"Container/{name}" for name in CONTAINERS), *(f"VirtualMachine/{name}" for name in MACHINES)]
one_of = st.sampled_from
few: dict[str, Any] = {"min_size": 1, "max_size": 2}


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


def having(required: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    made = {key: one if isinstance(one, st.SearchStrategy) else st.just(one) for key, one in required.items()}
    return st.fixed_dictionaries(made, optional=fields)


PRINT = "ab" * 32
PINNED = {"server": "https://example.org", "fingerprint": PRINT}
IMAGE_SOURCES = one_of([{"build": {"recipe": "busybox"}}, PINNED])
PROXY = {"type": "proxy", "connect": "tcp:127.0.0.1:80"}
SPECS: dict[str, tuple[list[str], st.SearchStrategy[dict[str, Any]]]] = {
    "Container": (
        CONTAINERS,
        having(
            {"image": one_of(["i0", "i1", f"images:{PRINT}"]) | having({"source": IMAGE_SOURCES})},
            host=one_of(["local", "h0", "v0"]),
            profiles=st.just(["p0"]),
            memory=one_of(["64MiB", "1GiB"]),
            files=one_of([[{"path": "/x", "content": "text"}], [{"path": "/x", "source": "payload.txt"}]]),
            devices=one_of(
                [
                    {"web": {**PROXY, "listen": "tcp:127.0.0.1:8080"}},
                    {"eth0": {"type": "nic", "network": "n0"}},
                    {"data": {"type": "disk", "pool": "q0", "source": "o0", "path": "/data"}},
                ]
            ),
        ),
    ),
    "VirtualMachine": (
        MACHINES,
        some(
            lxd=st.just(True),
            nics=st.lists(one_of([{"name": "n", "mac": mac} for mac in MACS] + [{"name": "n"}]), max_size=1),
            disks=st.lists(
                one_of([{"name": "r", "image": "i2"}, {"name": "p", "path": "./d.img", "format": "raw"}]),
                max_size=2,
                unique_by=str,
            ),
        ),
    ),
    "Image": (["i0", "i1"], having({"type": "container", "source": IMAGE_SOURCES})),
    "Network": (["n0"], some(ipv4=one_of([{"address": "10.9.8.1/24"}, {"address": "auto"}]))),
    "Profile": (["p0"], some(config=st.just({"user.x": "1"}))),
    "StoragePool": (["q0"], having({"driver": "dir"})),
    "Project": (["j0"], some()),
    "Host": (["h0"], having({"lxd": one_of([{"virtualMachine": "v0"}, {"virtualMachine": "v1"}])})),
    "Share": (
        ["s0"],
        having(
            {
                "source": "./in",
                "mounts": st.lists(having({"target": one_of(GUESTS), "path": one_of(["/m", "/n"])}), **few),
            },
            readOnly=st.just(True),
        ),
    ),
    "PortForward": (
        ["f0", "f1"],
        having(
            {
                "target": one_of(GUESTS),
                "listen": one_of(["127.0.0.1:8080", "127.0.0.1:8081"]),
                "port": one_of([80, 81]),
            }
        ),
    ),
    "Disk": (
        ["k0", "k1"],
        having({"size": "1GiB"}, attachTo=one_of(GUESTS), mount=one_of(["/m", "/k"])),
    ),
    "Volume": (
        ["o0"],
        having(
            {"pool": "q0"},
            attachTo=st.lists(
                having({"target": one_of(GUESTS[: len(CONTAINERS)]), "path": one_of(["/m", "/o"])}), **few
            ),
        ),
    ),
}
BASE: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "i0.yaml": [("Image", "i0", {"type": "container", "source": {"build": {"recipe": "busybox"}}})],
    "i1.yaml": [("Image", "i1", {"type": "container", "source": PINNED})],
    "i2.yaml": [("Image", "i2", {"type": "virtual-machine", "source": {"file": "./i.img", "format": "raw"}})],
    "v0.yaml": [("VirtualMachine", "v0", {"lxd": True, "nics": [{"name": "n"}]})],
    "c0.yaml": [("Container", "c0", {"image": "i0", "host": "v0"})],
    "c1.yaml": [("Container", "c1", {"image": "i0"})],
    "q0.yaml": [("StoragePool", "q0", {"driver": "dir"})],
    "n0.yaml": [("Network", "n0", {}), ("Profile", "p0", {})],
    "v1.yaml": [("VirtualMachine", "v1", {"nics": [{"name": "n"}]}), ("Host", "h0", {"lxd": {"virtualMachine": "v0"}})],
}
Declared = tuple[str, str, dict[str, Any]]
ENVIRONMENT = """
apiVersion: reconciler/v1
kind: Environment
metadata: {name: patched}
spec:
  resources: [i0.yaml, i1.yaml, i2.yaml, v0.yaml, c0.yaml, c1.yaml, q0.yaml, n0.yaml, v1.yaml, in]
  values: {MEMORY: 128MiB}
  patches:
    - target: {kind: Container, labels: {l: m}}
      merge: {spec: {memory: "${MEMORY}"}}
    - target: {kind: Container, name: c1}
      json: [{op: add, path: /metadata/labels/patched, value: "yes"}]
    - target: {labels: {patched: "yes"}}
      merge: {spec: {power: stopped}}
"""


@st.composite
def declared(draw: st.DrawFn) -> Declared:
    kind = draw(one_of([*SPECS, "Container", "Container", "Share", "PortForward", "VirtualMachine"]))
    names, specs = SPECS[kind]
    return kind, draw(one_of(names)), draw(specs)


def text(documents: list[Declared], comment: int = 0) -> str:
    labels = {"l": "mn"[comment % 2]}
    made = [
        {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec}
        for kind, name, spec in documents
    ]
    return "# \n" * comment + "---\n".join(json.dumps(one) + "\n" for one in made)
