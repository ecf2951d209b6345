"""What is read out of a package that is never installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reconciler.backends.images.packages import read


def test_a_link_is_read_as_what_it_leads_to_within_its_package(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a thing\n"
    )
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/libthing.so.1.0").write_bytes(b"code")
    (root / "usr/lib/libthing.so.1").symlink_to("libthing.so.1.0")
    (root / "usr/lib/host.so").symlink_to("/etc/passwd")
    (root / "usr/lib/up.so").symlink_to("../../../../../../etc/passwd")
    package = tmp_path / "thing.deb"
    subprocess.run(["dpkg-deb", "--build", str(root), str(package)], check=True, capture_output=True)
    wanted = [f"usr/lib/{name}" for name in ("libthing.so.1", "libthing.so.1.0", "host.so", "up.so", "gone.so")]
    assert read(package, wanted) == {"usr/lib/libthing.so.1": b"code", "usr/lib/libthing.so.1.0": b"code"}
