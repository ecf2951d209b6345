"""APPLY, inside the guest: which of its block devices a disk is, what is on it, and a file system where nothing is.

Only what is blank is ever formatted: zeros where file systems, partition tables and volume managers keep their marks
(the first and the last megabytes), and nothing that ``blkid`` knows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from reconciler.backends.qemu.agent import Agent
from reconciler.problems import GuestFailed, Problem, Refused

SECTOR = 512
_MIB = 1 << 20
_EDGE = 4 * _MIB
"""How much at either end has to be zeros: every mark that we know of is kept there."""
_NOTICING = 20.0
"""Seconds that a guest has to notice a disk that was plugged in, or has grown."""
_TIMEOUT = 60.0
_FORMATTING = 600.0
_NOT_BLANK, _NO_PROGRAM = 65, 127
_MOUNTED = ":mounted"
_PAIR = re.compile(r'(?:^|\s)([A-Z_]+)=(?:"([^"]*)"|(\S*))')
_NO_FILE_SYSTEMS = frozenset(
    {"swap", "swsuspend", "crypto_LUKS", "BitLocker", "bcache", "drbd", "jbd", "LVM1_member", "LVM2_member"}
)

# Without a single program beside the shell: where the machine is emulated, starting one takes as long as all the rest.
_LOOK = """
for disk in /sys/block/*; do
    read -r serial 2>/dev/null <"$disk/serial" || [ -n "$serial" ] || continue
    if [ "$serial" = "$1" ]; then
        for place in "$disk" "$disk/${disk##*/}"*; do
            if [ -e "$place/dev" ]; then
                start=0
                read -r size <"$place/size"; read -r ro <"$place/ro"
                if [ -e "$place/start" ]; then read -r start <"$place/start"; fi
                uses=
                for use in "$place"/holders/*; do if [ -e "$use" ]; then uses="$uses ${use##*/}"; fi; done
                for use in /sys/fs/*/"${place##*/}"; do if [ -e "$use" ]; then uses="$uses :mounted"; fi; done
                echo "${disk##*/} ${place##*/} $size $start $ro" $uses
            fi
        done
    fi
    serial=
