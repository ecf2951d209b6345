"""``lifetime: session``: whose end is the guests' end, and the process that waits for it (see docs/adr/0020).

    RUNTIME/owners/<pid>-<started>/     one folder an owner, as long as it has guests
        alive                           flock held by the keeper, which holds a pidfd of the owner
        log                             what the keeper said
        guests/<environment>.json       the guests that end with it; written under the environment's lock

The keeper is started before the guests are: an apply that is cut off leaves none that nobody would end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.qemu import companions
from reconciler.model import GUESTS, LOCAL_HOST, QEMU, Desired, ResourceId, lxd_backend
from reconciler.paths import private_dir, runtime_dir, write_private
from reconciler.planning.towers import machines_of
from reconciler.problems import Problem, UsageError

SESSION = "session"
LOGINS = Path("/run/systemd/sessions")
"""Where systemd-logind says which process leads a login."""
_KEEPER = Path(__file__).with_name("keeper.py")
_PASSED_ON = ("HOME", "LXD_DIR", "LXD_SOCKET", "PATH", "RECONCILER_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, beyond doubt: pids are used again, a pid with its start (clock ticks since boot) is not."""

    pid: int
    started: int

    @property
    def folder(self) -> Path:
        """Where its keeper is at home."""
        return runtime_dir() / "owners" / f"{self.pid}-{self.started}"

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Bound:
    """A guest that ends with its owner. machine: the VM that it is in, by name."""

    id: ResourceId
    backend: str
    machine: str | None = None


def keep(
    desired: Mapping[ResourceId, Desired], concerned: Iterable[ResourceId], environment: str, named: int | None
) -> None:
    """Have every guest with ``lifetime: session`` end with its owner: the one that it has, or the one of this command.

    concerned: what the command is about; named: the pid that ``--owner`` says, which takes them over.
    The caller holds the environment's lock. Raises UsageError when there is no owner to be found, or no way to keep.
    """
    about = set(concerned)
    if not (bound := [one for one in guests(desired) if one.id in about]):
        return
    kept = _sweep(environment)
    bound = bound if named is not None else [one for one in bound if one not in kept]
    if not bound:
        return
    owner = find(named)
    _write(owner, environment, dict.fromkeys([*bound_to(owner.folder, environment), *bound]))
    start(owner)
    for other in _owners():  # only now: whatever we are cut off in, somebody ends them
        if other != owner:
            _write(other, environment, [one for one in bound_to(other.folder, environment) if one not in bound])


def guests(desired: Mapping[ResourceId, Desired]) -> list[Bound]:
    """Those that are declared so. Raises UsageError for one that lives where a keeper of ours cannot look."""
    machines, found = machines_of(desired), []
    for id, want in sorted(desired.items()):
        if id.kind not in GUESTS or want.spec.get("lifetime") != SESSION:
            continue
        machine = machines.get(want.backend)
        if machine is None and want.backend not in (QEMU, lxd_backend(LOCAL_HOST)):
            summary = "lifetime: session is for guests of this machine, and of its VMs"
            raise UsageError(Problem(summary, want.mark, str(id), hint="leave lifetime out: it outlives the command"))
        found.append(Bound(id, want.backend, machine.name if machine else None))
    return found


def find(named: int | None, logins: Path = LOGINS) -> Owner:
    """The named process; else the one that leads the login, else the leader of our own session of processes."""
    if named is not None:
        return _owner(named, "--owner: there is no such process")
    leader = _login(logins) or os.getsid(0)
    if leader in (0, os.getpid()):
        summary = "lifetime: session: this command belongs to no session that outlives it"
        raise UsageError(Problem(summary, hint="say with which process the guests are to end: --owner PID"))
    return _owner(leader, "lifetime: session: the session that this command belongs to has ended")


def _login(logins: Path) -> int | None:
    """The leader of the login that we belong to, where systemd-logind keeps book."""
    name = os.environ.get("XDG_SESSION_ID", "")
    if not name.isalnum():
        return None
    with suppress(OSError, ValueError):
        lines = (line.partition("=") for line in (logins / name).read_text().splitlines())
        return next((int(value) for key, _, value in lines if key == "LEADER"), None)
    return None


def _owner(pid: int, otherwise: str) -> Owner:
    began = started(pid)
    if began is None:
        raise UsageError(Problem(otherwise, subject=str(pid), hint="say with which process they end: --owner PID"))
    return Owner(pid, began)


def started(pid: int) -> int | None:
    """Clock ticks from the host's boot to its start; None when it has ended, a zombie included."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


def start(owner: Owner) -> None:
    """Its keeper runs. Raises UsageError when it has ended meanwhile."""
    alive = private_dir(owner.folder) / "alive"
    if companions.is_held(alive):
        return
    try:
        handle = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        handle = -1
    try:
        if handle < 0 or not owner.lives:  # only now: what the pidfd stands for can no longer change
            raise UsageError(Problem("lifetime: session: its owner has ended", subject=str(owner.pid)))
        _spawn(owner.folder, alive, handle)
    finally:
        if handle >= 0:
            os.close(handle)


def _spawn(folder: Path, alive: Path, handle: int) -> None:
    with companions.hold(alive, "lifetime: session", "keeper") as held, (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", _KEEPER, str(handle), folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(handle, held),
            start_new_session=True,
            cwd="/",
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LANG": "C.UTF-8"},
            umask=0o077,
        )
    companions.let_outlive(child)


def environments(folder: Path) -> list[str]:
    """Those that have guests which end with this owner."""
    return sorted(path.stem for path in (folder / "guests").glob("*.json"))


def _sweep(environment: str) -> list[Bound]:
    """The guests whose end is taken care of. A keeper that was killed is started again; one that ended too early, with
    its owner, leaves guests that nobody keeps."""
    kept: list[Bound] = []
    for owner in _owners():
        if owner.lives:
            start(owner)
            kept += bound_to(owner.folder, environment)
        elif not companions.is_held(owner.folder / "alive"):
            _write(owner, environment, [])
    return kept


def _owners() -> list[Owner]:
    folder = runtime_dir() / "owners"
    names = [path.name.split("-") for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [Owner(int(name[0]), int(name[1])) for name in names]


def bound_to(folder: Path, environment: str) -> list[Bound]:
    """The guests of that environment that end with this owner."""
    with suppress(OSError, ValueError):
        return [
            Bound(ResourceId.parse(one["id"]), one["backend"], one["machine"])
            for one in json.loads((folder / "guests" / f"{environment}.json").read_bytes())
        ]
    return []


def _write(owner: Owner, environment: str, bound: Iterable[Bound]) -> None:
    """An owner without guests has no folder, once its keeper is gone."""
    folder = owner.folder / "guests"
    if rest := [{"id": str(one.id), "backend": one.backend, "machine": one.machine} for one in bound]:
        write_private(private_dir(folder) / f"{environment}.json", json.dumps(rest).encode())
        return
    (folder / f"{environment}.json").unlink(missing_ok=True)
    if not any(folder.glob("*.json")) and not companions.is_held(owner.folder / "alive"):
        shutil.rmtree(owner.folder, ignore_errors=True)
