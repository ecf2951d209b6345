"""APPLY: shares where there is no virtiofsd: QEMU serves the folder itself, by 9p, from its birth to its end.

It is handed the open folder, and reaches what lies in it with its own rights: those of a user of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from reconciler.backends.qemu.folders import Folder
from reconciler.backends.qemu.shares import program
from reconciler.backends.qemu.shares.source import opened_source
from reconciler.model import Spec
from reconciler.problems import Problem, Refused

_READ, _WRITE = 0o005, 0o007


def is_needed() -> bool:
    """Whether shares can come in no other way."""
    return program.find() is None


@contextmanager
def folders_for(spec: Spec, folder: Folder, subject: str) -> Iterator[Mapping[str, int]]:
    """Share name → descriptor of the folder that QEMU is to inherit; nothing where a virtiofsd serves them."""
    with ExitStack() as stack:
        shares = spec.get("shares", {}) if is_needed() else {}
        yield {name: stack.enter_context(opened(name, one, folder, subject)) for name, one in shares.items()}


@contextmanager
def opened(name: str, share: Spec, folder: Folder, subject: str) -> Iterator[int]:
    """A descriptor of the folder. Refused when a QEMU has no right to use it as it is to be used."""
    with opened_source(name, share["source"], folder, subject) as handle:
        needed = _READ if share["readOnly"] else _WRITE
        mode = os.fstat(handle).st_mode
        if os.geteuid() == 0 and mode & needed != needed:
            right = "read" if share["readOnly"] else "write"
            what = f"shares.{name}: QEMU runs as a user of its own, who may not {right} {share['source']}"
            hint = f"{program.INSTALL}; or give others the right (now {mode & 0o777:04o})"
            raise Refused(Problem(what, subject=subject, hint=hint))
        yield handle


def options(name: str, share: Spec, handle: int) -> str:
    """QEMU's ``-fsdev``: not one word of it is the user's. A share's name has neither commas nor equals signs."""
    way = "security_model=none,readonly=on" if share["readOnly"] else "security_model=mapped-xattr"
    return f"local,id=share-{name},path=/proc/self/fd/{handle},{way}"
