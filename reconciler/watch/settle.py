"""WATCH, first decision: files have changed; are they whole by now? Pure: the time comes in.

Editors write in dances of several steps, and a large file is written piece by piece. So we wait until it has been
quiet for a moment and nobody who began to write is still at it; but not for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

QUIET = 0.12
"""Seconds without any event before files are read."""
PATIENCE = 2.0
"""Seconds of unbroken coming and going after which we look all the same."""
WRITER = 10.0
"""Seconds after its last write in which a file that was not closed counts as half-written."""


@dataclass(slots=True)
class Settling:
    """Events go in, the moment to read comes out. Times are seconds of a clock that never goes back."""

    quiet: float = QUIET
    patience: float = PATIENCE
    writer: float = WRITER
    _first: float | None = None
    _last: float = 0.0
    _writing: dict[str, float] = field(default_factory=dict)

    def changed(self, now: float) -> None:
        """Something happened, whatever it was."""
        self._first = now if self._first is None else self._first
        self._last = now

    def written(self, path: str, now: float) -> None:
        """Somebody wrote into the file, and has it open still."""
        self._writing[path] = now
        self.changed(now)

    def closed(self, path: str, now: float) -> None:
        """Nobody writes into it any more: it was closed, moved or deleted."""
        self._writing.pop(path, None)
        self.changed(now)

    def due(self) -> float | None:
        """When the files are to be read; None when nothing has happened."""
        if self._first is None:
            return None
        settled = min(self._last + self.quiet, self._first + self.patience)
        return max([settled, *(at + self.writer for at in self._writing.values())])

    def take(self, now: float) -> bool:
        """Whether to read now; what has happened until now is dealt with then."""
        due = self.due()
        if due is None or due > now:
            return False
        self._first = None
        self._writing = {path: at for path, at in self._writing.items() if at + self.writer > now}
        return True
