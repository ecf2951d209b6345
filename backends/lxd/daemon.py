"""The embedded LXD: a private daemon in a folder of its own, without systemd. ``doctor --fix`` and the tests start it.

It is detached and outlives the command. Who it is stands in ``reconciler.pid`` beside its socket: pid and start
time, written before LXD itself begins, and checked (with LXD_DIR in its environment) before any signal.

It lives in a mount namespace of its own, where its folder also stands below /var/lib/lxd: the root of a container is
an ordinary user of the host and could not pass through our 0700 state folder; and no mount of it is ever seen outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.backends.lxd.address import SOCKET_NAME, Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.paths import private_dir
from reconciler.problems import GuestFailed, Problem, Refused, Unreachable

RECORD = "reconciler.pid"
LOCK = "reconciler.lock"
LOG = "lxd.log"
STDERR = "lxd.stderr"
LONGEST_SOCKET = 107
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_WANTED = 1024
"""The kernel's 128 are used up by some forty containers (LXD and each init take several)."""

_POOL = "default"
_POLL = 0.05

_INSIDE = Path("/var/lib/lxd")
"""Where the namespace shows the folders of private LXDs; LXD's own place, which it does not need meanwhile."""

# The shell becomes LXD: so the record names LXD's own pid, and stands before LXD begins.
_LAUNCH = """
set -eu
echo "$$ $(cut -d' ' -f22 /proc/$$/stat)" > "$1/reconciler.pid"
if ! [ -e "$LXD_DIR" ]; then
    mount -t tmpfs -o mode=711,size=64k reconciler "$(dirname "$LXD_DIR")"
    mkdir "$LXD_DIR"
    mount --bind "$1" "$LXD_DIR"
fi
exec lxd --group root --logfile "$LXD_DIR/lxd.log"
"""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running LXD of ours. started: its start time in clock ticks since boot, which no later process shares."""

    folder: Path
    pid: int
    started: int

    @property
    def socket(self) -> Path:
        return self.folder / SOCKET_NAME


def start(folder: Path, timeout: float = 120.0) -> Daemon:
    """Have an LXD running in that folder and answering; the one that runs there already is taken as it is."""
    _check_possible(folder)
    private_dir(folder)
    raise_inotify_limit()
    with _one_at_a_time(folder):
        deadline = Deadline.after(timeout)
        daemon = find(folder) or _launch(folder, deadline)
        _wait_until_it_answers(daemon, deadline)
    return daemon


def find(folder: Path) -> Daemon | None:
    """The LXD that runs in that folder, if it is still the process that was recorded."""
    daemon = _recorded(folder)
    return daemon if daemon is not None and _is_itself(daemon) else None


def _recorded(folder: Path) -> Daemon | None:
    """The one that was started last, whether it still runs or not."""
    try:
        pid, started = (int(word) for word in (folder / RECORD).read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return None
    return Daemon(folder, pid, started)


def stop(folder: Path, timeout: float = 120.0) -> None:
    """Stop it and every container in it, by force where they do not follow, and see that nothing of it is left.

    What a killed daemon left behind is taken up by a fresh one first, which then stops it properly.
    """
    deadline = Deadline.after(timeout)
    daemon = find(folder)
    if daemon is None and leftovers(folder):
        daemon = start(folder, deadline.left)
    if daemon is not None:
        _stop_containers(daemon, deadline)
        _signal_and_wait(daemon, signal.SIGPWR, deadline)
    _sweep(folder, deadline)
    (folder / RECORD).unlink(missing_ok=True)
    if left := leftovers(folder):
        raise GuestFailed(Problem(f"the LXD in {folder} did not stop cleanly", detail="\n".join(left)))


def preseed(client: Client) -> None:
    """What every container needs: a ``dir`` pool, and a root disk in the default profile. No network."""
    within = Deadline.after(30)
    if client.find("storage-pools", _POOL, within=within) is None and not client.get("storage-pools").metadata:
        client.post(("storage-pools",), {"name": _POOL, "driver": "dir", "config": {}}, within)
    profile = client.get("profiles", "default", within=within)
    if any(device.get("path") == "/" for device in profile.metadata["devices"].values()):
        return
    pool = str(client.get("storage-pools").metadata[0]).rpartition("/")[2]
    devices = {**profile.metadata["devices"], "root": {"type": "disk", "path": "/", "pool": pool}}
    body = {key: profile.metadata[key] for key in ("config", "description")} | {"devices": devices}
    client.put(("profiles", "default"), body, within, etag=profile.etag)


def raise_inotify_limit() -> bool:
    """Let more watches be made than the kernel's default; False when we may not (or need not)."""
    try:
        if int(INOTIFY.read_text(encoding="ascii")) >= INOTIFY_WANTED:
            return False
        INOTIFY.write_text(str(INOTIFY_WANTED), encoding="ascii")
    except OSError:
        return False
    return True


def leftovers(folder: Path) -> list[str]:
    """What of an LXD in that folder is still there: processes, mounts, sockets that answer. In words."""
    found = [f"process {pid}: {_command_line(pid)}" for pid in _processes(folder)]
    return found + [f"mount {mount}" for mount in _mounts(folder)]


