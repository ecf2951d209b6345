"""DOCTOR: what this backend needs of the machine, and how to mend what is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from reconciler.backends.lxd import daemon
from reconciler.backends.lxd.address import Address, embedded_folder, resolve_address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from reconciler.ports import Check, Settings, Tell
from reconciler.problems import BackendError, Problem, Refused

EXTENSIONS = (
    "etag",
    "patch",
    "instances",
    "projects",
    "storage",
    "network",
    "entity_description",
    "directory_manipulation",
    "container_exec_signal_handling",
    "console",
    "container_protection_delete",
    "storage_api_volume_snapshots",
    "instance_bulk_state_change",
    "cloud_init",
)
"""What we ask of LXD's API; LXD 5.0 has them all."""

_ANSWER = 5.0
_SUBORDINATES = 65536
_FOR_LXD = ("root", "lxd", "_lxd")


def checks(settings: Settings) -> list[Check]:
    """One line each; the later ones can only be told when an LXD answers."""
    address = resolve_address({"socket": "auto"}, settings.state)
    found = [_installed(), _subordinate_ids(), _control_groups(), _bridge_tools(), _inotify()]
    client = Client(address)
    with contextlib.closing(client):
        return [*found, *_answering(client, address, settings)]


def start_embedded(state: Path, tell: Tell) -> daemon.Daemon:
    """Start the private LXD below the state folder and give it what containers need."""
    tell("starting a private LXD")
    started = daemon.start(embedded_folder(state))
    with contextlib.closing(Client(Address(socket=started.socket))) as client:
        daemon.preseed(client)
    return started


def _installed() -> Check:
    path = shutil.which("lxd")
    if path:
        return Check("lxd", True, path)
    fix = _install("lxd", "lxd-client") if os.geteuid() == 0 and shutil.which("apt-get") else None
    return Check("lxd", False, "not installed", "apt-get install -y lxd lxd-client", fix)


def _install(*packages: str) -> Callable[[Tell], None]:
    def fix(tell: Tell) -> None:
        import subprocess

        tell(f"installing {' '.join(packages)}")
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(Problem(f"{' '.join(packages)}: cannot be installed", detail=done.stderr[-2000:]))

    return fix


def _answering(client: Client, address: Address, settings: Settings) -> Iterator[Check]:
    try:
        server = client.get(within=Deadline.after(_ANSWER)).metadata
    except BackendError as error:
        yield _silent(error.problem, address, settings)
        return
    version = server["environment"]["server_version"]
    yield Check("LXD answers", True, f"LXD {version} at {address} ({address.origin})", facts={"socket": str(address)})
    missing = [name for name in EXTENSIONS if name not in server["api_extensions"]]
    found = "all that are needed" if not missing else f"missing: {', '.join(missing)}"
    yield Check("LXD API extensions", not missing, found, "LXD 5.0 or newer has them", facts={"missing": missing})
    yield from _furniture(client)


def _silent(problem: Problem, address: Address, settings: Settings) -> Check:
    embedded = address.socket == embedded_folder(settings.state) / "unix.socket"
    fix = None
    hint = problem.hint or ""
    if embedded and os.geteuid() == 0 and shutil.which("lxd"):
        hint = "a private one can be started below the state folder; it needs no systemd"

        def fix(tell: Tell) -> None:
            start_embedded(settings.state, tell)
    elif embedded and os.geteuid() != 0:
        hint = "containers need root here: sudo reconciler doctor --fix starts a private LXD, for root; VMs need none"
    return Check("LXD answers", False, f"{problem.summary} ({address.origin})", hint, fix)


def _furniture(client: Client) -> Iterator[Check]:
    """What a container needs that says nothing about where its root disk goes."""
    within = Deadline.after(_ANSWER)
    pools = [pool["name"] for pool in client.get("storage-pools", within=within, recursion="1").metadata]
    profile: dict[str, Any] = client.get("profiles", "default", within=within).metadata
    root = any(device.get("path") == "/" for device in profile["devices"].values())
    address = client.address

    def fix(tell: Tell) -> None:
        tell("making a storage pool and a root disk in the default profile")
        with contextlib.closing(Client(address)) as fresh:
            daemon.preseed(fresh)

    hint = "lxd init --minimal, or reconciler doctor --fix"
    yield Check("storage pool", bool(pools), ", ".join(pools) or "none", hint, fix)
    found = "has a root disk" if root else "has no root disk"
    yield Check("default profile", root, found, hint, fix)


def _bridge_tools() -> Check:
    """What LXD calls for a managed network; containers without one need neither."""
    firewall = shutil.which("nft") or shutil.which("iptables")
    missing = [*([] if shutil.which("dnsmasq") else ["dnsmasq"]), *([] if firewall else ["nft or iptables"])]
    if not missing:
        return Check("bridge tools", True, f"dnsmasq, {Path(str(firewall)).name}")
    fix = _install("dnsmasq-base", "iptables") if os.geteuid() == 0 and shutil.which("apt-get") else None
    hint = "networks need them: apt-get install -y dnsmasq-base iptables"
    return Check("bridge tools", None, f"no {', no '.join(missing)}", hint, fix)


def _inotify() -> Check:
    """Each container takes some inotify instances of root's; with the kernel's 128, LXD stops at about forty."""
    try:
        now = int(daemon.INOTIFY.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Check("inotify instances", None, "cannot be read")
    fine = now >= daemon.INOTIFY_WANTED
    hint = f"sysctl fs.inotify.max_user_instances={daemon.INOTIFY_WANTED}; the embedded LXD raises it when it starts"

    def fix(tell: Tell) -> None:
        tell(f"raising fs.inotify.max_user_instances from {now} to {daemon.INOTIFY_WANTED}")
        if not daemon.raise_inotify_limit():
            raise Refused(Problem("fs.inotify.max_user_instances cannot be raised here", hint="do it on the host"))

    return Check("inotify instances", fine, f"{now} per user", hint, fix if os.geteuid() == 0 else None)


def _subordinate_ids() -> Check:
    """Unprivileged containers need a range of ids that belongs to nobody else."""
    hint = 'add "root:1000000:1000000000" to /etc/subuid and /etc/subgid'
    short = [name for name in ("subuid", "subgid") if _range(Path("/etc") / name) < _SUBORDINATES]
    if short:
        return Check("subordinate ids", False, f"too few for root in /etc/{' and /etc/'.join(short)}", hint)
    return Check("subordinate ids", True, f"{_range(Path('/etc/subuid'))} for root")


def _range(path: Path) -> int:
    """The longest range of ids given to root or LXD; without the file, LXD takes a billion by itself."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 1_000_000_000
    fields = [line.split(":") for line in lines]
    return max((int(one[2]) for one in fields if len(one) == 3 and one[0] in _FOR_LXD and one[2].isdigit()), default=0)


def _control_groups() -> Check:
    mounted = [
        line.split()[2]
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        if line.split()[2] in ("cgroup", "cgroup2")
    ]
    if not mounted:
        hint = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return Check("control groups", False, "not mounted", hint)
    kinds = [name for name, there in (("v1", "cgroup" in mounted), ("v2", "cgroup2" in mounted)) if there]
    return Check("control groups", True, " and ".join(kinds))
