"""WATCH: events as lines of a log: for people, as JSON, or for the system's journal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from reconciler.watch.journal import Event

_WARNING, _INFO, _DEBUG = "<4>", "<6>", "<7>"


def sink(form: str, stream: TextIO) -> Callable[[Event], None]:
    """Writes each event as one line. form: human | json | journal. A reader that went away is no trouble of ours."""
    lines = {"human": _human, "json": _json, "journal": _journal}[form]

    def write(event: Event) -> None:
        with suppress(OSError, ValueError):
            stream.write(lines(event) + "\n")
            stream.flush()

    return write


def clean(text: str) -> str:
    """On one line, and nothing that a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def _human(event: Event) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    what = f"{event.resource}: " if event.resource else ""
    return f"{at} {'!' if event.warning else ' '} {what}{event.reason}: {clean(event.message)}"


def _json(event: Event) -> str:
    return json.dumps(event.document(), ensure_ascii=False)


def _journal(event: Event) -> str:
    """With the priority that systemd reads from the beginning of a line."""
    level = _WARNING if event.warning else _DEBUG if event.reason == "Progress" else _INFO
    what = f"{event.resource}: " if event.resource else ""
    return f"{level}{what}{event.reason}: {clean(event.message)}"