def _check_possible(folder: Path) -> None:
    if os.geteuid() != 0:
        raise Refused(Problem("only root can start an LXD", hint="be root, or use an LXD that runs already"))
    if shutil.which("lxd") is None:
        raise Refused(Problem("there is no lxd on this machine", hint="apt-get install -y lxd"))
    if len(os.fsencode(folder / SOCKET_NAME)) > LONGEST_SOCKET:
        raise Refused(
            Problem(
                f"{folder / SOCKET_NAME} is too long for a unix socket ({LONGEST_SOCKET} bytes)",
                hint="name a shorter folder in RECONCILER_STATE_DIR",
            )
        )


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two that start it at once would each take away the other's socket."""
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def inside(folder: Path) -> Path:
    """The folder as the LXD in it sees it: its LXD_DIR. Stable, so that what it writes down stays true."""
    return _INSIDE / f"r{zlib.crc32(os.fsencode(folder.absolute())):08x}"


def _launch(folder: Path, deadline: Deadline) -> Daemon:
    (folder / SOCKET_NAME).unlink(missing_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    _INSIDE.mkdir(mode=0o711, exist_ok=True)
    with (folder / STDERR).open("wb") as stderr:
        subprocess.run(
            ["setsid", "--fork", *_namespace(folder), "sh", "-c", _LAUNCH, "lxd", str(folder)],
            env={**os.environ, "LXD_DIR": str(inside(folder))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd="/",
            check=True,
        )
    deadline = deadline.within(30)
    while (daemon := _recorded(folder)) is None:  # one that died since is not waited for either
        if deadline.passed:
            raise Unreachable(Problem("lxd did not start", detail=_last_words(folder)))
        time.sleep(_POLL)  # until the shell has written its record
    return daemon


def _namespace(folder: Path) -> list[str]:
    """A new mount namespace, or that of containers which outlived their daemon: it has to reach into them."""
    survivor = next(_processes(folder), None)
    if survivor is not None:
        return ["nsenter", f"--mount=/proc/{survivor}/ns/mnt"]
    return ["unshare", "--mount", "--propagation", "slave"]


def _wait_until_it_answers(daemon: Daemon, deadline: Deadline) -> None:
    client = Client(Address(socket=daemon.socket))
    try:
        while True:
            try:
                client.get(within=deadline)
                return
            except Unreachable as error:
                if deadline.passed or not _is_itself(daemon):
                    problem = Problem("lxd started and does not answer", detail=_last_words(daemon.folder))
                    raise Unreachable(problem) from error
                time.sleep(_POLL)  # nobody tells when its socket is there
    finally:
        client.close()


def _stop_containers(daemon: Daemon, deadline: Deadline) -> None:
    """By force, and at once: a daemon that is stopped waits half a minute for each that does not listen."""
    client = Client(Address(socket=daemon.socket))
    order = {"state": {"action": "stop", "force": True, "timeout": 10}}
    with contextlib.suppress(Refused, Unreachable), contextlib.closing(client):
        for project in client.get("projects", within=deadline).metadata:
            client.put(("instances",), order, deadline, project=project.rpartition("/")[2])


def _signal_and_wait(daemon: Daemon, number: signal.Signals, deadline: Deadline) -> bool:
    """Signal exactly that process (never one that got its pid since) and wait for its end; False when it stays."""
    try:
        handle = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return True
    try:
        if not _is_itself(daemon):  # asked after the handle is held: now it cannot be exchanged
            return True
        signal.pidfd_send_signal(handle, number)
        return bool(select.select([handle], [], [], deadline.left)[0])
    finally:
        os.close(handle)


def _sweep(folder: Path, deadline: Deadline) -> None:
    """End what still runs there (usually nothing); its mounts go with the last process of its namespace."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _processes(folder):
            if (started := _start_time(pid)) is not None:
                _signal_and_wait(Daemon(folder, pid, started), number, deadline.within(5))
    for pivot in (*Path("/sys/fs/cgroup").glob("lxc.pivot"), *Path("/sys/fs/cgroup").glob("*/lxc.pivot")):
        with contextlib.suppress(OSError):  # another LXC may be using it, and makes it anew when it needs it
            pivot.rmdir()


def _is_itself(daemon: Daemon) -> bool:
    return _start_time(daemon.pid) == daemon.started and _lives_in(daemon.pid, daemon.folder)


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _lives_in(pid: int, folder: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"LXD_DIR=" + os.fsencode(inside(folder)) in environment


def _processes(folder: Path) -> Iterator[int]:
    """The daemon and its helpers: dnsmasq, forkproxy, container monitors. All of them inherit LXD_DIR."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _lives_in(int(entry.name), folder):
            words = _command_line(int(entry.name))
            if _start_time(int(entry.name)) is not None and any(name in words for name in _HELPERS):
                yield int(entry.name)


_HELPERS = ("lxd", "lxc monitor", "dnsmasq", "forkproxy", "forkdns")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _mounts(folder: Path) -> list[str]:
    """Mount points that can be seen from here and are of that LXD: there should never be any."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [point for point in points if point.startswith((f"{folder}/", str(inside(folder))))]


def _last_words(folder: Path) -> str:
    parts = []
    for name in (STDERR, LOG):
        with contextlib.suppress(OSError):
            parts += (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    return "\n".join(parts)
