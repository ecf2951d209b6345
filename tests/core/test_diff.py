"""diff.py: a table of wanted, seen, applied → changes."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.diff import diff

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None, list[tuple[str, str, Any, Any]]]] = [
    ("equal", {"a": 1}, {"a": 1}, None, []),
    ("changed", {"a": 1}, {"a": 2}, None, [("change", "a", 2, 1)]),
    ("absent", {"a": 1}, {}, None, [("add", "a", None, 1)]),
    ("not mentioned is left alone", {"a": 1}, {"a": 1, "b": 2}, None, []),
    ("set by us once, no longer mentioned", {}, {"b": 2}, {"b": 2}, [("remove", "b", 2, None)]),
    ("set by us once, already gone", {}, {}, {"b": 2}, []),
    ("a field inside a field", {"c": {"x": "1"}}, {"c": {"x": "2", "y": "3"}}, None, [("change", "c.x", "2", "1")]),
    (
        "ours inside a shared map",
        {"c": {}},
        {"c": {"x": "1", "y": "2"}},
        {"c": {"x": "1"}},
        [("remove", "c.x", "1", None)],
    ),
    (
        "the whole shared map unmentioned",
        {},
        {"c": {"x": "1", "y": "2"}},
        {"c": {"x": "1"}},
        [("remove", "c.x", "1", None)],
    ),
    ("a field with nothing there yet", {"cpus": {"count": 2}}, {}, None, [("add", "cpus.count", None, 2)]),
    (
        "a named thing appears as a whole",
        {"devices": {"d": {"type": "disk"}}},
        {"devices": {}},
        None,
        [("add", "devices.d", None, {"type": "disk"})],
    ),
    (
        "a named thing disappears as a whole",
        {"devices": {}},
        {"devices": {"d": {"type": "disk", "x": "y"}}},
        {"devices": {"d": {"type": "disk"}}},
        [("remove", "devices.d", {"type": "disk", "x": "y"}, None)],
    ),
    (
        "lists are compared as they are",
        {"p": ["a", "b"]},
        {"p": ["b", "a"]},
        None,
        [("change", "p", ["b", "a"], ["a", "b"])],
    ),
    ("an empty map says nothing", {"config": {}}, {}, None, []),
    ("a map where a value was", {"a": {"x": 1}}, {"a": 3}, None, [("change", "a", 3, {"x": 1})]),
]


@pytest.mark.parametrize(
    ("wanted", "seen", "applied", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_table(wanted: Any, seen: Any, applied: Any, expected: Any) -> None:
    found = [(change.op, change.field, change.old, change.new) for change in diff(wanted, seen, applied)]
    assert found == expected


@pytest.mark.parametrize(
    ("ignore", "left"),
    [(["power"], ["config.a"]), (["config"], ["power"]), (["config.a"], ["power"]), (["conf"], ["power", "config.a"])],
)
def test_ignored_fields_are_left_to_others(ignore: list[str], left: list[str]) -> None:
    changes = diff({"power": "running", "config": {"a": "1"}}, {"power": "stopped", "config": {"a": "2"}}, None, ignore)
    assert [change.field for change in changes] == left
