"""VALIDATE: paths inside guests: absolute, and leading where they say."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.validation.findings import Notes


def guest_path(notes: Notes, path: Sequence[str | int], value: str, file: bool = False) -> None:
    """An absolute path without ``..``; a file's has a name at its end."""
    parts = value.split("/")[1:]
    if not value.startswith("/"):
        notes.note(path, f'expected an absolute path, got "{value}"', f'did you mean "/{value}"?')
    elif ".." in parts or "." in parts:
        notes.note(path, f'"{value}" leads elsewhere than it says', 'write it without "." and ".."')
    elif file and not parts[-1]:
        notes.note(path, f'expected the path of a file, got "{value}"', "the file's name is missing")
    elif "" in parts[:-1]:
        notes.note(path, f'"{value}" has an empty part', 'write one "/"')
