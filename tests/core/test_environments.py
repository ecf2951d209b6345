"""composition: patches, values and generators; what they come to, where it was written, and every way to get it wrong."""

# ruff: noqa: E501  a table reads best with one case a line
from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import preparation
from reconciler.composition import Composition, Generator, compose, recipe, template
from reconciler.composition.patching import MAX_ADDED
from reconciler.composition.values import MAX_GROWTH
from reconciler.manifest import Document, locate, parse
from reconciler.problems import ManifestError

WEB = """\
apiVersion: reconciler/v1
kind: Container
metadata: {name: web, labels: {tier: front, stage: "${STAGE}"}}
spec:
  image: busybox
  memory: 64MiB
  files:
  - {path: /a, content: first}
  - {path: /b, content: second}
"""
DB = "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: db}\nspec: {image: busybox}\n"


def environment(name: str, **spec: Any) -> str:
    """In block style down to the entries of lists, one a line, so that places can be told."""
    lines = [f"apiVersion: reconciler/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec:"]
    for key, value in spec.items():
        lines.append(f"  {key}:")
        rows = [f"  - {json.dumps(one)}" for one in value] if isinstance(value, list) else []
        rows = [f"    {one}: {json.dumps(part)}" for one, part in value.items()] if isinstance(value, dict) else rows
        lines += rows or [f"    {json.dumps(value)}"]
    return "\n".join(lines) + "\n"


def composed(files: Mapping[str, str], order: int = 1) -> Composition:
    """From files in memory; ``environment.yaml`` is the outermost."""

    def load(path: str) -> list[Document]:
        names = sorted((name for name in files if name == path or name.startswith(f"{path}/")), reverse=order < 0)
        if (inner := f"{path}/environment.yaml") in names:
            names = [inner]
        return [document for name in names for document in parse(files[name], name)]

    return compose(parse(files["environment.yaml"], "environment.yaml"), load)


def lab(*patches: Any, **spec: Any) -> dict[str, str]:
    whole = {"resources": ["web.yaml", "db.yaml"], "values": {"STAGE": "lab"}, "patches": list(patches), **spec}
    return {"environment.yaml": environment("lab", **whole), "web.yaml": WEB, "db.yaml": DB}


def web(composition: Composition) -> Document:
    return next(one for one in composition.documents if one.data["metadata"]["name"] == "web")


def place(document: Document, *path: str | int) -> str:
    return str(locate(document, path)).rsplit(":", 1)[0]


def problems(files: Mapping[str, str]) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        composed(files)
    return [str(one).splitlines()[0] for one in caught.value.problems]


ON_WEB = {"kind": "Container", "name": "web"}
MERGES = [
    ({"spec": {"memory": "1GiB"}}, ("spec", "memory"), "1GiB"),
    ({"spec": {"memory": {"size": "1GiB"}}}, ("spec", "memory"), {"size": "1GiB"}),
    ({"spec": {"memory": None}}, ("spec",), {"image": "busybox", "files": [{"path": "/a", "content": "first"}, {"path": "/b", "content": "second"}]}),
    ({"spec": {"files": []}}, ("spec", "files"), []),
    ({"metadata": {"labels": {"new": "x"}}}, ("metadata", "labels"), {"tier": "front", "stage": "lab", "new": "x"}),
]  # fmt: skip


def at(document: Document, path: tuple[str | int, ...]) -> Any:
    value: Any = document.data
    for part in path:
        value = value[part]
    return value


@pytest.mark.parametrize(("merge", "path", "value"), MERGES)
def test_a_merge_replaces_what_it_names_and_null_removes(merge: Any, path: tuple[str, ...], value: Any) -> None:
    assert at(web(composed(lab({"target": ON_WEB, "merge": merge}))), path) == value


OPERATIONS = [
    ({"op": "add", "path": "/spec/cpus", "value": 2}, ("spec", "cpus"), 2),
    ({"op": "replace", "path": "/spec/memory", "value": "1GiB"}, ("spec", "memory"), "1GiB"),
    ({"op": "remove", "path": "/spec/files/0"}, ("spec", "files"), [{"path": "/b", "content": "second"}]),
    ({"op": "add", "path": "/spec/files/-", "value": {"path": "/c"}}, ("spec", "files", 2), {"path": "/c"}),
    ({"op": "move", "from": "/spec/files/0", "path": "/spec/files/1"}, ("spec", "files", 1, "path"), "/a"),
    ({"op": "move", "from": "/spec/files/0", "path": "/spec/files/-"}, ("spec", "files", 1, "path"), "/a"),
    ({"op": "copy", "from": "/spec/files/0/content", "path": "/spec/files/1/content"}, ("spec", "files", 1, "content"), "first"),
    ({"op": "add", "path": "/metadata/labels/a~1b~0c", "value": "x"}, ("metadata", "labels", "a/b~c"), "x"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "path", "value"),
    OPERATIONS,
    ids=lambda one: one["op"] if isinstance(one, dict) and "op" in one else "",
)
def test_an_operation_does_what_rfc_6902_says(operation: Any, path: tuple[str | int, ...], value: Any) -> None:
    assert at(web(composed(lab({"target": ON_WEB, "json": [operation]}))), path) == value


