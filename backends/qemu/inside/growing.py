"""APPLY, inside the guest: a disk has grown; its last partition and the file system on it follow.

Nothing else on the disk is touched, and nothing is ever made smaller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from reconciler.backends.qemu.agent import Agent, NotRun
from reconciler.backends.qemu.inside.blocks import Block, Node
from reconciler.problems import GuestFailed, Problem

SLACK = 4 << 20
"""So many bytes at the end a file system may leave unused: less than that is of no use to it."""
HEAD = 0x10000 + 0x1000
"""How many bytes of a node ``size_of`` wants to see."""
_TIMEOUT = 600.0
_READ = f'dd if="$1" bs={HEAD} count=1 2>/dev/null'
_PARTITION = re.compile(r"^/dev/(\S+) :\s*(.*)$")
_KEEP = ("--no-reread", "--force", "--wipe", "never", "--wipe-partitions", "never", "--quiet")


def size_of(head: bytes) -> int | None:
    """How big the file system is that begins like this: ext2 to ext4, XFS, btrfs; None for any other."""

    def number(at: int, length: int, order: Literal["little", "big"] = "little") -> int:
        return int.from_bytes(head[at : at + length], order)

    if number(1024 + 0x38, 2) == 0xEF53:
        high = number(1024 + 0x150, 4) if number(1024 + 0x60, 4) & 0x80 else 0
        return (high << 32 | number(1024 + 4, 4)) << (10 + number(1024 + 0x18, 4))
    if head[:4] == b"XFSB":
        return number(8, 8, "big") * number(4, 4, "big")
    if head[0x10040:0x10048] == b"_BHRfS_M":
        return number(0x10000 + 0x70, 8)
    return None


def read_size(agent: Agent, node: Node) -> int | None:
    """How big the file system on it is, as far as that can be told."""
    return size_of(agent.run(["/bin/sh", "-c", _READ, "sh", node.path], _TIMEOUT).out)


def grow_partition(agent: Agent, block: Block, node: Node, field: str, subject: str) -> str | None:
    """Have the partition reach to the disk's end; why it stays as it is, None when it does not."""
    if node is block.disk or node.start + node.size > block.disk.size - SLACK:
        return None
    if any(other.start > node.start for other in block.partitions):
        return f"{node.name} is not the last partition of the disk"
    try:
        table = _run(agent, ["sfdisk", "--dump", block.disk.path], field, subject)
        wanted = without_end(table.decode("utf-8", "replace"), node.name)
        # Once more than needed after a try that was cut off in between: the kernel may not know of it yet.
        _run(agent, ["sfdisk", *_KEEP, block.disk.path], field, subject, wanted.encode())
        _run(agent, ["partx", "--update", block.disk.path], field, subject)
    except NotRun as error:
        return f"its partition could not be grown: {error.problem.summary}"
    return None


def without_end(dump: str, partition: str) -> str:
    """``sfdisk --dump``, changed so that this partition takes all that comes after it."""
    lines = []
    for line in dump.splitlines():
        found = _PARTITION.match(line)
        if found and found[1] == partition:
            line = re.sub(r"\bsize=\s*\d+,?\s*", "", line).rstrip(", ")  # noqa: PLW2901
        if not line.startswith("last-lba:"):
            lines.append(line)
    return "\n".join(lines) + "\n"


def grow_file_system(agent: Agent, node: Node, type: str, path: str, field: str, subject: str) -> str | None:
    """Have the mounted file system fill its node; why it stays as it is, None when it does not."""
    commands = {"xfs": ["xfs_growfs", path], "btrfs": ["btrfs", "filesystem", "resize", "max", path]}
    commands |= {f"ext{number}": ["resize2fs", node.path] for number in (2, 3, 4)}
    if type not in commands:
        return f"{type} cannot be grown while it is mounted"
    try:
        _run(agent, commands[type], field, subject)
    except NotRun as error:
        return error.problem.summary
    return None


def _run(agent: Agent, command: Sequence[str], field: str, subject: str, stdin: bytes = b"") -> bytes:
    """What it says. GuestFailed when it does not end well, NotRun when the guest does not have it."""
    done = agent.run(command, _TIMEOUT, stdin=stdin)
    if done.code != 0:
        words = (done.err + done.out).decode("utf-8", "replace").strip()
        raise GuestFailed(Problem(f"{field}: {command[0]} failed in the guest", subject=subject, detail=words[-2000:]))
    return done.out
