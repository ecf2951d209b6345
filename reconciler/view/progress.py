"""VIEW, while a plan is carried out: on a terminal one live line a running step (rich), elsewhere plain lines.

Called from several threads at once; each event is (resource, state, message) as execution tells it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from reconciler.model import Plan, ResourceId, Result, Step, Verb
from reconciler.view.fields import duration
from reconciler.view.outcomes import PAST
from reconciler.view.text import Line, clean, line, render

if TYPE_CHECKING:
    from rich.table import Table

DOING = {
    Verb.CREATE: "creating",
    Verb.UPDATE: "updating",
    Verb.RESTART: "restarting",
    Verb.REPLACE: "replacing",
    Verb.DELETE: "deleting",
}
_ENDS = {result.value for result in Result}


class Progress(Protocol):
    """Something that shows how the steps are getting on."""

    def event(self, id: ResourceId, state: str, message: str) -> None:
        """A step began, says something, or ended."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(slots=True)
class _Running:
    """A step that is under way. began: monotonic seconds."""

    step: Step
    began: float
    message: str = ""


class PlainProgress:
    """A line when a step begins, when it says something, and when it ends; for logs and pipes."""

    def __init__(self, plan: Plan, stream: TextIO, colour: bool = False) -> None:
        self._steps = {step.id: step for step in plan.work}
        self._stream = stream
        self._colour = colour
        self._lock = threading.Lock()
        self._began: dict[ResourceId, float] = {}

    def event(self, id: ResourceId, state: str, message: str) -> None:
        """Say it, on one line of its own."""
        with self._lock:
            step = self._steps.get(id)
            if step is None or (state == "progress" and message == DOING.get(step.verb)):
                return  # not ours, or said already
            if state == "started":
                self._began[id] = time.monotonic()
            elapsed = time.monotonic() - self._began.get(id, time.monotonic())
            self._stream.write(render([event_line(step, state, message, elapsed)], self._colour))
            self._stream.flush()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LiveProgress:
    """One line a running step, with a clock; what ended scrolls up and stays."""

    def __init__(self, plan: Plan, stream: TextIO, colour: bool) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._dots = Spinner("dots")
        self._steps = {step.id: step for step in plan.work}
        self._running: dict[ResourceId, _Running] = {}
        self._ended = 0
        self._lock = threading.Lock()
        self._colour = colour
        self._console = Console(file=stream, force_terminal=True, no_color=not colour, highlight=False, markup=False)
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=8, transient=True)

    def event(self, id: ResourceId, state: str, message: str) -> None:
        """Keep the running lines up to date; print the line of what ended."""
        with self._lock:
            step = self._steps.get(id)
            if step is None:
                return
            if state == "started":
                self._running[id] = _Running(step, time.monotonic())
            elif state == "progress" and id in self._running:
                self._running[id].message = message
            elif state in _ENDS:
                self._end(step, state, message)

    def _end(self, step: Step, state: str, message: str) -> None:
        from rich.text import Text

        running = self._running.pop(step.id, None)
        self._ended += 1
        elapsed = time.monotonic() - running.began if running else 0.0
        text = render([event_line(step, state, message, elapsed)], self._colour).rstrip("\n")
        self._console.print(Text.from_ansi(text))

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        with self._lock:
            for running in self._running.values():
                elapsed = duration(time.monotonic() - running.began)
                table.add_row(
                    self._dots,
                    Text(clean(str(running.step.id)), style="bold"),
                    Text(DOING[running.step.verb]),
                    Text(elapsed, style="dim"),
                    Text(clean(running.message), style="dim", overflow="ellipsis", no_wrap=True),
                )
            left = len(self._steps) - self._ended - len(self._running)
        if left:
            table.add_row("", Text(f"{left} waiting", style="dim"))
        return table

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def event_line(step: Step, state: str, message: str, elapsed: float) -> Line:
    """One event in words: ``Container/web: created in 0.4s``."""
    name = (f"{clean(str(step.id))}: ", "bold")
    tail = f": {clean(message)}" if message else ""
    if state == "started":
        return line(name, DOING.get(step.verb, step.verb.value))
    if state == Result.APPLIED.value:
        return line(name, (PAST[step.verb], "good"), (f" in {duration(elapsed)}", "dim"))
    if state == Result.FAILED.value:
        return line(name, (f"{step.verb.value} failed", "bad"), (f" after {duration(elapsed)}", "dim"), tail)
    if state == "progress":
        return line(name, (clean(message), "dim"))
    return line(name, (state, "warn"), tail)


def progress(plan: Plan, stream: TextIO, colour: bool) -> Progress:
    """The live one on a terminal that can move its cursor, else plain lines."""
    return LiveProgress(plan, stream, colour) if colour else PlainProgress(plan, stream)
