"""VALIDATE: what is kept between runs in the state folder: ours alone (0600), with a checksum, never trusted further.

Whatever is not as we left it (cut, changed, of other code or another machine, readable by others) is as if it were not
there; a folder that cannot be written to is no reason to fail. Losing all of it costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from functools import cache
from pathlib import Path
from typing import Any

from reconciler.paths import private_dir, state_dir, write_private
from reconciler.validation.machine import this_machine

_MAX_BYTES = 256 << 20
_MAX_FILES = 32
_CODE = ("manifest", "validation", "validation/semantics", "policy", "resolution", "schemas", ".")
"""Where everything lies that decides what is right."""


def folder() -> Path:
    """Where it all lies."""
    return state_dir() / "cache" / "manifests"


def read(name: str) -> bytes | None:
    """What was kept under the name; None when there is nothing that we may use."""
    content = _private_bytes(folder() / name)
    if content is None:
        return None
    head, _, body = content.partition(b"\n")
    return body if head == _head(body) else None


def write(name: str, body: bytes) -> None:
    """Keep it, whole or not at all."""
    if len(body) >= _MAX_BYTES:
        return
    try:
        private_dir(folder().parent)
        write_private(private_dir(folder()) / name, _head(body) + b"\n" + body)
        _drop_oldest()
    except OSError:
        return


def _head(body: bytes) -> bytes:
    return f"reconciler {code_key()} {hashlib.sha256(body).hexdigest()}".encode()


def _private_bytes(path: Path) -> bytes | None:
    """The file's bytes if it is ours alone, else None."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = os.fstat(handle)
        ours = about.st_uid == os.geteuid() and not about.st_mode & 0o077 and stat.S_ISREG(about.st_mode)
        return os.read(handle, about.st_size) if ours and about.st_size < _MAX_BYTES else None
    finally:
        os.close(handle)


def _drop_oldest() -> None:
    files = sorted(folder().iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    for path in files[:-_MAX_FILES]:
        path.unlink(missing_ok=True)


@cache
def code_key() -> str:
    """Changes with the code and schemas that decide, and with the machine that they ask about."""
    here = os.path.dirname(os.path.dirname(__file__))
    seen: list[Any] = [sys.version, repr(this_machine())]
    for name in _CODE:
        with os.scandir(os.path.join(here, name)) as entries:
            found = [(one.name, one.stat()) for one in entries if one.name.endswith((".py", ".json"))]
        seen += sorted((file, about.st_size, about.st_mtime_ns) for file, about in found)
    return hashlib.sha256(repr(seen).encode()).hexdigest()
