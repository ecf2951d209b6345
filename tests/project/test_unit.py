"""The unit for a watch: systemd takes it as it is, and what it is to be locked out of it is locked out of."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from pathlib import Path

from reconciler.cli.parser import parse

UNIT = Path(__file__).resolve().parents[2] / "docs" / "systemd" / "reconciler-watch@.service"
LOCKED = [
    *("NoNewPrivileges", "RestrictSUIDSGID", "LockPersonality", "RestrictRealtime", "ProtectKernelLogs"),
    *("ProtectHostname", "SystemCallArchitectures", "UMask", "NotifyAccess"),
]


def test_systemd_takes_it(tmp_path: Path) -> None:
    """With a program that is there: it asks for that."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/reconciler", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    words: list[str | Path] = ["systemd-analyze", "security", "--offline=yes", "--json=short", copy]
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert {one["json_field"] for one in found if one["set"]} >= {*LOCKED}


def test_what_it_starts_is_a_watch_that_tells_how_it_is() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings are told apart by their case
    unit.read(UNIT)
    service = unit["Service"]
    program, *words = service["ExecStart"].replace("%i", "laptop").split()
    arguments = parse(words)
    assert (Path(program).name, arguments.verb, arguments.log_format) == ("reconciler", "watch", "journal")
    assert (service["Type"], service["KillMode"]) == ("notify", "process"), "guests outlive it"
    assert float(service["WatchdogSec"]) >= 10 and float(service["TimeoutStopSec"]) > 20, "steps at work get 20 s"
    assert "HUP" in service["ExecReload"] and service["Restart"] == "on-failure"
