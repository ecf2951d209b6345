"""NAMES, the place: a block of /etc/hosts, or a folder that dnsmasq watches; which of them serves here, and why.

One of them at a time: a dnsmasq reads /etc/hosts when it starts, and would go on answering what stood there then.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.names import dnsmasq
from reconciler.names.block import has_block, lines_of, maintain
from reconciler.names.dnsmasq import Entry
from reconciler.names.lines import Names, carried_over
from reconciler.ports import Check
from reconciler.problems import Problem, UsageError

HOSTS, DNSMASQ = "hosts", "dnsmasq"
"""The two kinds of places."""
_FOLDERS = ("etc/dnsmasq.d", "etc/NetworkManager/dnsmasq.d")
_RESOLVED = ("127.0.0.53", "127.0.0.54")
_ONCE = "have dnsmasq started again, once: systemctl restart dnsmasq (or NetworkManager, where that runs it)"


@dataclass(frozen=True, slots=True)
class Place:
    """Where names are kept: in this file, or by this entry."""

    path: Path
    entry: Entry | None = None

    def keep(self, found: Names, whole: bool) -> bool:
        """Bring it up to date; whether anything had to be written. Raises Refused."""
        return self.entry.keep(found, whole) if self.entry is not None else maintain(self.path, found, whole)

    def problems(self) -> list[Problem]:
        """What keeps the names from being answered from there."""
        if self.entry is None or self.entry.is_heard():
            return []
        return [Problem("no dnsmasq answers from there yet", subject=str(self.path), hint=_ONCE)]


@dataclass(frozen=True, slots=True)
class Usual:
    """The usual places of this host. root: /, but in tests."""

    root: Path = Path("/")

    @property
    def hosts(self) -> Place:
        """/etc/hosts itself, wherever it leads."""
        return Place((self.root / "etc/hosts").resolve())

    @property
    def entries(self) -> list[Entry]:
        """The folders of dnsmasq that there are."""
        return [Entry(self.root / name) for name in _FOLDERS if (self.root / name).is_dir()]

    def choose(self, kind: str | None = None, attended: bool = False) -> Place:
        """Where names are to be kept: as somebody says (kind), as it was set up before, else as it is best.

        attended: somebody is there to start a dnsmasq again; without, a new entry of dnsmasq is not begun.
        Raises UsageError.
        """
        if kind == DNSMASQ:
            return self._dnsmasq()
        there = [entry for entry in self.entries if entry.is_there()]
        if kind is None and there:
            return _place(there[0])
        if kind is None and attended and not has_block(self.hosts.path) and (entry := self.better()) is not None:
            return _place(entry)
        return self.hosts

    def keep(self, place: Place, found: Names, whole: bool) -> bool:
        """Bring one of the usual places up to date, and take what is ours out of the others. Raises Refused."""
        found = self._with_old(found, whole)
        changed = place.keep(found, whole)
        for entry in self.entries:
            if entry != place.entry:
                changed = entry.remove() or changed
        if place.entry is not None:
            changed = maintain(self.hosts.path, Names([], []), whole=True) or changed
        return changed

    def _with_old(self, found: Names, whole: bool) -> Names:
        """With what the places tell of that could not be looked at this time: it moves along from one to another."""
        places = [self.hosts.path, *(entry.file for entry in self.entries)]
        before = list(dict.fromkeys(line for path in places for line in lines_of(path)))
        return Names(carried_over(before, found, whole), found.problems)

    def remove(self) -> bool:
        """Take all that is ours away; whether there was any. Raises Refused."""
        return any([maintain(self.hosts.path, Names([], []), whole=True), *(entry.remove() for entry in self.entries)])

    def better(self) -> Entry | None:
        """The dnsmasq that this host asks, where there is one that can be told of names."""
        if not self._asks_dnsmasq() or (dnsmasq.version() or (0, 0)) < dnsmasq.FIRST:
            return None
        return next((entry for entry in self.entries if entry.is_read()), None)

    def _dnsmasq(self) -> Place:
        known = self.entries
        if not known:
            hint = f"name the folder of configuration that it reads: --write FOLDER; usual are {', '.join(_FOLDERS)}"
            raise UsageError(Problem("no dnsmasq is set up on this host", hint=hint))
        there = [entry for entry in known if entry.is_there()] or [entry for entry in known if entry.is_read()]
        return _place((there or known)[0])

    # -- for doctor -------------------------------------------------------------------------------------------------

    def check(self) -> Check:
        """Where names are kept, and who answers by them."""
        there = next((entry for entry in self.entries if entry.is_there()), None)
        if there is not None:
            heard = there.is_heard()
            words = "is answered by dnsmasq" if heard else "is not read by any dnsmasq that runs"
            return Check("names", heard, f"{there.watched} {words}", "" if heard else _ONCE)
        used = has_block(self.hosts.path)
        words = f"a block of {self.hosts.path}" if used else "none are kept (reconciler hosts --write)"
        if self._asks_resolved():
            if not self._resolved_reads_hosts():
                hint = "ReadEtcHosts=yes in resolved.conf: until then only programs that read the file know of it"
                return Check("names", False if used else None, f"{words}; systemd-resolved does not read it", hint)
            return Check("names", used or None, f"{words}; systemd-resolved answers from it, too")
        if (entry := self.better()) is not None:
            hint = f"dnsmasq could answer, for all who ask it: reconciler hosts --write --to {DNSMASQ}"
            return Check("names", None, f"{words}; dnsmasq reads {entry.folder}", hint)
        return Check("names", used or None, words)

    def _asks_dnsmasq(self) -> bool:
        first = next(self._servers(), "")
        try:
            return ipaddress.ip_address(first).is_loopback and first not in _RESOLVED
        except ValueError:
            return False

    def _asks_resolved(self) -> bool:
        return next(self._servers(), "") in _RESOLVED

    def _servers(self) -> Iterator[str]:
        for line in _lines(self.root / "etc/resolv.conf"):
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                yield words[1].partition("%")[0]

    def _resolved_reads_hosts(self) -> bool:
        """By its configuration: the last word counts, and the files of folders come after the main one, by name."""
        folders = [self.root / place / "systemd/resolved.conf.d" for place in ("usr/lib", "run", "etc")]
        extra = {file.name: file for folder in folders for file in folder.glob("*.conf")}
        files = [self.root / "etc/systemd/resolved.conf", *(extra[name] for name in sorted(extra))]
        said = [line.partition("=") for file in files for line in _lines(file)]
        values = [value.strip().lower() for key, _, value in said if key.strip() == "ReadEtcHosts"]
        return not values or values[-1] not in ("no", "false", "off", "0", "n", "f")


def named(path: Path) -> Place:
    """A file that somebody named, or a folder of configuration that a dnsmasq reads."""
    real = path.resolve()
    return _place(Entry(real)) if real.is_dir() else Place(real)


def _place(entry: Entry) -> Place:
    return Place(entry.watched, entry)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
