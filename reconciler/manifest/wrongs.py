"""LOAD: what can be wrong with a text as such (bytes, characters, YAML syntax), in words that help."""

from __future__ import annotations

import re
from typing import Any

import yaml

from reconciler.problems import Mark, Problem


class Wrong(Exception):
    """Something in a text is not right; line and column count from 1."""

    def __init__(self, line: int, column: int, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.line, self.column, self.summary, self.hint = line, column, summary, hint

    def problem(self, file: str) -> Problem:
        """As people are shown it."""
        return Problem(self.summary, Mark(file, self.line, self.column), hint=self.hint)


_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_ODD_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_UTF8_HINT = "save the file as UTF-8"
_CLOSE_IT = "look at the lines above, too: quotes and brackets are closed, and fields begin in one column"
_HINTS = {
    "mapping values are not allowed": "check the indentation, or put a text that holds a colon in quotes",
    "could not find expected ':'": "a field is written as name: value",
    "did not find expected key": "check the indentation: fields of one mapping begin in the same column",
    "did not find expected '-' indicator": 'check the indentation: the "-" of one list stand in the same column',
    "did not find expected ',' or": "a bracket is opened and never closed, or a comma is missing",
    "did not find expected node content": "a value is missing, or a bracket is closed too early",
    "did not find expected <document start>": "there is something behind the end of the document; separate with ---",
    "block sequence entries are not allowed": "begin the list on a line of its own",
    "found unknown escape character": "in double quotes a backslash begins an escape; use single quotes or \\\\",
    "did not find expected comment or line break": "check what stands behind the | or >",
}


def decode(data: bytes) -> str:
    """The text of a file. Raises Wrong for what is not UTF-8, for a byte order mark and for odd line ends."""
    if data.startswith(_BOM):
        raise Wrong(1, 1, "begins with a byte order mark", "save the file as UTF-8 without BOM")
    if data.startswith(_UTF16):
        raise Wrong(1, 1, "expected UTF-8, got UTF-16", _UTF8_HINT)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise Wrong(*place(before, len(before)), f"byte 0x{data[error.start]:02x} is not UTF-8", _UTF8_HINT) from None
    if "\r" in text or not text.isascii():
        _check_breaks(text)
    return text


def _check_breaks(text: str) -> None:
    """YAML 1.1 (libyaml) breaks lines at characters that no editor does: nobody would see what is meant."""
    if (found := _ODD_BREAK.search(text)) is not None:
        summary = f"a line ends in U+{ord(found[0]):04X} alone"
        raise Wrong(
            *place(text, found.start()), summary, "end lines with LF (or CR LF); in quotes write it as an escape"
        )


def place(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of a character."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def syntax(error: yaml.YAMLError, text: str) -> Wrong:
    """What libyaml complains of, in our words, at the place where a person has to look."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return _unprintable(text)
    mark: Any = error.problem_mark or error.context_mark
    message = error.problem or "not YAML"
    if mark is None:
        return Wrong(1, 1, message, _CLOSE_IT)
    if message == "found unexpected end of stream" and error.context_mark is not None:
        start = error.context_mark
        return Wrong(start.line + 1, start.column + 1, "a quote is opened here and never closed", "close the quote")
    if message.startswith("found character that cannot start any token"):
        return _bad_start(text, mark)
    hint = next((hint for words, hint in _HINTS.items() if words in message), _CLOSE_IT)
    context = f" ({error.context})" if error.context and hint is _CLOSE_IT else ""
    return Wrong(mark.line + 1, mark.column + 1, f"not YAML: {message}{context}", hint)


def _unprintable(text: str) -> Wrong:
    found = re.search(_UNPRINTABLE, text)
    if found is None:
        return Wrong(1, 1, "not YAML", _CLOSE_IT)
    summary = f"character U+{ord(found[0]):04X} cannot stand in a manifest"
    return Wrong(*place(text, found.start()), summary, "in double quotes write it as an escape")


def _bad_start(text: str, mark: Any) -> Wrong:
    character = text[mark.index : mark.index + 1]
    if character == "\t":
        return Wrong(mark.line + 1, mark.column + 1, "a tab cannot indent", "indent with spaces")
    hint = "put the value in quotes"
    return Wrong(mark.line + 1, mark.column + 1, f"no value can begin with {character!r}", hint)
