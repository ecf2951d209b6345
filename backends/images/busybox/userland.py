"""APPLY, recipe ``busybox``: the files that container and VM have in common, and where busybox itself comes from."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from reconciler.backends.images import elf
from reconciler.backends.images.busybox import script
from reconciler.backends.images.packages import read, workshop
from reconciler.backends.images.tree import Tree, file, folder, link, with_parents
from reconciler.model import Json
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused

HOST_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"), Path("/bin/busybox-static"))
PACKAGE = "busybox-static"
OURS = frozenset({"sbin/init", "linuxrc"})
"""Paths of applets that our own init takes the place of."""

ETC: Mapping[str, str] = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\ndisk:x:6:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "etc/filesystems": "ext4\niso9660\nvfat\nsquashfs\nerofs\n",
    "etc/hostname": "busybox\n",
    "etc/resolv.conf": "",
    "etc/shells": "/bin/sh\n/bin/ash\n",
    "etc/os-release": 'NAME="Busybox"\nID=busybox\nPRETTY_NAME="Busybox, made by reconciler"\n',
}


_INSTEAD = "there is no package manager in it: use files:, or the guest's own run:"
_HINTS = {"packages": _INSTEAD, "commands": _INSTEAD, "kernel": "a container runs on the host's kernel"}


def userland(busybox: bytes, applets: list[str]) -> Tree:
    """Everything but the init."""
    tree: Tree = {path: link("/bin/busybox") for path in applets if path not in OURS}
    tree |= {
        path: folder() for path in ("dev", "proc", "sys", "run", "mnt", "usr/local/bin", "var/lib/cloud", "var/log")
    }
    tree |= {"root": folder(0o700), "tmp": folder(0o1777), "var/tmp": folder(0o1777), "var/run": link("../run")}
    tree |= {path: file(text.encode()) for path, text in ETC.items()}
    tree["bin/busybox"] = file(busybox, 0o755)
    tree["etc/shadow"] = file(b"root:*:::::::\ndaemon:*:::::::\nnobody:*:::::::\n", 0o600)
    tree["etc/profile"] = file(script("profile.sh"))
    tree["lib/reconciler/common.sh"] = file(script("common.sh"))
    tree["lib/reconciler/console"] = file(script("console.sh"), 0o755)
    tree["usr/share/udhcpc/default.script"] = file(script("dhcp.sh"), 0o755)
    return tree


def find_busybox(work: Path, tell: Tell) -> tuple[bytes, list[str]]:
    """A static busybox and the paths of its applets: the host's own, else the one of the distribution's package.

    Raises Refused where neither is to be had, Unreachable when the package mirror does not answer.
    """
    if os.uname().machine != "x86_64":
        raise Refused(Problem(f"recipe busybox: made for x86_64 only, this is {os.uname().machine}"))
    for path in HOST_BUSYBOX:
        if path.is_file() and elf.is_static(data := path.read_bytes()):
            return data, _applets(path)
    return _packaged(work, tell)


def _packaged(work: Path, tell: Tell) -> tuple[bytes, list[str]]:
    with workshop(work, tell) as packages:
        files = read(packages.download(PACKAGE), ("bin/busybox", "usr/bin/busybox"))
        for data in filter(elf.is_static, files.values()):
            path = packages.folder / "busybox"
            path.write_bytes(data)
            path.chmod(0o700)
            return data, _applets(path)
    raise Refused(Problem(f"package {PACKAGE}: no static busybox in it", hint=f"apt-get install -y {PACKAGE}"))


def _applets(path: Path) -> list[str]:
    answer = subprocess.run([path, "--list-full"], capture_output=True, text=True, timeout=30)
    found = [name for name in answer.stdout.split("\n") if re.fullmatch(r"(usr/)?s?bin/[\w.\[-]+|linuxrc", name)]
    if answer.returncode or not found:
        raise Refused(Problem(f"{path}: does not say which applets it has", detail=answer.stderr or None))
    return found


def version_of(busybox: bytes) -> str:
    """As busybox itself says it: ``1.35.0``."""
    found = re.search(rb"BusyBox v(\d+(?:\.\d+)+)", busybox)
    return found[1].decode() if found else "unknown"


def with_extra(root: Tree, extra: Tree) -> Tree:
    """Both; what was asked for wins. Raises Refused for a path that leads through a link: it would end up elsewhere."""
    whole = {**root, **extra}
    inner = {path for path, node in with_parents(root).items() if stat.S_ISDIR(node.mode)}
    for path in extra:
        for parent in PurePosixPath(path).parents:
            if str(parent) in whole and not stat.S_ISDIR(whole[str(parent)].mode):
                raise Refused(Problem(f"files: /{path}: /{parent} is not a folder"))
        if path in inner:
            raise Refused(Problem(f"files: /{path} is a folder"))
    return whole


def extra_files(build: Mapping[str, Json]) -> Tree:
    """The ``files`` of the recipe: {path, content, mode}. Raises Refused for a path that leads anywhere odd."""
    tree: Tree = {}
    for wanted in build.get("files", ()):
        path = wanted["path"].lstrip("/")
        if not path or any(part in ("", ".", "..") for part in path.split("/")):
            raise Refused(Problem(f'files: expected an absolute path without "..", got "{wanted["path"]}"'))
        tree[path] = file(wanted["content"].encode(), int(str(wanted.get("mode", "0644")), 8))
    return tree


def check_fields(build: Mapping[str, Json], known: frozenset[str]) -> None:
    """Raises Refused for whatever this recipe has no use for, rather than leaving it out in silence."""
    for field in sorted(build.keys() - known):
        raise Refused(Problem(f"recipe busybox: takes no {field}", hint=_HINTS.get(field)))
