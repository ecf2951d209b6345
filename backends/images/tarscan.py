"""APPLY, container images from outside: read through the tarball before LXD, which unpacks it as root, ever sees it.

Refused are names that lead outside, members that pass through a link, anything but plain files and folders where LXD
itself opens something (metadata.yaml, templates, rootfs, backup.yaml), and what unpacks to far more than it is.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.backends.images.unpacking import Bomb, Damaged, Unpacking, unpacking
from reconciler.problems import Problem, Refused

MAX_MEMBERS = 2_000_000
MAX_METADATA = 1 << 20
MAX_HEADER = 1 << 20
"""Bytes of one extended header: it is read into memory as a whole."""

_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a tarball holds at its top, of the names that mean something to LXD."""

    metadata: bool
    rootfs: bool


class _Evil(Exception):
    """Carries what is wrong with a member, in words."""


class _Header(tarfile.TarInfo):
    """Refuses an extended header before it is read into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > MAX_HEADER:
            raise _Evil(f"an extended header of {header.size} bytes")
        return header


@dataclass(slots=True)
class _Scan:
    """What has been seen so far of one tarball. part: ``unified``, ``metadata`` or ``rootfs``."""

    part: str
    links: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    rootfs: bool = False

    def see(self, member: tarfile.TarInfo) -> None:
        name = _inside(member.name, "name")
        if not name:
            if not member.isdir():
                raise _Evil("the top itself is not a folder")
            return
        self._through(name)
        if member.islnk():
            self._hard_link(name, _inside(member.linkname, "hard link to"))
        elif member.type not in (*_FILES, *_DEVICES, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
            raise _Evil(f"{name}: a kind of member that is not known ({member.type!r})")
        if self.part != "rootfs":
            self._top(name, member)
        if member.type in _DEVICES and not self._in_dev(name):
            raise _Evil(f"{name}: a device outside of /dev")
        if member.issym():
            self.links.add(name)

    def _through(self, name: str) -> None:
        """Nothing may be unpacked through a link, nor in the place of one."""
        place = ""
        for part in name.split("/"):
            place = f"{place}/{part}" if place else part
            if place in self.links:
                raise _Evil(f"{name}: {place} is a symbolic link")

    def _hard_link(self, name: str, target: str) -> None:
        self._through(target)
        if self.part == "unified" and not (name.startswith("rootfs/") and target.startswith("rootfs/")):
            raise _Evil(f"{name}: a hard link to {target}")

    def _top(self, name: str, member: tarfile.TarInfo) -> None:
        top, _, rest = name.partition("/")
        if top == "rootfs" and self.part == "unified":
            if not rest and not member.isdir():
                raise _Evil("rootfs: expected a folder")
            self.rootfs = True
        elif top == "templates":
            if not (member.isdir() or (rest and member.isfile())):
                raise _Evil(f"{name}: expected a plain file or folder")
        elif name == "metadata.yaml":
            self._metadata(member)
        else:
            raise _Evil(f"{name}: expected only metadata.yaml, templates/ and rootfs/ at the top")

    def _metadata(self, member: tarfile.TarInfo) -> None:
        if not member.isfile():
            raise _Evil("metadata.yaml: expected a plain file")
        if "metadata.yaml" in self.files:
            raise _Evil("metadata.yaml: there twice")
        if member.size > MAX_METADATA:
            raise _Evil(f"metadata.yaml: {member.size} bytes")
        self.files.add("metadata.yaml")

    def _in_dev(self, name: str) -> bool:
        return name.startswith("dev/" if self.part == "rootfs" else "rootfs/dev/")


def scan(path: Path, name: str, part: str) -> Scanned:
    """Read the tarball to its end; part: ``unified``, ``metadata`` or ``rootfs``. Raises Refused, naming the member."""
    seen = _Scan(part)
    hint = "an image is unpacked as root: use one from a source that you trust"
    try:
        with unpacking(path) as stream:
            for member in _members(stream):
                seen.see(member)
    except (_Evil, Bomb) as error:
        raise Refused(Problem(f"{name}: refused: {error}", hint=hint)) from None
    except (Damaged, tarfile.TarError, EOFError, ValueError) as error:
        raise Refused(Problem(f"{name}: damaged: {error}")) from None
    return Scanned("metadata.yaml" in seen.files, seen.rootfs)


def _inside(name: str, what: str) -> str:
    """The name without ``./`` and slashes at its end. Raises for one that leads outside."""
    if name.startswith("/") or "\0" in name or len(name) > 4096:
        raise _Evil(f"{what} {name[:200]!r}: absolute, or too long")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _Evil(f"{what} {name[:200]!r}: leads outside")
    return "/".join(parts)


def _members(stream: Unpacking) -> Iterator[tarfile.TarInfo]:
    """Every member, and then the certainty that nothing follows that another tar would go on reading."""
    archive = tarfile.TarFile(fileobj=stream, tarinfo=_Header)
    count = 0
    while (member := archive.next()) is not None:
        count += 1
        if count > MAX_MEMBERS:
            raise _Evil(f"more than {MAX_MEMBERS} members")
        yield member
        vars(archive)["members"].clear()  # it would keep every one of them in memory
    if count == 0:
        raise Damaged("not a tarball")
    stream.nothing_follows()
