"""APPLY and the way in: a VM that hosts LXD. Its API is trusted through the guest agent and reached by a port of ours.

No password ever: the agent, which only we can talk to, gives our certificate to the LXD inside and brings back the
certificate of that LXD, so that each side knows the other beyond doubt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.backends.qemu import process, readiness
from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder, all_folders, folder_of
from reconciler.backends.qemu.readiness import Guest
from reconciler.backends.qemu.records import Record, load, save
from reconciler.model import Json, Spec
from reconciler.paths import private_dir, write_private
from reconciler.ports import Settings, Tell
from reconciler.problems import BackendError, Problem, Refused, Unreachable

PORT = 8443
"""Where the LXD inside listens."""
CERTIFICATE = "/var/lib/lxd/server.crt"
NAME = "_lxd"
"""Our forward's name among those that are declared, none of which begins with an underscore."""
_TIMEOUT = 180.0
_AGENT = 5.0
"""Seconds for the agent of a guest that has been up for a while."""
_OURS = "/run/reconciler.crt"
_VALID = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Reach:
    """How the LXD in a VM is reached: a URL of this host, and the certificates (files) of both sides."""

    url: str
    server_certificate: Path
    client_certificate: Path
    client_key: Path


def forward(spec: Spec, record: Record) -> dict[str, Json]:
    """What is forwarded to the LXD inside, as if it had been declared; nothing for a VM that hosts none."""
    if not spec.get("lxd") or record.lxd_port is None:
        return {}
    return {NAME: {"listen": f"127.0.0.1:{record.lxd_port}", "port": PORT, "protocol": "tcp"}}


def with_port(folder: Folder, record: Record, spec: Spec) -> Record:
    """The record with a port for the LXD inside: the one that it had, while nobody else has taken it."""
    if not spec.get("lxd") or (record.lxd_port is not None and _is_free(record.lxd_port)):
        return record
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return save(folder, record.but(lxd_port=port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def trust(guest: Guest, spec: Spec, state: Path, tell: Tell, limit: float) -> Record:
    """Wait for the LXD inside, and see that it and we know each other. GuestFailed when it does not come up."""
    record = guest.record
    if not spec.get("lxd"):
        return record
    timeout = spec.get("ready", {}).get("timeout", _TIMEOUT)
    readiness.await_ready(guest, {"tcp": PORT, "timeout": timeout}, True, tell, limit)
    mine = identity(state)
    with Agent(guest.folder.agent, guest.subject) as agent:
        theirs = agent.read_file(CERTIFICATE)
        agreed = hashlib.sha256(theirs + mine[0].read_bytes()).hexdigest()
        if record.lxd_trust != agreed or not certificate(guest.folder).exists():
            tell("introducing ourselves to the LXD inside")
            agent.write_file(_OURS, mine[0].read_bytes())
            done = agent.run(["lxc", "config", "trust", "add", _OURS, "--name", "reconciler"], 120.0)
            said = done.err.decode(errors="replace")
            if done.code and "already" not in said:
                raise Refused(
                    Problem("the LXD inside does not take our certificate", subject=guest.subject, detail=said)
                )
            write_private(certificate(guest.folder), theirs)
    return save(guest.folder, record.but(lxd_trust=agreed))


def certificate(folder: Folder) -> Path:
    """The certificate of the LXD inside, as its agent told it."""
    return folder.path / "lxd.crt"


def reach(settings: Settings, name: str) -> Reach:
    """The way to the LXD in the VM of that name. Unreachable, with the reason, when there is none right now."""
    subject = f"VirtualMachine/{name}"
    folder = folder_of(settings.state, settings.runtime, name)
    record = load(folder)
    if record is None:
        raise Unreachable(Problem("the VM that it is in does not exist", subject=subject))
    if not process.is_alive(folder):
        raise Unreachable(Problem("the VM that it is in does not run", subject=subject))
    if record.lxd_port is None or not certificate(folder).exists():
        raise Unreachable(Problem("the VM that it is in has not made us known to it yet", subject=subject))
    mine = identity(settings.state)
    return Reach(f"https://127.0.0.1:{record.lxd_port}", certificate(folder), *mine)


def read(settings: Settings, name: str, paths: Sequence[str]) -> dict[str, bytes]:
    """Files of the VM of that name, as its agent reads them; none of those that cannot be had."""
    folder, found = folder_of(settings.state, settings.runtime, name), dict[str, bytes]()
    try:
        with Agent(folder.agent, f"VirtualMachine/{name}", _AGENT) as agent:
            for path in paths:
                with suppress(Refused):
                    found[path] = agent.read_file(path)
    except BackendError:
        return {}  # it keeps silent: nobody can tell
    return found


def hosts(settings: Settings) -> list[str]:
    """The names of the VMs that run and host LXD."""
    found = []
    for folder in all_folders(settings.state, settings.runtime):
        try:
            record = load(folder)
        except BackendError:
            continue  # its own observation says what is wrong with it
        if record is not None and (record.applied or {}).get("lxd") and process.is_alive(folder):
            found.append(folder.name)
    return found


def identity(state: Path) -> tuple[Path, Path]:
    """Certificate and key that we show to every LXD in a VM; made at the first use, and kept."""
    folder = state / "identity"
    crt, key = folder / "client.crt", folder / "client.key"
    if not (crt.exists() and key.exists()):
        private_dir(folder)
        with _alone(folder):  # several VMs may come up at once, and one's key fits no other's certificate
            if not (crt.exists() and key.exists()):
                made = _make_identity()
                write_private(key, made["key"])
                write_private(crt, made["certificate"])
    return crt, key


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_identity() -> Mapping[str, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"reconciler@{os.uname().nodename}"[:64])])
    now = datetime.fromtimestamp(time.time(), UTC)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA384())
    )
    plain = serialization.NoEncryption()
    return {
        "key": key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        "certificate": made.public_bytes(serialization.Encoding.PEM),
    }
