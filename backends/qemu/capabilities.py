"""APPLY, before anything is touched: which machines, CPU models, network cards and devices the installed QEMU knows.

Read from its own ``help`` texts, which take it 20 ms to 40 ms each, by a QEMU that has no right to anything; kept in
the state folder, so that a VM's next change does not wait for them again.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from reconciler.backends.qemu.machine import SANDBOX
from reconciler.backends.qemu.programs import find_program
from reconciler.backends.qemu.said import said
from reconciler.problems import Problem, Refused

_NOBODY = 0x6FFFFFFD
_TIMEOUT = 20.0
_DEVICE = re.compile(r'name "([^"]+)", bus PCI(?:, alias "([^"]+)")?')
_NAMES = re.compile(r'^name "([^"]+)"(?:.*, alias "([^"]+)")?', re.MULTILINE)
_MODULES = ("lib", "lib64", f"lib/{os.uname().machine}-linux-gnu", f"lib/{os.uname().machine}-linux-musl")
"""Where it has its modules, beside where it is: distributions differ."""
_NO_CARDS = frozenset({"rocker", "pvrdma"})
"""Listed among network devices, yet they take no network of ours."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The names that this QEMU takes. Empty where its help could not be understood: then nothing is concluded."""

    machines: frozenset[str]
    processors: frozenset[str]
    cards: frozenset[str]
    devices: frozenset[str]


def capabilities() -> Capabilities:
    """Of the QEMU that would be started now; asked once for each version of it."""
    return _ask(*_version())


def known_devices() -> frozenset[str]:
    """Its devices alone; none where its help could not be understood."""
    return _ask_devices(*_version())


def device_help(driver: str) -> str:
    """What it says of one driver's options; asked once for each version of it."""
    return _ask_device(*_version(), driver)


def _version() -> tuple[str, str]:
    """The program, and what changes when it or one of the modules that it loads devices from is another."""
    program = os.path.realpath(find_program())
    base = os.path.dirname(os.path.dirname(program))
    places = (program, *(os.path.join(base, folder, "qemu") for folder in _MODULES))
    return program, " ".join(f"{place}:{os.stat(place).st_mtime_ns}" for place in places if os.path.exists(place))


@lru_cache(maxsize=4)
def _ask(program: str, version: str) -> Capabilities:
    return Capabilities(
        parse_machines(_help(program, version, "-machine")),
        parse_processors(_help(program, version, "-cpu")),
        parse_cards(_help(program, version, "-device")),
        _ask_devices(program, version),
    )


@lru_cache(maxsize=4)
def _ask_devices(program: str, version: str) -> frozenset[str]:
    return parse_devices(_help(program, version, "-device"))


@lru_cache(maxsize=64)
def _ask_device(program: str, version: str, driver: str) -> str:
    return _help(program, version, "-device", f"{driver},help")


def parse_machines(text: str) -> frozenset[str]:
    """The first word of every line below the heading."""
    return frozenset(words[0] for line in text.splitlines()[1:] if (words := line.split()))


def parse_processors(text: str) -> frozenset[str]:
    """``x86 NAME …`` in every line that names a model; newer versions leave the ``x86`` out."""
    models = text.partition("\nRecognized CPUID flags")[0].splitlines()[1:]
    found = (line.split() for line in models if line.strip())
    return frozenset(words[1] if words[0] == "x86" and len(words) > 1 else words[0] for words in found)


def parse_cards(text: str) -> frozenset[str]:
    """PCI devices of the section of network devices, under each of their names."""
    section = text.partition("Network devices:\n")[2].partition("\n\n")[0]
    names = {name for found in _DEVICE.finditer(section) for name in found.groups() if name}
    return frozenset(names - _NO_CARDS)


def parse_devices(text: str) -> frozenset[str]:
    """Every device of every section, under each of its names."""
    return frozenset(name for found in _NAMES.findall(text) for name in found if name)


def _help(program: str, version: str, option: str, what: str = "help") -> str:
    return said((program, version, option, what), lambda: _said(program, option, what))


def _said(program: str, option: str, what: str) -> str:
    user = _NOBODY if os.geteuid() == 0 else None
    command = [program, "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", SANDBOX, option, what]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(Problem(f"{program} {option} {what} took longer than {_TIMEOUT:g} s")) from error
    return done.stdout if done.returncode == 0 else ""
