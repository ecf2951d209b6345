"""The fast validator and the explaining one say the same, whatever they are given; and what is refused is explained."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler import manifest, schema
from reconciler.validation import explain
from reconciler.validation.accept import accepts, validator
from tests.support.manifests import problems, written

RICH = (
    ("Container", "image: images:debian/12\ncpus: {count: 0-1, max: 2}\nmemory: {size: 512M}\nprofiles: [a, b]\n"
     "config: {limits.processes: 5}\ndevices: {eth0: {type: nic, network: a}}\nready: {tcp: 22, timeout: 1.5m}\n"
     "files: [{path: /a, content: b, mode: '0644', owner: '0:0'}]\nrun: [{command: [a], when: start, timeout: 5s}]"),
    ("VirtualMachine", "cpus: {count: 1, max: 2}\nboot: {kernel: a, initrd: b, commandLine: c}\n"
     "disks: [{name: a, image: b, size: 1GiB}, {name: c, path: d, format: raw}]\n"
     "nics: [{name: a, type: bridge, bridge: b, mac: '52:54:00:00:00:01'}, {name: c, type: user}]"),
    ("Image", f"type: virtual-machine\nsource: {{url: 'https://a/b', sha256: {'0' * 64}, format: raw}}"),
    ("Image", f"type: container\nsource: {{server: 'https://a', alias: b, fingerprint: {'0' * 64}, protocol: lxd}}"),
    ("Device", "match: {usb: {vendor: '046d', product: c52b, serial: x}}\nattachTo: Container/a"),
    ("Device", "match: {usb: {bus: 1, port: '1.2'}}\nattachTo: Container/a"),
    ("Environment", "patches: [{target: {kind: Container}, json: [{op: add, path: /a, value: 1}]}]\nvalues: {A: 1}"),
)  # fmt: skip
DOCUMENTS = [dict(manifest.parse(written(kind, spec))[0].data) for kind, spec in RICH] + [
    example for kind in schema.kinds() for example in schema.load(kind)["examples"]
]
WORDS = ["a", "A", "web", "-a", "a-", "..", "/", "/a", "a:b", "images:x", "auto", "none", "running", "x", "1GiB", "5s"]
WORDS += ["0644", "00:00:00:00:00:00", "10.0.0.1/24", "Container/a", "bridge", "é", "٣", "５", "🦀"]
TRICKY = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(["", " ", "\n", "a\n", "1GiB\n", "5s\n", "a\r", "a\0b", "1 GiB", "a" * 64, "a" * 5000]),
    st.sampled_from([None, True, False, 0, 1, -1, 65535, 65536, 2**63 - 1, 1.0, 1.5, 1e300]),
    st.sampled_from([[], [[]], ["a"], ["a", "a"], [None], {}, {"a": "b"}, {"type": "nic"}, {"x": {"y": []}}]),
)
KEYS = st.sampled_from(
    ["x", "name", "kind", "type", "path", "size", "url", "sha256", "format", "build", "", "a\n", "🦀"]
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """One of the documents, changed in up to three places."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, document)
    return document


def _change(draw: st.DrawFn, document: Any) -> None:
    here = document
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        below = here[key]
        if isinstance(below, dict | list) and below and draw(st.booleans()):
            here = below
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            here[key] = copy.deepcopy(draw(TRICKY))
        elif what == "remove":
            del here[key]
        elif isinstance(here, dict):
            here[draw(KEYS)] = copy.deepcopy(draw(TRICKY))
        else:
            here.append(copy.deepcopy(draw(TRICKY)))
        return


@given(mutated())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_they_agree(document: Any) -> None:
    if not isinstance(document, dict):
        return
    said = explain.explain(document)
    assert accepts(document) == (not said), [finding.summary for finding in said]
    assert all(finding.summary and "Traceback" not in finding.summary for finding in said)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_they_agree_on_what_is_right(document: Any) -> None:
    assert accepts(document)
    assert explain.explain(document) == []


def every_pattern() -> list[str]:
    found: set[str] = set()
    pending: list[Any] = [schema.load(file) for file in (*schema.kinds(), "common", "policy")]
    while pending:
        node = pending.pop()
        pending += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        if isinstance(node, dict) and isinstance(node.get("pattern"), str):
            found.add(node["pattern"])
    return sorted(found)


@pytest.mark.parametrize("pattern", every_pattern())
def test_patterns_mean_the_same_to_both(pattern: str) -> None:
    from jsonschema_rs import Draft202012Validator as Fast
    from jsonschema_rs import RegexOptions

    fast = Fast({"pattern": pattern}, pattern_options=RegexOptions())
    slow = explain._compiled(pattern)
    seeds = [
        "a",
        "web",
        "1GiB",
        "5s",
        "/a",
        "auto",
        "0-3,5",
        "52:54:00:00:00:01",
        "10.0.0.1/24",
        "https://a/b",
        "0" * 64,
    ]
    seeds += [
        "Container/a",
        "VirtualMachine/a",
        "images:a/b",
        "0644",
        "0:0",
        "1.2",
        "0000:00:02.0",
        "/dev/x",
        "any",
        "a.b",
    ]
    seeds += ["046d:c52b", "046d:*", "127.0.0.1:80", "[::1]:80", "q35", "K", "A_1", "busybox", "*"]
    for seed in seeds:
        for text in (
            seed,
            seed + "\n",
            "\n" + seed,
            seed + "\r",
            seed + "\0",
            seed.upper(),
            seed + "٣",
            seed + " ",
            "",
        ):
            assert fast.is_valid(text) == bool(slow.search(text)), (pattern, text)


def test_every_pattern_takes_something_and_not_a_newline() -> None:
    for pattern in every_pattern():
        assert not explain._compiled(pattern).search("a\n"), pattern


@given(st.recursive(TRICKY, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3)))
@settings(max_examples=100, deadline=None)
def test_they_agree_on_policies(document: Any) -> None:
    if isinstance(document, dict):
        assert validator("policy")(document) == (not explain.explain_as("policy", document))


def test_the_registry_is_closed() -> None:
    outside = Draft202012Validator({"$ref": "https://example.org/x.json"}, registry=explain._registry())
    with pytest.raises(Exception, match="Unresolvable"):
        outside.is_valid(1)


@given(mutated())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_schema_takes_the_rest_can_look_at(document: Any) -> None:
    assert isinstance(problems(json.dumps(document)), list)