def test_every_value_knows_where_it_was_written() -> None:
    found = web(
        composed(
            lab(
                {"target": ON_WEB, "merge": {"spec": {"cpus": 1, "ready": {"ip": True}}}},
                {"target": {"labels": {"tier": "front"}}, "json": [{"op": "add", "path": "/spec/files/0", "value": {"path": "/0"}}, {"op": "remove", "path": "/spec/files/1"}]},
                {"target": ON_WEB, "json": [{"op": "copy", "from": "/spec/files/1", "path": "/spec/files/0"}]},
            )
        )
    )  # fmt: skip
    assert [one["path"] for one in found.data["spec"]["files"]] == ["/b", "/0", "/b"]
    patches = "environment.yaml:{}".format
    assert place(found, "spec", "cpus") == patches(11)
    assert place(found, "spec", "ready") == place(found, "spec", "ready", "ip") == patches(11)
    assert place(found, "spec", "files", 1, "path") == patches(12)
    assert place(found, "spec", "files", 0, "path") == place(found, "spec", "files", 2, "path") == "web.yaml:9"
    assert place(found, "spec", "memory") == "web.yaml:6" and place(found, "metadata", "name") == "web.yaml:3"


def test_inner_patches_come_first_and_outer_values_win() -> None:
    found = web(
        composed(
            {
                "environment.yaml": environment("outer", resources=["inner"], values={"STAGE": "outer"}, patches=[{"target": ON_WEB, "json": [{"op": "test", "path": "/spec/cpus", "value": 1}, {"op": "replace", "path": "/spec/cpus", "value": 2}]}]),
                "inner/environment.yaml": environment("inner", resources=["web.yaml"], values={"STAGE": "inner", "SIZE": 3}, patches=[{"target": ON_WEB, "merge": {"spec": {"cpus": 1, "memory": "${SIZE}MiB", "config": {"limits.processes": "${SIZE}"}}}}]),
                "inner/web.yaml": WEB,
            }
        )
    )  # fmt: skip
    assert found.data["spec"]["cpus"] == 2
    assert found.data["metadata"]["labels"]["stage"] == "outer"
    assert found.data["spec"]["memory"] == "3MiB" and found.data["spec"]["config"] == {"limits.processes": 3}


