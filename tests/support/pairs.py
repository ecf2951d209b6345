"""The busybox container image in parts, as image servers have them: metadata, and the root file system beside it."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

from reconciler.backends.images import container_image

SQUASHFS = ".squashfs"


def parts_in(folder: Path) -> dict[str, bytes]:
    """The image as plain tarballs (whole, metadata, rootfs), and its root file system as a squashfs."""
    built = container_image({"build": {"recipe": "busybox"}}, folder / "state", lambda _: None)
    whole = gzip.decompress(built.metadata.read_bytes())
    about, root = io.BytesIO(), io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(whole)) as archive,
        tarfile.open(fileobj=about, mode="w") as first,
        tarfile.open(fileobj=root, mode="w") as second,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            inside = member.name.split("/")[0] == "rootfs"
            member.name = (member.name.removeprefix("rootfs").lstrip("/") or ".") if inside else member.name
            (second if inside else first).addfile(member, content)
    tree, squashed = folder / "tree", folder / "root.squashfs"
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", tree], input=root.getvalue(), check=True)
    subprocess.run(["mksquashfs", tree, squashed, "-noappend", "-quiet", "-no-progress"], check=True)
    return {"whole": whole, "metadata": about.getvalue(), "rootfs": root.getvalue(), SQUASHFS: squashed.read_bytes()}
