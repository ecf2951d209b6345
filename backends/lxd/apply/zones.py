"""APPLY, inside the guest: its time zone and its locale, in the places where programs look for them."""

from __future__ import annotations

from pathlib import Path

from reconciler.backends.lxd.files import Files
from reconciler.ports import FOLDER, LINK
from reconciler.problems import Problem, Refused

_ZONES = "/usr/share/zoneinfo"
_LOCALTIME = "/etc/localtime"
_LARGEST = 1 << 20


def set_timezone(files: Files, zone: str, subject: str) -> None:
    """/etc/localtime: a link to the guest's own description of the zone, else this host's as a file."""
    own = f"{_ZONES}/{zone}"
    if files.entry(own) is not None:
        if (there := files.entry(_LOCALTIME)) is None or there.type != LINK or files.read(_LOCALTIME) != own.encode():
            files.remove(_LOCALTIME)
            files.link(_LOCALTIME, own)
    elif files.read(_LOCALTIME) != (described := _described(zone, subject)):
        files.remove(_LOCALTIME)
        files.write(_LOCALTIME, described)
    if files.entry("/etc/timezone") is not None and files.read("/etc/timezone") != f"{zone}\n".encode():
        files.write("/etc/timezone", f"{zone}\n".encode())


def _described(zone: str, subject: str) -> bytes:
    """The zone as this host describes it."""
    try:
        with Path(_ZONES, zone).open("rb") as file:
            data = file.read(_LARGEST)
    except OSError:
        data = b""
    if not data.startswith(b"TZif"):
        hint = "neither the container nor this host knows it (package tzdata)"
        raise Refused(Problem(f'timezone: there is no "{zone}"', subject=subject, hint=hint))
    return data


def set_locale(files: Files, locale: str) -> None:
    """LANG in /etc/locale.conf and, where there is an /etc/default, in Debian's own place; other settings stay."""
    _set(files, "/etc/locale.conf", locale)
    folder = files.entry("/etc/default")
    if folder is not None and folder.type == FOLDER:
        _set(files, "/etc/default/locale", locale)


def _set(files: Files, path: str, locale: str) -> None:
    there = files.entry(path)
    if there is not None and there.type == LINK:
        files.remove(path)  # Debian links one to the other: both are written
    before = "" if there is None or there.type == LINK else (files.read(path) or b"").decode("utf-8", "replace")
    after = with_setting(before, "LANG", locale)
    if after != before:
        files.write(path, after.encode())


def with_setting(text: str, name: str, value: str) -> str:
    """Lines of NAME=VALUE with this one set, once; the others as they are."""
    lines = [line for line in text.splitlines() if line.partition("=")[0].strip() != name]
    return "".join(f"{line}\n" for line in [*lines, f"{name}={value}"])
