"""OBSERVE, the host's own hardware: what could be given to a guest, read from sysfs and device nodes. Changes nothing.

Every function takes the root of the file system that it reads (``/``), so that a made tree can be read the same way.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def text_of(path: Path) -> str | None:
    """The contents of a sysfs file, without the line's end; None when it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def link_name(path: Path) -> str | None:
    """The last part of what a sysfs link points to; None when there is no such link."""
    return path.resolve().name if path.is_symlink() else None


def entries(path: Path) -> list[Path]:
    """What is in a folder, by name; nothing when it is not there."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return []
