"""APPLY and OBSERVE: what programs of the host say of themselves, kept in the state folder: asking takes tens of ms."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

from reconciler.paths import private_dir, state_dir, write_private


def said(about: tuple[str, ...], ask: Callable[[], str]) -> str:
    """As it was kept, or as ``ask`` brings it now. What is empty is not kept: it is asked for again.

    about: everything that the answer hangs on
    """
    key = hashlib.sha256("\n".join(about).encode()).hexdigest()
    file = state_dir() / "cache" / "qemu" / f"{key}.txt"
    with suppress(OSError):
        return file.read_text()
    text = ask()
    if text:
        with suppress(OSError):  # whoever may not keep it asks again
            private_dir(file.parent)
            write_private(file, text.encode())
    return text
