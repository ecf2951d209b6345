"""What unquoted words mean: YAML 1.2's core schema, and what a person sees where that would surprise."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import manifest
from tests.support.manifests import problems


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("22:22", "22:22"),
        ("52:54:00:44:49:56", "52:54:00:44:49:56"),
        ("00:16:3e:11:22:33", "00:16:3e:11:22:33"),
        ("1:10", "1:10"),
        *((word, word) for word in ("no", "NO", "No", "off", "on", "ON", "yes", "Yes", "y", "n")),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("012", "012"),
        ("0777", "0777"),
        ("0755", "0755"),
        ("-012", "-012"),
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("-3", -3),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02 10:00:00", "2026-01-02 10:00:00"),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("", None),
        ("nul", "nul"),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("01.5", "01.5"),
        ("1.2.3", "1.2.3"),
        ("1e", "1e"),
        ("--", "--"),
        ("...x", "...x"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775807", -(2**63) + 1),
        ("٣", "٣"),
        ("1²", "1²"),
        ('"1"', "1"),
        ("'null'", "null"),
        ('""', ""),
        ("=", "="),
        ("inf", "inf"),
    ],
)
def test_word(written: str, meant: Any) -> None:
    value = manifest.parse(f"a: {written}\n")[0].data["a"]
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    "word", [".inf", "-.INF", ".nan", ".NaN", "1e400", "9" * 20, "9" * 5000, "9223372036854775808", "0x" + "f" * 16]
)
def test_numbers_that_are_not_taken(word: str) -> None:
    (problem,) = problems(f"a: {word}\n")
    assert str(problem.mark) == "web.yaml:1:4"
    assert "number" in problem.summary
    assert problem.hint == "put it in quotes to make it a text"


@pytest.mark.parametrize("key", ["no", "1", "012", "true", "null", "22:22", "1.5"])
def test_field_names_are_texts(key: str) -> None:
    assert manifest.parse(f"{key}: x\n")[0].data == {key: "x"}


def test_a_block_text_is_a_text() -> None:
    assert manifest.parse("a: |\n  12\n")[0].data == {"a": "12\n"}


def test_floats_are_noticed_document_by_document() -> None:
    first, second, third = manifest.parse("a: 1\n---\na: [1.0]\n---\na: '1.0'\n")
    assert [first.floats, second.floats, third.floats] == [False, True, False]
