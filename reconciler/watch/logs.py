"""WATCH: events as lines of a log: for people, as JSON, or for the system's journal."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TextIO

from reconciler.watch.journal import Event, Sink

_WARNING, _INFO, _DEBUG = "<4>", "<6>", "<7>"


def sink(form: str, stream: TextIO) -> Sink:
    """Writes each event as one line. form: human | json | journal. A reader that went away is no trouble of ours."""
    return _Lines(form, stream)


class _Lines:
    def __init__(self, form: str, stream: TextIO) -> None:
        self._line = {"human": _human, "json": _json, "journal": _journal}[form]
        self._stream = stream
        self._waiting: list[str] = []

    def __call__(self, event: Event) -> None:
        self._waiting.append(self._line(event) + "\n")

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        with suppress(OSError, ValueError):
            if lines:
                self._stream.write("".join(lines))
                self._stream.flush()


def clean(text: str) -> str:
    """On one line, and nothing that a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def _human(event: Event) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    what = f"{event.resource}: " if event.resource else ""
    return f"{at} {'!' if event.warning else ' '} {what}{event.reason}: {clean(event.message)}"


_encode = json.JSONEncoder(ensure_ascii=False).encode  # made once, and not a thousand times


def _json(event: Event) -> str:
    return _encode(event.document())


def _journal(event: Event) -> str:
    """With the priority that systemd reads from the beginning of a line."""
    level = _WARNING if event.warning else _DEBUG if event.reason == "Progress" else _INFO
    what = f"{event.resource}: " if event.resource else ""
    return f"{level}{what}{event.reason}: {clean(event.message)}"
