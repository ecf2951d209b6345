"""The guard and constructor: what is not right is said at its place; what is right becomes plain data."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reconciler import manifest
from reconciler.manifest import locate, locate_all
from reconciler.manifest.parsing import MAX_DEPTH, MAX_NODES
from reconciler.problems import ManifestError
from tests.support.manifests import problems, said


def test_documents_know_where_they_begin() -> None:
    first, second = manifest.parse("# a\nkind: A\n---\n\n  kind: B\n", "x.yaml")
    assert [str(first.mark), str(second.mark)] == ["x.yaml:2:1", "x.yaml:5:3"]
    assert [first.index, second.index] == [0, 1]
    assert second.data == {"kind": "B"}


def test_everything_nested() -> None:
    text = "a: {b: [1, {c: d}], e: []}\nf:\n- - x\n  - {}\n- g: h\n"
    assert manifest.parse(text)[0].data == {"a": {"b": [1, {"c": "d"}], "e": []}, "f": [["x", {}], {"g": "h"}]}


def test_aliases_repeat_what_was_anchored() -> None:
    text = "a: &a {x: &x [1, 2], y: *x}\nb: *a\nc: &t text\nd: [*t, *t]\n"
    data = manifest.parse(text)[0].data
    assert data["b"] == {"x": [1, 2], "y": [1, 2]}
    assert data["d"] == ["text", "text"]


def test_anchors_end_with_their_document() -> None:
    assert said("a: &a 1\n---\nb: *a\n") == ["3:4: there is no anchor &a before this alias"]


def test_crlf_is_fine() -> None:
    assert manifest.parse("a: 1\r\nb: |\r\n  x\r\n")[0].data == {"a": 1, "b": "x\n"}


def test_yaml_1_2_may_be_said() -> None:
    assert manifest.parse("%YAML 1.2\n---\na: no\n")[0].data == {"a": "no"}


@pytest.mark.parametrize(
    ("text", "expected", "hint"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            '3:1: "a" stands here for the second time; the first is at line 1, column 1',
            "keep one",
        ),
        (
            "a: {b: 1, c: 2, b: 3}\n",
            '1:17: "b" stands here for the second time; the first is at line 1, column 5',
            "one",
        ),
        (
            "a:\n  - b: 1\n    'b': 2\n",
            '3:5: "b" stands here for the second time; the first is at line 2, column 5',
            "",
        ),
        ("a: &x [*x]\n", "1:8: the alias *x stands inside of what it repeats", "write the value out"),
        ("a: *x\n", "1:4: there is no anchor &x before this alias", "in quotes"),
        ("a: &x 1\nb: &x 2\n", "2:4: the anchor &x is already taken", "name of its own"),
        ("*x : 1\n", "1:1: an alias cannot be a field name", "write the name out"),
        ("&x a: 1\n", "1:1: a key cannot have an anchor", "anchor the value"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", '3:3: merge keys ("<<") are not taken', "*alias"),
        ("a: !foo 1\n", '1:4: tags such as "!foo" are not taken', "leave the tag out"),
        ("a: ! 1\n", '1:4: tags such as "!" are not taken', "leave the tag out"),
        ("a: !!str 1\n", '1:4: tags such as "!!str" are not taken', "quotes make a text"),
        ("a: !!binary aGk=\n", '1:4: tags such as "!!binary" are not taken', "quotes"),
        ("a: !!set {x}\n", '1:4: tags such as "!!set" are not taken', "quotes"),
        ("!!map {a: 1}\n", '1:1: tags such as "!!map" are not taken', "quotes"),
        ("a: !!python/object/apply:os.system [id]\n", "1:4: tags such as", "leave the tag out"),
        ("? [a, b]\n: 1\n", "1:3: a mapping or list cannot be a field name", "a text"),
        ("? {a: b}\n: 1\n", "1:3: a mapping or list cannot be a field name", "a text"),
        ("?\n: 1\n", "1:2: expected a field name before the colon, got nothing", ""),
        ("a:\n\tb: 1\n", "2:1: a tab cannot indent", "indent with spaces"),
        ("a: @b\n", "1:4: no value can begin with '@'", "quotes"),
        ("a: `b`\n", "1:4: no value can begin with '`'", "quotes"),
        ("a: 'b\nc: d\n", "1:4: a quote is opened here and never closed", "close the quote"),
        ('a: "b\n', "1:4: a quote is opened here and never closed", "close the quote"),
        ("a: [1, 2\nb: 3\n", "2:2: not YAML: did not find expected", "bracket"),
        ("a: b: c\n", "1:5: not YAML: mapping values are not allowed", "colon"),
        ("a: 1\n  b: 2\n", "2:4: not YAML: mapping values are not allowed", "indentation"),
        ("a:\n  b: 1\n c: 2\n", "3:2: not YAML: did not find expected key", "indentation"),
        ("a: \x00\n", "1:4: character U+0000 cannot stand in a manifest", "escape"),
        ("a: \x1b[31m\n", "1:4: character U+001B cannot stand in a manifest", "escape"),
        ('a: "\\0"\n', "1:4: a NUL character cannot stand in a text", "file of their own"),
        ("a: \ufffe\n", "1:4: character U+FFFE", "escape"),
        ("a: 1\rb: 2\r", "1:5: a line ends in U+000D alone", "LF"),
        ("a: x\u2028b\n", "1:5: a line ends in U+2028 alone", "escape"),
        ("a: x\x85b\n", "1:5: a line ends in U+0085 alone", "escape"),
        ("\ufeffa: 1\n", "1:1: begins with a byte order mark", "without BOM"),
        ("", "1:1: holds no document", "apiVersion"),
        ("# nothing\n\n", "1:1: holds no document", "apiVersion"),
        ("null\n", "1:1: an empty document", "---"),
        ("a: 1\n---\n", "3:1: an empty document", "---"),
        ("[1]\n", "1:1: expected a mapping with apiVersion, kind and metadata, got a list", "separated by ---"),
        ("text\n", "1:1: expected a mapping with apiVersion, kind and metadata, got a text", ""),
        ("12\n", "1:1: expected a mapping with apiVersion, kind and metadata, got a number", ""),
        ("%YAML 1.1\n---\na: 1\n", "1:1: YAML 1.1 is not taken", "1.2"),
        ("%TAG !e! tag:e,2000:\n---\na: 1\n", "1:1: %TAG is not taken", "tags"),
        ("a: 1\n--- b\n", "2:5: expected a mapping", ""),
    ],
)
def test_wrong_text(text: str, expected: str, hint: str) -> None:
    found = problems(text)
    assert f"{found[0].mark.line}:{found[0].mark.column}: {found[0].summary}".startswith(expected)  # type: ignore[union-attr]
    assert hint in (found[0].hint or "")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a: 1\nb: \xff\n", "2:4: byte 0xff is not UTF-8"),
        ("a: é\n".encode("latin-1"), "1:4: byte 0xe9 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "1:1: expected UTF-8, got UTF-16"),
        (b"a: \xed\xa0\x80\n", "1:4: byte 0xed is not UTF-8"),
        (b"\xff\xfe\x00", "1:1: expected UTF-8, got UTF-16"),
    ],
)
def test_wrong_bytes(data: bytes, expected: str) -> None:
    assert said(data) == [expected]


def test_all_that_can_be_seen_is_said_at_once() -> None:
    text = "a: !x 1\na: .inf\nb: {<<: 1}\n---\n- 1\n"
    assert sorted(one.split(":")[0] for one in said(text)) == ["1", "2", "2", "3", "5"]


def test_depth_is_bounded() -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert manifest.parse(f"a: {deepest}\n")
    assert said(f"a: [{deepest}]\n") == [f"1:{3 + MAX_DEPTH}: nested deeper than {MAX_DEPTH} levels"]


def test_the_guard_needs_little_stack() -> None:
    found: list[str] = []
    before = threading.stack_size(64 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.extend(said("a: " + "[" * 25_000)))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert found[0].endswith(f"nested deeper than {MAX_DEPTH} levels")


def test_the_number_of_values_is_bounded() -> None:
    assert "more than" in said("a: [" + "1," * MAX_NODES + "]")[0]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)),
        "a: &a [" + "x," * 1000 + "]\nb: [" + ",".join(["*a"] * 250) + "]\n",
        "a: &a '" + "x" * 100_000 + "'\nb: [" + ",".join(["*a"] * 100) + "]\n",
        "a: &a {b: 1, c: 2}\nd: [" + ",".join(["*a"] * 100_000) + "]\n",
    ],
    ids=[
        "billion laughs",
        "many small values again and again",
        "a long text again and again",
        "a mapping again and again",
    ],
)
def test_aliases_are_bounded(text: str) -> None:
    assert "repeat too much" in said(text)[0]


def test_places_of_keys_and_values() -> None:
    text = "# c\nkind: x\nspec:\n  a: [1, {b: 2}]\n  'q r':\n    - 5\n  z: &z {y: 1}\n  w: *z\n---\nk:\n  v\n"
    first, second = manifest.parse(text, "f")
    expected = {
        (): "f:2:1",
        ("kind",): "f:2:7",
        ("spec",): "f:3:1",
        ("spec", "a"): "f:4:3",
        ("spec", "a", 0): "f:4:7",
        ("spec", "a", 1, "b"): "f:4:14",
        ("spec", "q r", 0): "f:6:7",
        ("spec", "a", 7): "f:4:3",
        ("spec", "w", "y"): "f:8:6",
        ("nope", "x"): "f:2:1",
    }
    assert {path: str(locate(first, path)) for path in expected} == expected
    names = locate_all(first, [("kind",), ("spec", "a", 1, "b")], names=True)
    assert [str(mark) for mark in names.values()] == ["f:2:1", "f:4:11"]
    assert str(locate(second, ("k",))) == "f:11:3"


def test_a_missing_libyaml_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from reconciler.problems import UsageError

    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    with pytest.raises(UsageError, match="without libyaml"):
        manifest.parse("a: 1\n")


def test_all_problems_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [\n")
    (tmp_path / "b.yaml").write_text("b: 1\nb: 2\n")
    (tmp_path / "c.yaml").write_text("c: 1\n")
    with pytest.raises(ManifestError) as caught:
        manifest.load([str(tmp_path)])
    assert [Path(one.mark.file).name for one in caught.value.problems if one.mark] == ["a.yaml", "b.yaml"]