TEXTS = [
    ("${N}", 5), ("${B}", True), ("${T}", "x y"), ("a${N}b", "a5b"), ("${B}!", "true!"), ("$${N}", "${N}"), ("$$${N}", "$${N}"),
    ("${N}${N}", "55"), ("$N", "$N"), ("${}", "${}"), ("${N:-1}", "${N:-1}"), ("${E}", "${N}"), ("${ N }", "${ N }"), ("$", "$"), ("${", "${"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TEXTS)
def test_what_stands_for_a_value(text: str, value: Any) -> None:
    files = lab(
        {"target": ON_WEB, "merge": {"spec": {"x": text}}},
        values={"STAGE": "s", "N": 5, "B": True, "T": "x y", "E": "$${N}"},
    )
    found = web(composed(files)).data["spec"]["x"]
    assert found == value and type(found) is type(value)


WRONG = [
    (lab({"target": {"kind": "Container", "name": "wbe"}, "merge": {}}), 'environment.yaml:11:6: Environment/lab: target: there is no Container "wbe" below'),
    (lab({"target": {"labels": {"tier": "back"}}, "merge": {}}), "environment.yaml:11:6: Environment/lab: target: there is no resource with tier=back below"),
    (lab({"target": ON_WEB, "json": [{"op": "remove", "path": "/spec/cpus"}]}), 'environment.yaml:11:88: Container/web: /spec/cpus: there is no "cpus"'),
    (lab({"target": ON_WEB, "json": [{"op": "add", "path": "spec/cpus", "value": 1}]}), 'environment.yaml:11:85: Container/web: "spec/cpus": a JSON pointer begins with "/"'),
    (lab({"target": ON_WEB, "json": [{"op": "add", "path": "/spec/files/9", "value": 1}]}), "environment.yaml:11:85: Container/web: /spec/files/9: the list has 2 entries"),
    (lab({"target": ON_WEB, "json": [{"op": "add", "path": "/spec/files/01", "value": 1}]}), 'environment.yaml:11:85: Container/web: /spec/files/01: expected a place in the list, got "01"'),
    (lab({"target": ON_WEB, "json": [{"op": "add", "path": "/spec/memory/x", "value": 1}]}), 'environment.yaml:11:85: Container/web: /spec/memory/x: there is nothing below, so no "x"'),
    (lab({"target": ON_WEB, "json": [{"op": "add", "path": "/spec/cpus"}]}), 'environment.yaml:11:63: Container/web: add: missing "value"'),
    (lab({"target": ON_WEB, "json": [{"op": "move", "from": "/spec", "path": "/spec/x"}]}), 'Container/web: /spec/x: there is no "spec"'),
    (lab({"target": ON_WEB, "json": [{"op": "replace", "path": "", "value": 1}]}), "Container/web: replace: the whole document"),
    (lab({"target": ON_WEB, "json": [{"op": "test", "path": "/spec/memory", "value": 1}]}), "Container/web: test: /spec/memory is '64MiB'"),
    (lab({"target": ON_WEB, "merge": {"kind": "Project"}}), "Container/web: a patch cannot change what a resource is"),
    (lab({"target": ON_WEB, "merge": {"metadata": {"name": "other"}}}), "Container/web: a patch cannot change what a resource is"),
    (lab({"target": ON_WEB, "merge": {"metadata": None}}), "Container/web: a patch cannot change what a resource is"),
    (lab(values={}), "web.yaml:3:52: Container/web: ${STAGE}: there is no such value"),
    (lab(values={"STAGE": "${STAGE}"}), "environment.yaml:9:12: Environment/lab: STAGE: values hold no ${…} themselves"),
    (lab(values={"STAGE": "x", "P": 1}, generators={"P": {"file": "p"}}), "Environment/lab: P: is among the values, too"),
    (lab(generators={"STAGE2": {"file": "p"}}, values={"STAGE": "x"}, patches=[{"target": ON_WEB, "merge": {"spec": {"image": "${STAGE2}"}}}]), "Container/web: ${STAGE2}: a secret can only stand in files.content"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "words"), WRONG, ids=lambda one: one[-40:] if isinstance(one, str) else "")
def test_what_is_wrong_is_told_where_it_stands(files: dict[str, str], words: str) -> None:
    [problem] = problems(files)
    assert words in problem


def test_one_base_through_two_overlays_is_ambiguous() -> None:
    files = {"web.yaml": WEB, "environment.yaml": environment("outer", resources=["one", "two"])}
    for name in ("one", "two"):
        files[f"{name}/environment.yaml"] = environment(name, resources=["../web.yaml"], values={"STAGE": name})
    [problem] = problems(files)
    assert (
        "two/environment.yaml:6:5: Environment/two: resources: web.yaml is in already through other patches or values (outer > one)"
        in problem
    )


def test_environments_inside_of_each_other_come_to_an_end() -> None:
    files = {
        f"{number}/environment.yaml": environment(f"e{number}", resources=[f"../{number + 1}"]) for number in range(99)
    }
    files |= {"environment.yaml": environment("top", resources=["0"]), "99/web.yaml": WEB}
    assert ["more than 32 environments inside of each other" in one for one in problems(files)] == [True]


@pytest.mark.parametrize(
    "files",
    [
        lab({"target": ON_WEB, "json": [{"op": "add", "path": "/spec/x", "value": [0] * 100}] + [{"op": "copy", "from": "/spec/x", "path": f"/spec/x/{number}"} for number in range(60)]}),
        lab({"target": ON_WEB, "json": [{"op": "copy", "from": "/spec", "path": "/spec/x"}] * 70}),
        lab(values={"STAGE": "x" * 500_000}, patches=[{"target": ON_WEB, "merge": {"spec": {"x": ["${STAGE}" * 5_000] * 9}}}]),
    ],
    ids=["copies of copies", "copies into themselves", "values"],
)  # fmt: skip
def test_what_would_grow_without_end_is_refused(files: dict[str, str]) -> None:
    [problem] = problems(files)
    assert any(
        words in problem
        for words in (f"more than {MAX_ADDED} values", "deeper than", f"more than {MAX_GROWTH >> 20} MiB")
    )


def test_an_alias_that_is_patched_stays_as_it_is_elsewhere() -> None:
    files = lab({"target": ON_WEB, "merge": {"spec": {"one": {"a": 2}}}})
    files["web.yaml"] = WEB.replace("spec:", "spec:\n  one: &it {a: 1}\n  two: *it")
    assert web(composed(files)).data["spec"]["two"] == {"a": 1}


def test_a_secret_is_never_in_the_document() -> None:
    files = lab(
        {"target": ON_WEB, "merge": {"spec": {"files": [{"path": "/x", "content": "a=${P}\n${STAGE}$${P}"}]}}},
        generators={"P": {"file": "p.secret"}},
    )
    found = web(composed(files))
    assert found.data["spec"]["files"][0]["content"] == "a=<secret P>\nlab${P}"
    [parts] = found.secrets.values()
    assert parts == ("a=", Generator("P", {"file": "p.secret"}, ""), "\n", "lab", "${", "P}")
    assert template(json.loads(json.dumps(recipe(parts)))) == parts


LEAVES = st.sampled_from(["cpus", "memory", "image", "power"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(LEAVES, st.integers(0, 9), min_size=1), st.randoms(use_true_random=False))
def test_patches_of_different_fields_come_to_the_same_in_any_order(fields: dict[str, int], random: Any) -> None:
    merges = [{"target": ON_WEB, "merge": {"spec": {name: value}}} for name, value in fields.items()]
    operations = [
        {"target": ON_WEB, "json": [{"op": "add", "path": f"/spec/{name}", "value": value}]}
        for name, value in fields.items()
    ]
    shuffled = [random.choice(pair) for pair in zip(merges, operations, strict=True)]
    random.shuffle(shuffled)
    assert web(composed(lab(*shuffled))).data == web(composed(lab(*merges))).data


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True), st.randoms(use_true_random=False))
def test_files_in_any_order_come_to_the_same(names: list[str], random: Any) -> None:
    files = {f"more/{name}.yaml": WEB.replace("web", name) for name in names}
    patch = {"target": {"labels": {"tier": "front"}}, "merge": {"spec": {"cpus": 1}}}
    spec: dict[str, Any] = {"values": {"STAGE": "x"}, "patches": [patch]}
    listed = sorted(files)
    random.shuffle(listed)
    several = composed({**files, "environment.yaml": environment("lab", resources=listed, **spec)})
    folder = composed(
        {**files, "environment.yaml": environment("lab", resources=["more"], **spec)}, order=random.choice([1, -1])
    )
    key = lambda document: document.data["metadata"]["name"]  # noqa: E731
    assert [one.data for one in sorted(several.documents, key=key)] == [
        one.data for one in sorted(folder.documents, key=key)
    ]


