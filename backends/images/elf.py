"""APPLY, reads what little of ELF files the recipes need: is it static, what does it link to, what does a module say.

Reads only; nothing is ever run. Wrong files raise ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5
X86_64 = 62


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: where a part of the file is loaded."""

    type: int
    offset: int
    address: int
    length: int


def segments(data: bytes) -> list[Segment]:
    """The program headers of a 64-bit little-endian x86-64 file."""
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64 or struct.unpack_from("<H", data, 18)[0] != X86_64:
        raise ValueError("not an x86-64 ELF file")
    start, length, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    found = []
    for index in range(count):
        type, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, start + index * length)
        found.append(Segment(type, offset, address, size))
    return found


def is_static(data: bytes) -> bool:
    """Whether it is an x86-64 program that needs no interpreter."""
    try:
        return not any(segment.type == PT_INTERP for segment in segments(data))
    except (ValueError, struct.error):
        return False


def interpreter(data: bytes) -> str | None:
    """The dynamic loader that the program asks for."""
    for segment in segments(data):
        if segment.type == PT_INTERP:
            return data[segment.offset : segment.offset + segment.length].rstrip(b"\0").decode()
    return None


def needed(data: bytes) -> list[str]:
    """The shared libraries that it names itself."""
    parts = segments(data)
    dynamic = [entry for segment in parts if segment.type == PT_DYNAMIC for entry in _dynamic(data, segment)]
    tables = [value for tag, value in dynamic if tag == DT_STRTAB]
    if not tables:
        return []
    strings = _offset_of(parts, tables[0])
    return [_text_at(data, strings + value) for tag, value in dynamic if tag == DT_NEEDED]


def _dynamic(data: bytes, segment: Segment) -> Iterator[tuple[int, int]]:
    for offset in range(segment.offset, segment.offset + segment.length, 16):
        tag, value = struct.unpack_from("<qQ", data, offset)
        yield tag, value


def _offset_of(parts: list[Segment], address: int) -> int:
    for segment in parts:
        if segment.type == PT_LOAD and segment.address <= address < segment.address + segment.length:
            return address - segment.address + segment.offset
    raise ValueError("its dynamic section points outside of the file")


def _text_at(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def module_info(data: bytes) -> list[tuple[str, str]]:
    """The ``.modinfo`` of a kernel module: pairs such as (``depends``, ``virtio,virtio_ring``)."""
    start = struct.unpack_from("<Q", data, 40)[0]
    length, count, names_index = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, start + index * length) for index in range(count)]
    names = sections[names_index][4]
    for name, _, _, _, offset, size in sections:
        if _text_at(data, names + name) == ".modinfo":
            texts = data[offset : offset + size].split(b"\0")
            return [(key, value) for text in texts if text for key, _, value in [text.decode().partition("=")]]
    return []
