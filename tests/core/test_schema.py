"""The schemas as a source of truth: every field explained, every example and default valid, every pattern safe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from reconciler import schema
from reconciler.validation import explain
from reconciler.validation.accept import validator

FILES = (*schema.kinds(), "policy")


def every_schema(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a schema file that is a schema or a group of them."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            if key not in ("examples", "default", "enum", "const"):
                yield from every_schema(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from every_schema(value, f"{path}/{index}")


EVERY = [(file, path, node) for file in (*FILES, "common") for path, node in every_schema(schema.load(file))]


@pytest.mark.parametrize("name", (*FILES, "common"))
def test_it_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(dict(schema.load(name)))


@pytest.mark.parametrize("kind", FILES)
def test_every_field_is_explained(kind: str) -> None:
    for path, field in schema.walk(kind):
        described = field.get("description", "-")
        assert len(field.get("title", "")) > 1, path
        assert described.endswith("."), path
        assert described[0].isupper() or described[0] == '"', path
        assert schema.type_name(field), path


@pytest.mark.parametrize("kind", schema.kinds())
def test_explain_finds_every_field(kind: str) -> None:
    for path in schema.fields(kind):
        found = schema.explain(kind, path.split("."))
        assert (found.kind, found.path) == (kind, path)
        assert found.title
        assert [field.path for field in found.fields] == [
            f"{path}.{name}" for name in schema.names(kind, path.split("."))
        ]


def test_explain_says_what_the_schema_says() -> None:
    found = schema.explain("Container", ["power"])
    assert found.path == "spec.power"
    assert (found.default, found.has_default, found.choices) == ("running", True, ("running", "stopped", "paused"))
    assert not found.required
    assert schema.explain("Container", ["spec", "image"]).required
    memory = schema.explain("VirtualMachine", ["memory"])
    assert memory.type == "text or integer or mapping"
    assert memory.default == "512MiB"
    assert [(field.name, field.required) for field in memory.fields] == [("size", True), ("max", False)]
    top = schema.explain("Disk")
    assert [field.name for field in top.fields] == ["apiVersion", "kind", "metadata", "spec"]


def test_lists_explain_their_entries() -> None:
    assert schema.explain("VirtualMachine", ["nics", "model"]).default == "virtio-net-pci"


@pytest.mark.parametrize("path", [["memroy"], ["memory", "sise"], ["cpus", "count", "x"]])
def test_explain_of_what_is_not_there(path: list[str]) -> None:
    with pytest.raises(KeyError):
        schema.explain("Container", path)


@pytest.mark.parametrize("path", [["config", "limits.cpu"], ["config", "limits", "cpu"], ["devices", "eth0"]])
def test_what_is_below_a_raw_map_is_explained_by_the_map(path: list[str]) -> None:
    assert schema.explain("Container", path).path == f"spec.{path[0]}"


def test_no_such_kind() -> None:
    for ask in (schema.load, schema.defaults, schema.fields, schema.explain):
        with pytest.raises(KeyError):
            ask("Pod")


@pytest.mark.parametrize("kind", FILES)
def test_examples_and_defaults_are_valid(kind: str) -> None:
    for example in schema.load(kind).get("examples", ()):
        assert validator(kind)(example)
    for path, field in schema.walk(kind):
        one = Draft202012Validator({**field, "$defs": schema.load("common")["$defs"]}, registry=explain._registry())
        for value in (*field.get("examples", ()), *([field["default"]] if "default" in field else ())):
            assert not list(one.iter_errors(value)), f"{path}: {value!r}"


def test_every_kind_has_an_example() -> None:
    assert [kind for kind in schema.kinds() if not schema.load(kind).get("examples")] == []


@pytest.mark.parametrize("kind", FILES)
def test_every_field_shows_what_may_be_written(kind: str) -> None:
    shows = {"examples", "default", "enum", "properties", "items", "x-expected"}
    silent = {path for path, field in schema.walk(kind) if not shows & set(field) and field.get("type") != "boolean"}
    assert silent <= set(_FREE)


_FREE = (
    "spec.patches.merge",
    "spec.patches.json.path",
    "spec.patches.json.from",
    "spec.patches.json.value",
    "spec.match.usb.bus",
)


def test_unknown_fields_are_refused_everywhere() -> None:
    maps = {
        path.rpartition("/")[2]
        for file, path, node in EVERY
        if "properties" in node and node.get("type") and node.get("additionalProperties") is not False
    }
    assert maps == {"additionalProperties", "emulate"}  # LXD's raw devices, and a QEMU driver's own options


def test_patterns_are_anchored_and_bounded() -> None:
    for file, path, node in EVERY:
        if isinstance(pattern := node.get("pattern"), str):
            where = f"{file}{path}"
            assert pattern.startswith("^"), where
            assert pattern.endswith("$"), where
            assert "maxLength" in node or "enum" in node or pattern == "^any$", where
            assert not any(odd in pattern for odd in ("\\d", "\\w", "\\s", "(?", "\\1")), where


def test_references_stay_at_home() -> None:
    references = {node["$ref"] for _file, _path, node in EVERY if "$ref" in node}
    assert {one.partition("#")[0] for one in references} == {"", "common.json"}


def test_defaults_are_those_of_the_contract() -> None:
    common = {"protect": False}
    guest = common | {"power": "running", "imagePolicy": "create", "deletionPolicy": "delete"}
    lxd = common | {"host": "local", "deletionPolicy": "delete"}
    assert dict(schema.defaults("Container")) == guest | lxd
    assert dict(schema.defaults("VirtualMachine")) == guest | {
        "cpus": 1,
        "memory": "512MiB",
        "machine": "q35",
        "accelerator": "auto",
        "cpuModel": "max",
        "firmware": "bios",
        "guestAgent": True,
        "restart": "on-failure",
        "tpm": False,
    }
    assert dict(schema.defaults("Network")) == lxd | {"type": "bridge"}
    assert dict(schema.defaults("Volume")) == lxd | {"pool": "default", "deletionPolicy": "retain"}
    assert dict(schema.defaults("Disk")) == common | {"format": "qcow2", "deletionPolicy": "retain"}
    for kind in ("Profile", "StoragePool", "Project"):
        assert dict(schema.defaults(kind)) == lxd
    for kind in ("Host", "Image"):
        assert dict(schema.defaults(kind)) == common | {"deletionPolicy": "delete"}


def test_every_kind_can_be_retained_ignored_and_protected() -> None:
    for kind in schema.kinds():
        if kind != "Environment":
            assert {"deletionPolicy", "ignore", "protect"} <= set(schema.names(kind, ("spec",)))


@pytest.mark.parametrize(
    ("word", "meant"),
    [("container", "Container"), ("Contaner", "Container"), ("VIRTUALMACHINE", "VirtualMachine"), ("Pod", None)],
)
def test_near(word: str, meant: str | None) -> None:
    assert schema.near(word, schema.kinds()) == meant


def test_what_is_not_needed_is_not_imported() -> None:
    code = (
        "import sys; from reconciler import validation, manifest\n"
        "text = 'apiVersion: reconciler/v1\\nkind: Container\\nmetadata: {name: a}\\nspec: {image: b}\\n'\n"
        "assert validation.validate(manifest.parse(text)) == []\n"
        "heavy = {'jsonschema', 'referencing', 'pylxd', 'rich', 'asyncio', 'difflib', 'importlib.resources'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
