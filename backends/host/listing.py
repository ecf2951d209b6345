"""OBSERVE: everything of the host that a guest could be given, each with the words of a manifest that name it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.backends.host import ROOT, text_of
from reconciler.backends.host.names import names_of
from reconciler.backends.host.nodes import BLOCK, TPM, Node, nodes
from reconciler.backends.host.pci import PciDevice, has_iommu, pci_devices
from reconciler.backends.host.usb import UsbDevice, usb_devices
from reconciler.model import Spec
from reconciler.quantities import human_size

KINDS = ("usb", "gpu", "pci", "serial", "block", "tpm")
_PLAIN_SERIAL = re.compile(r"[!-~]{1,126}")
_MOST_LETTERS = 40


@dataclass(frozen=True, slots=True)
class Found:
    """name: one that a resource could bear, no two alike; kind: one of KINDS; place: where it is on the host

    words: what it is; note: what to know before it is given away; match: ``match`` of a ``Device``
    """

    name: str
    kind: str
    place: str
    words: str
    note: str
    match: Spec


def listing(root: Path = ROOT) -> list[Found]:
    """In the order of KINDS, then by place."""
    found = [*_usb(usb_devices(root), root), *_pci(pci_devices(root), root), *_nodes(nodes(root), root)]
    return _named(sorted(found, key=lambda one: KINDS.index(one.kind)))


def _usb(devices: Sequence[UsbDevice], root: Path) -> Iterator[Found]:
    names = names_of("usb.ids", {(one.vendor, one.product) for one in devices}, root)
    alike = Counter((one.vendor, one.product, one.serial) for one in devices)
    for one in devices:
        said = " ".join(filter(None, (one.maker, one.name)))
        words = said or names.get((one.vendor, one.product)) or "USB device"
        match: dict[str, object] = {"vendor": one.vendor, "product": one.product}
        note = f"serial number {one.serial}" if one.serial else ""
        if alike[one.vendor, one.product, one.serial] > 1:
            match, note = {"bus": one.bus, "port": one.port}, "one of several alike: named by its place"
        elif one.serial and _PLAIN_SERIAL.fullmatch(one.serial):
            match["serial"] = one.serial
        place = f"bus {one.bus}, port {one.port}"
        yield Found("", "usb", place, f"{words} ({one.vendor}:{one.product})", note, {"usb": match})


def _pci(devices: Sequence[PciDevice], root: Path) -> Iterator[Found]:
    names = names_of("pci.ids", {(one.vendor, one.product) for one in devices}, root)
    iommu = has_iommu(root)
    for one in devices:
        if one.is_bridge:
            continue
        kind = "gpu" if one.is_gpu else "pci"
        name = names.get((one.vendor, one.product), "GPU" if one.is_gpu else "PCI device")
        driver = f"driver {one.driver}" if one.driver else "no driver"
        missing = "not covered by the IOMMU" if iommu else "no IOMMU: not for VMs"
        group = f"IOMMU group {one.group}" if one.group else missing
        words = f"{name} ({one.vendor}:{one.product})"
        yield Found("", kind, one.address, words, f"{driver}, {group}", {kind: one.address})


def _nodes(found: Sequence[Node], root: Path) -> Iterator[Found]:
    mounts = (text_of(root / "proc/self/mounts") or "").splitlines()
    mounted = {words[0]: words[1] for text in mounts if len(words := text.split()) > 1}
    for node in found:
        one = _node(node)
        place = mounted.get(node.path)
        yield replace(one, note=f"the host has mounted it at {place}") if place else one


def _node(node: Node) -> Found:
    driver = f"driver {node.driver}" if node.driver else ""
    if node.kind == TPM:
        words, note = f"TPM {node.words or ''}".strip(), "for containers; a VM gets one of its own: tpm: true"
    elif node.kind == BLOCK:
        words, note = f"{node.words or 'disk'}, {human_size(node.size or 0)}", driver
    else:
        words, note = "serial port", driver
    return Found("", node.kind, node.path, words, note, {"unix": node.path})


def _named(found: Sequence[Found]) -> list[Found]:
    """With names: from what it is, or from where it is when that says nothing."""
    taken: Counter[str] = Counter()
    named = []
    for one in found:
        source = one.words.partition(" (")[0] if one.kind in ("usb", "gpu", "pci") else one.place.removeprefix("/dev/")
        slug = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")[:_MOST_LETTERS].strip("-") or one.kind
        taken[slug] += 1
        named.append(replace(one, name=slug if taken[slug] == 1 else f"{slug}-{taken[slug]}"))
    return named