def written(folder: Path, files: Mapping[str, str]) -> str:
    folder.chmod(0o700)
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def test_a_base_may_be_wrong_by_itself_and_is_judged_by_what_it_comes_to(tmp_path: Path) -> None:
    files = lab(values={"STAGE": "x", "MEMORY": "64MiB"})
    files["web.yaml"] = WEB.replace("64MiB", "${MEMORY}")
    del files["db.yaml"]
    files["environment.yaml"] = files["environment.yaml"].replace('  - "db.yaml"\n', "")
    folder = written(tmp_path, files)
    assert preparation.render([folder]).environment == "lab"
    (tmp_path / "environment.yaml").write_text(files["environment.yaml"].replace("64MiB", "two gigs"))
    with pytest.raises(
        ManifestError,
        match=r'web\.yaml:6:11: Container/web: memory: expected a size such as "2GiB", or \{size, max\}, got "two gigs"',
    ):
        preparation.render([folder])


def test_a_wrong_patch_is_told_at_the_patch(tmp_path: Path) -> None:
    folder = written(tmp_path, lab({"target": ON_WEB, "merge": {"spec": {"memroy": "1GiB"}}}))
    with pytest.raises(ManifestError, match=r'environment\.yaml:11:\d+: Container/web: unknown field "memroy"'):
        preparation.render([folder])


def test_without_patches_nobody_pays_for_their_libraries() -> None:
    code = "import sys, reconciler.preparation, reconciler.verdict; sys.exit(any(name in sys.modules for name in ('jsonpatch', 'json_merge_patch', 'subprocess')))"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
