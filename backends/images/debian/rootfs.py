"""APPLY, recipes ``debian`` and ``lxd-host``: the root file system, by mmdebstrap from the mirror."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from reconciler.backends.images.debian import SUITE
from reconciler.backends.images.tree import Tree
from reconciler.model import Json
from reconciler.ports import Tell
from reconciler.problems import Problem, Refused, Unreachable

PROGRAM = "mmdebstrap"
FIELDS = frozenset({"recipe", "suite", "packages", "files", "commands"})
DEADLINE = 1800
"""Seconds that making one may take, on a slow mirror."""
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Mounts and processes of its own: whatever becomes of us, all of them are gone with us."""
_MOST_LINKS = 40
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/lintian/*", "/usr/share/locale/*")
_SILENT = ("Could not resolve", "Could not connect", "Unable to connect", "Temporary failure", "timed out")


def bootstrap(root: Path, recipe: Mapping[str, Json], packages: Sequence[str], extra: Tree, tell: Tell) -> None:
    """A root file system below ``root``, with the packages, files and commands that the recipe names.

    Raises Refused (a package that is not there, a command that fails: with its words), Unreachable without a mirror.
    """
    if os.geteuid() != 0:
        hint = "make it as root once; or name an image that is there: file: or url:"
        raise Refused(Problem(f"recipe {recipe['recipe']}: a root file system can be made by root alone", hint=hint))
    suite = str(recipe.get("suite", SUITE))
    wanted = [*packages, *map(str, recipe.get("packages", ()))]
    tell(f"making Debian {suite} ({len(wanted)} packages and what they need)")
    command = [PROGRAM, "--variant=minbase", "--mode=root", "--quiet", f"--include={','.join(wanted)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    command += ['--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/machine-id"', suite, os.fspath(root)]
    alone = _alone()
    _run([*alone, *command], f"recipe {recipe['recipe']}")
    put(root, extra)
    for one in recipe.get("commands", ()):
        tell(f"running {_words(one)}")
        _run([*alone, "chroot", os.fspath(root), *_command(one)], f"commands: {_words(one)}")


def check_fields(recipe: Mapping[str, Json]) -> None:
    """Refused for whatever these recipes have no use for, rather than leaving it out in silence."""
    for field in sorted(recipe.keys() - FIELDS):
        hint = f"it takes {', '.join(sorted(FIELDS))}"
        raise Refused(Problem(f"recipe {recipe['recipe']}: takes no {field}", hint=hint))


def put(root: Path, tree: Tree) -> None:
    """Files into the root file system, in place of any that are there."""
    for path, node in tree.items():
        target = inside(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(node.mode):
            target.mkdir(exist_ok=True)
        elif stat.S_ISLNK(node.mode):
            target.unlink(missing_ok=True)
            target.symlink_to(node.data.decode())
        else:
            target.unlink(missing_ok=True)
            target.write_bytes(node.data)
        if not stat.S_ISLNK(node.mode):
            target.chmod(stat.S_IMODE(node.mode))


def inside(root: Path, path: str) -> Path:
    """Where ``path`` is for whoever has ``root`` as root: ``/var/run -> /run`` is the image's own ``/run``, not ours.

    Links are followed on the way, and not at the end. Raises Refused when there are too many of them.
    """
    waiting, place, links = list(reversed(PurePosixPath(path).parts)), root, 0
    while waiting:
        part = waiting.pop()
        if part in ("/", ".."):
            place = root if part == "/" or place == root else place.parent
            continue
        place /= part
        if waiting and place.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise Refused(Problem(f"files: /{path}: too many links on the way to it"))
            waiting += reversed(PurePosixPath(os.readlink(place)).parts)
            place = place.parent
    return place


def tool(command: Sequence[str], what: str) -> None:
    """Run a tool of the host on what was made; Refused with its words when it fails."""
    _run(command, what)


def _alone() -> Sequence[str]:
    """What goes before a command that acts on the new root; nothing on a host that does not let us (some containers).

    PROGRAM itself is looked for here, as what stands before it would not say clearly that it is missing.
    """
    _check_installed(PROGRAM, PROGRAM)
    try:
        done = subprocess.run([*_ALONE, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _ALONE if done.returncode == 0 else ()


def _command(one: Json) -> list[str]:
    return ["sh", "-c", one] if isinstance(one, str) else [str(word) for word in one]


def _words(one: Json) -> str:
    return one if isinstance(one, str) else shlex.join(map(str, one))


def _check_installed(program: str, what: str) -> None:
    if shutil.which(program) is None:
        hint = f"apt-get install {program}, or `reconciler doctor --fix`"
        raise Refused(Problem(f"{what}: {program} is not installed", hint=hint))


def _run(command: Sequence[str], what: str) -> None:
    _check_installed(command[0], what)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            timeout=DEADLINE,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(Problem(f"{what}: no end in sight after {DEADLINE} s")) from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        silent = any(sign in said for sign in _SILENT)
        name = command[len(_ALONE)] if tuple(command[: len(_ALONE)]) == _ALONE else command[0]
        problem = Problem(f"{what}: {name} ended with {done.returncode}", detail=said[-3000:] or None)
        raise Unreachable(problem) if silent else Refused(problem)
