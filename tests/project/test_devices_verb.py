"""``reconciler devices``: what it prints can be put into a manifest as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MACHINE = """apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: vm}
spec: {disks: [{name: root, size: 1GiB}]}
"""


def run(*words: str, state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reconciler.cli", *words]
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(state), "XDG_CONFIG_HOME": str(state)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)


def test_what_it_prints_is_a_manifest(tmp_path: Path) -> None:
    facts = json.loads(run("devices", "-o", "json", state=tmp_path).stdout)
    printed = run("devices", "-o", "yaml", state=tmp_path)
    assert printed.returncode == 0
    manifest = tmp_path / "devices.yaml"
    manifest.write_text(MACHINE + printed.stdout)
    checked = run("validate", "-o", "json", str(manifest), state=tmp_path)
    problems = [line for line in checked.stderr.splitlines() if not ("not allowed" in line or line.startswith("  "))]
    assert not problems, checked.stderr
    assert printed.stdout.count("kind: Device") == len(facts)


@pytest.mark.parametrize("kind", ["usb", "gpu", "pci", "serial", "block", "tpm"])
def test_one_kind_alone(kind: str, tmp_path: Path) -> None:
    facts = json.loads(run("devices", kind, "-o", "json", state=tmp_path).stdout)
    assert {one["kind"] for one in facts} <= {kind}
    table = run("devices", kind, state=tmp_path)
    assert table.returncode == 0
    assert all(one["place"] in table.stdout for one in facts)
    assert facts or table.stderr == f"This host has no {kind} devices to give.\n"


def test_the_guest_that_it_names_is_one(tmp_path: Path) -> None:
    facts = json.loads(run("devices", "-o", "json", "--attach-to", "Container/web", state=tmp_path).stdout)
    assert all(one["manifest"]["spec"]["attachTo"] == "Container/web" for one in facts)
    refused = run("devices", "--attach-to", "Network/net", state=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Network/net is no guest\n  hint: such as VirtualMachine/vm or Container/web\n"
