"""APPLY, before anything is touched: which devices ``emulate`` may ask QEMU for, and with which options.

A closed set: nothing in it reaches a file, a socket or a device of the host. Which options a driver takes, and of what
type, is asked of QEMU itself; of these the ones that would reach out, or that are ours to give, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.backends.qemu.capabilities import device_help, known_devices
from reconciler.model import Json, Spec
from reconciler.problems import Problem, Refused
from reconciler.quantities import size as parse_size

USB, PCI = "usb", "pci"
STICK, SERIAL = "usb-storage", "usb-serial"
"""They need something behind them, which is made with them: a file of the VM's own, a buffer in QEMU."""

DRIVERS: Mapping[str, str] = {
    **dict.fromkeys(("usb-tablet", "usb-mouse", "usb-kbd", "usb-wacom-tablet", "usb-hub", "usb-ccid"), USB),
    **dict.fromkeys((STICK, SERIAL, "u2f-emulated"), USB),
    **dict.fromkeys(("virtio-rng-pci", "virtio-keyboard-pci", "virtio-mouse-pci", "virtio-tablet-pci"), PCI),
    **dict.fromkeys(("i6300esb", "nec-usb-xhci", "edu", "pci-testdev"), PCI),
}
"""Driver → the bus that it is plugged into."""

_OPTION = re.compile(r"^  ([A-Za-z][\w.-]*)=<(\w+)>", re.MULTILINE)
_TEXTS = frozenset({"serial"})
_OURS = frozenset({"acpi-index", "addr", "attached", "bootindex", "head", "multifunction", "rombar", "romsize"})
_SWITCH = {True: "on", False: "off", "on": "on", "off": "off", "auto": "auto"}


@dataclass(frozen=True, slots=True)
class _Type:
    """What an option takes: in words, and how it is read (ValueError when it is something else)."""

    words: str
    read: Callable[[Json], Json]


def device_of(emulate: Spec, subject: str, field: str) -> dict[str, Json]:
    """``device_add`` arguments without id and bus. Refused, naming the field, for what this QEMU does not take."""
    driver = str(emulate["driver"])
    listed = known_devices()
    if driver not in DRIVERS or (listed and driver not in listed):
        known = sorted(name for name in DRIVERS if not listed or name in listed)
        what = f'{field}.driver: "{driver}" cannot be emulated'
        raise Refused(Problem(what, subject=subject, hint=f"{_meant(driver, known)}it can be {', '.join(known)}"))
    types = option_types(device_help(driver)) if emulate.keys() - {"driver"} else {}
    options: dict[str, Json] = {}
    for name, value in emulate.items():
        if name == "driver" or (name == "size" and driver == STICK):
            continue
        if name not in types:
            what = f'{field}.{name}: {driver} takes no option "{name}"'
            hint = f"{_meant(name, sorted(types))}it takes {', '.join(sorted(types)) or 'none'}"
            raise Refused(Problem(what, subject=subject, hint=hint))
        try:
            options[name] = types[name].read(value)
        except ValueError as error:
            what = f"{field}.{name}: expected {types[name].words}, got {value!r}"
            raise Refused(Problem(what, subject=subject)) from error
    return {"driver": driver, **options}


def stick_size(emulate: Spec, subject: str, field: str) -> int:
    """Bytes of an emulated stick, rounded up to whole sectors."""
    given = emulate.get("size")
    if given is None:
        raise Refused(Problem(f"{field}.size: how big is it to be?", subject=subject, hint='such as size: "64MiB"'))
    try:
        wanted = _bytes(given)
    except ValueError as error:
        raise Refused(Problem(f"{field}.size: {error}", subject=subject)) from error
    return -(-wanted // 512) * 512


def option_types(text: str) -> dict[str, _Type]:
    """Of what ``-device DRIVER,help`` lists: numbers, switches, sizes; of texts only those that reach nothing."""
    types: dict[str, _Type] = {}
    for name, kind in _OPTION.findall(text):
        if name in _OURS or name.startswith("x-") or (kind == "str" and name not in _TEXTS):
            continue
        if (found := _type_of(kind)) is not None:
            types[name] = found
    return types


def _type_of(kind: str) -> _Type | None:
    if kind == "str":
        return _Type("a text", _text)
    if kind == "bool":
        return _Type("true or false", _boolean)
    if kind == "OnOffAuto":
        return _Type("true, false or auto", _switch)
    if kind == "size":
        return _Type('a size such as "4KiB"', _bytes)
    if number := re.fullmatch(r"(u?)int(8|16|32|64)", kind):
        bits = int(number[2])
        least, most = (0, 2**bits - 1) if number[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return _Type(f"an integer from {least} to {most}", lambda value: _integer(value, least, most))
    return None


def _text(value: Json) -> Json:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _boolean(value: Json) -> Json:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _switch(value: Json) -> Json:
    if not isinstance(value, bool | str) or value not in _SWITCH:
        raise ValueError(value)
    return _SWITCH[value]


def _bytes(value: Json) -> int:
    number = parse_size(value) if isinstance(value, str) else value
    return int(_integer(number, 1, 2**62))


def _integer(value: Json, least: int, most: int) -> Json:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"expected an integer from {least} to {most}, got {value!r}")
    return value


def _meant(given: str, known: list[str]) -> str:
    near = get_close_matches(given, known, 1)
    return f'did you mean "{near[0]}"? ' if near else ""