done
while read -r use size; do case $use in /dev/*) echo "swap ${use#/dev/}" ;; esac; done </proc/swaps
"""
_CONTENTS = """
for node in "$@"; do
    echo ":$node"
    blkid -p -o export "/dev/$node" 2>/dev/null || blkid "/dev/$node" 2>/dev/null
done
true
"""
_BLANK = """
# zeros BYTES dd's words: so many zeros can be read there.
zeros() {
    bytes=$1; shift
    [ "$(dd "$@" bs=1048576 2>/dev/null | tr -dc '\\0' | wc -c)" -eq "$bytes" ]
}
blank() { zeros "$2" if="$1" count=4 && zeros "$4" if="$1" skip="$3" && ! known "$1"; }
known() { blkid "$1" 2>/dev/null | grep -q TYPE=; }
"""
_IS_BLANK = _BLANK + 'if blank "$@"; then echo blank; fi'
# The lock is what udev respects, too; it is the formatting program's own until it ends, and whoever comes again waits.
_FORMAT = (
    _BLANK
    + """
exec 9<"$1" || exit 1
if command -v flock >/dev/null; then flock 9; fi
if [ "$5" = again ]; then
    if known "$1"; then exit 0; fi
elif ! blank "$@"; then
    exit 65
fi
if ! command -v mkfs.ext4 >/dev/null; then exit 127; fi
exec mkfs.ext4 -q -L "$6" "$1"
"""
)


@dataclass(frozen=True, slots=True)
class Node:
    """A block device of the guest. size, start: bytes; held: by what it is in use, mounts apart; mounted: anywhere."""

    name: str
    size: int
    start: int
    read_only: bool
    held: Sequence[str] = ()
    mounted: bool = False

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/{self.name}"


@dataclass(frozen=True, slots=True)
class Block:
    """A disk as the guest has it."""

    disk: Node
    partitions: Sequence[Node] = ()

    @property
    def nodes(self) -> list[Node]:
        """The disk itself, then its partitions."""
        return [self.disk, *self.partitions]

    @property
    def held(self) -> list[str]:
        """What uses it in ways that no mount shows."""
        return [holder for node in self.nodes for holder in node.held]

    @property
    def mounted(self) -> bool:
        """Whether anything of it is mounted, anywhere in the guest."""
        return any(node.mounted for node in self.nodes)

    def node(self, path: str) -> Node | None:
        """The one of that path, if it is one of them."""
        return next((node for node in self.nodes if node.path == path), None)


@dataclass(frozen=True, slots=True)
class Content:
    """What ``blkid`` says is on a node; all None where it says nothing, or is not there."""

    type: str | None = None
    usage: str | None = None
    table: str | None = None

    @property
    def is_file_system(self) -> bool:
        """Whether it can be expected to be mounted."""
        if self.type is None or self.usage not in (None, "filesystem"):
            return False
        return self.type not in _NO_FILE_SYSTEMS and not self.type.endswith("_member")


def look(agent: Agent, serial: str, subject: str) -> Block | None:
    """The disk with that serial number; None when the guest has none. Refused when it has more than one."""
    found = look_for_all(agent, serial)
    if len(found) > 1:
        names = ", ".join(block.disk.name for block in found)
        what = f'the guest has {len(found)} disks with the serial number "{serial}": {names}'
        hint = "a serial number is the first 20 characters of a disk's name: make them differ there"
        raise Refused(Problem(what, subject=subject, hint=hint))
    return found[0] if found else None


def look_for_all(agent: Agent, serial: str) -> list[Block]:
    """Every disk with that serial number."""
    lines = [line.split() for line in _sh(agent, _LOOK, serial).splitlines()]
    found: dict[str, list[Node]] = {}
    with agent.sense("which disks it has"):
        swaps = {words[1] for words in lines if words[0] == "swap"}
        for words in lines:
            if len(words) >= 5:
                found.setdefault(words[0], []).append(_node(words[1:], swaps))
    return [Block(nodes[0], nodes[1:]) for nodes in found.values()]


def _node(words: Sequence[str], swaps: Collection[str]) -> Node:
    name, size, start, read_only, *uses = words
    held = [*(use for use in uses if use != _MOUNTED), *(["swap"] if name in swaps else [])]
    return Node(name, int(size) * SECTOR, int(start) * SECTOR, read_only == "1", held, _MOUNTED in uses)


def await_block(agent: Agent, serial: str, field: str, subject: str, least: int = 1) -> Block:
    """The same, once the guest has noticed it, and that it has at least so many bytes. GuestFailed when it does not."""
    deadline = time.monotonic() + _NOTICING
    while True:
        block = look(agent, serial, subject)
        if block is not None and block.disk.size >= least:
            return block
        if time.monotonic() > deadline:
            what = "has not noticed the disk" if block is None else "has not noticed that the disk has grown"
            raise GuestFailed(Problem(f"{field}: the guest {what} within {_NOTICING:g} s", subject=subject))
        Event().wait(0.2)


def contents(agent: Agent, block: Block) -> dict[str, Content]:
    """What is on the disk and on each of its partitions, by name."""
    found = {node.name: Content() for node in block.nodes}
    words: dict[str, str] = {}
    for line in reversed(_sh(agent, _CONTENTS, *(node.name for node in block.nodes)).splitlines()):
        if line.startswith(":"):
            found[line[1:]] = Content(words.get("TYPE"), words.get("USAGE"), words.get("PTTYPE"))
            words = {}
        else:
            words |= {key: quoted or plain for key, quoted, plain in _PAIR.findall(line)}
    return found


def describe(block: Block, found: Mapping[str, Content]) -> str:
    """What is on it, in a few words."""
    disk = found[block.disk.name]
    if block.partitions:
        parts = ", ".join(f"{node.name} {found[node.name].type or 'unknown'}" for node in block.partitions)
        return f"a partition table ({disk.table or 'of some kind'}) with {parts}"
    if disk.table is not None:
        return f"a partition table ({disk.table}) without partitions"
    return disk.type or "data of no kind that the guest knows"


def is_blank(agent: Agent, node: Node) -> bool:
    """Whether nothing is on it."""
    return _sh(agent, _IS_BLANK, node.path, *_edges(node)).strip() == "blank"


def format(agent: Agent, node: Node, label: str, again: bool, field: str, subject: str) -> None:
    """An ext4 on the whole of it, if it is still blank. again: we have begun to, and may not have come to the end."""
    words = [node.path, *_edges(node), "again" if again else "first", label[:16]]
    done = agent.run(["/bin/sh", "-c", _FORMAT, "sh", *words], _FORMATTING)
    if done.code == _NOT_BLANK:
        raise Refused(Problem(f"{field}: it is not blank any more, and was left as it is", subject=subject))
    if done.code == _NO_PROGRAM:
        hint = "install e2fsprogs in the guest, or format the disk by hand; then apply again"
        raise Refused(Problem(f"{field}: it is blank, and the guest has no mkfs.ext4", subject=subject, hint=hint))
    if done.code != 0:
        words_said = (done.err + done.out).decode("utf-8", "replace").strip()
        raise GuestFailed(Problem(f"{field}: the guest cannot format it", subject=subject, detail=words_said))


def _edges(node: Node) -> list[str]:
    """For ``blank``: bytes at the beginning; where the end begins, in MiB; bytes from there on."""
    skip = max(0, (node.size - _EDGE) // _MIB)
    return [str(min(node.size, _EDGE)), str(skip), str(node.size - skip * _MIB)]


def _sh(agent: Agent, script: str, *words: str) -> str:
    return agent.run(["/bin/sh", "-c", script, "sh", *words], _TIMEOUT).out.decode("utf-8", "replace")
