"""PLAN: which fields differ, images apart: a guest may stay on the image that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.diff import diff
from reconciler.model import Change, Desired, Observed, Path, Power, Spec


def compare(want: Desired, seen: Observed) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Every field that differs and that we are meant to change; and what is worth a note although it stays."""
    spec = dict(seen.spec)
    if seen.power is not None:
        spec["power"] = Power.STOPPED.value if seen.power is Power.ERROR else seen.power.value
    changes = diff(want.spec, spec, seen.applied, want.spec.get("ignore", ()))
    if _image_is_unknown(seen):
        return tuple(change for change in changes if change.path[0] != "image"), ()
    if want.spec.get("imagePolicy") != "create" or not any(_is_image(change.path) for change in changes):
        return changes, ()
    note = "its image has changed since; imagePolicy: create leaves the guest on the old one"
    return tuple(change for change in changes if not _is_image(change.path)), (note,)


def same_record(want: Desired, seen: Observed) -> bool:
    """Whether our last apply recorded exactly this (images apart: a guest may stay on its old one)."""
    return _same(want.spec, seen.applied) and (want.later is None) == (seen.later is None) and _same_later(want, seen)


def _same_later(want: Desired, seen: Observed) -> bool:
    return want.later is None or _same(want.later, seen.later)


def _same(wanted: Spec, recorded: Spec | None) -> bool:
    return recorded is not None and (wanted == recorded or _without_images(wanted) == _without_images(recorded))


def _image_is_unknown(seen: Observed) -> bool:
    """A container that somebody else made does not say which of our images it is from: unknown is not changed."""
    image = seen.spec.get("image")
    return seen.id.kind == "Container" and not (isinstance(image, Mapping) and "identity" in image)


def _is_image(path: Path) -> bool:
    """``image.…``, ``boot.image.…`` and ``disks.NAME.image.…``."""
    return (
        path[:1] == ("image",) or path[:2] == ("boot", "image") or (path[:1] == ("disks",) and path[2:3] == ("image",))
    )


def _without_images(spec: Spec) -> dict[str, object]:
    plain = {key: value for key, value in spec.items() if key != "image"}
    for key in ("boot", "disks"):
        if isinstance(part := plain.get(key), Mapping):
            plain[key] = {
                name: {k: v for k, v in value.items() if k != "image"} if isinstance(value, Mapping) else value
                for name, value in part.items()
                if name != "image"
            }
    return plain
