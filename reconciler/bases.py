"""Below ``paths``: where our own files live, as plain text. By itself: whoever is in a hurry loads nothing else."""

from __future__ import annotations

import os


def state() -> str:
    """The state folder."""
    if given := os.environ.get("RECONCILER_STATE_DIR"):
        return os.path.join(os.getcwd(), given)
    if os.geteuid() == 0:
        return "/var/lib/reconciler"
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "reconciler")


def runtime() -> str:
    """The folder for sockets; inside the state folder when that was given explicitly."""
    if os.environ.get("RECONCILER_STATE_DIR"):
        return os.path.join(state(), "run")
    if os.geteuid() == 0:
        return "/run/reconciler"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or os.path.join(state(), "run"), "reconciler")


def watches() -> str:
    """The folder with a socket for each watch that runs."""
    return os.path.join(runtime(), "watch")
