"""secrets.py: what files, variables and commands give, who needs leave, and that nothing of it is ever said."""

# ruff: noqa: E501  a table reads best with one case a line
from __future__ import annotations

import hashlib
import hmac
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reconciler import manifest, secrets
from reconciler.composition import Generator
from reconciler.policy import Policy
from reconciler.problems import ManifestError
from reconciler.secrets import MAX_SECRET, Secrets, key_in

CANARY = "c4n4ry"
KEY = b"k" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "plain").write_text(f"{CANARY}\n\n")
    (tmp_path / "binary").write_bytes(b"\xff" + CANARY.encode())
    (tmp_path / "zero").write_bytes(CANARY.encode() + b"\0")
    (tmp_path / "long").write_text(CANARY * (MAX_SECRET // 5))
    (tmp_path / "open").write_text(CANARY)
    (tmp_path / "open").chmod(0o666)
    (tmp_path / "fail").write_text(f"#!/bin/sh\necho {CANARY}; echo {CANARY} >&2; exit 7\n")
    (tmp_path / "fail").chmod(0o700)
    os.environ["CANARY_VARIABLE"] = CANARY
    return tmp_path


def ask(folder: Path, source: dict[str, Any], foreign: bool = False, **leave: Any) -> str:
    rules = Policy("/policy.yaml", **leave)
    secrets = Secrets(rules, partial(manifest.read_payload, roots=()), foreign, key=lambda: KEY)
    digest, contents = secrets(("<", Generator("NAME", source, str(folder)), ">"))
    assert digest == hmac.new(KEY, contents, hashlib.sha256).hexdigest()
    return contents.decode()[1:-1]


GIVEN = [
    ({"file": "plain"}, {}, CANARY),
    ({"file": "plain", "trim": False}, {}, f"{CANARY}\n\n"),
    ({"environment": "CANARY_VARIABLE"}, {}, CANARY),
    ({"environment": "CANARY_VARIABLE"}, {"foreign": True, "secret_variables": ("CANARY_*",)}, CANARY),
    ({"command": ["cat", "plain"]}, {"secret_commands": ("cat *",)}, CANARY),
    ({"command": ["cat"], "input": "plain"}, {"secret_commands": ("cat",)}, CANARY),
    ({"command": ["sh", "-c", "echo $0", "a b"]}, {"secret_commands": ("sh -c 'echo $0' 'a b'",)}, "a b"),
    ({"command": ["sh", "-c", "echo $PATH"]}, {"secret_commands": ("*",)}, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "leave", "text"), GIVEN, ids=lambda one: next(iter(one)) if isinstance(one, dict) and one else ""
)
def test_what_generators_give(folder: Path, source: dict[str, Any], leave: dict[str, Any], text: str) -> None:
    assert ask(folder, source, **leave) == text


REFUSED = [
    ({"file": "gone"}, {}, "No such file"),
    ({"file": "../../etc/hostname"}, {}, "No such file"),
    ({"file": "/etc/hostname"}, {}, "outside of the manifest's folder"),
    ({"file": "/etc/hostname"}, {"foreign": True}, "the host's /etc/hostname: not allowed"),
    ({"file": "/etc/x/../hostname"}, {"foreign": True, "secret_files": ("/etc/x/*",)}, "not allowed"),
    ({"file": "open"}, {}, "can be written by others"),
    ({"file": "binary"}, {}, "is not UTF-8"),
    ({"file": "zero"}, {}, "holds a NUL"),
    ({"file": "long"}, {}, "more than 1 MiB"),
    ({"environment": "NOBODY_SET_THIS"}, {}, "is not set"),
    ({"environment": "CANARY_VARIABLE"}, {"foreign": True}, "the variable CANARY_VARIABLE: not allowed"),
    ({"command": ["cat", "plain"]}, {}, "running cat plain: not allowed"),
    ({"command": ["cat", "plain", "/etc/shadow"]}, {"secret_commands": ("cat plain",)}, "not allowed"),
    ({"command": ["cat plain"]}, {"secret_commands": ("cat plain",)}, "running 'cat plain': not allowed"),
    ({"command": ["./fail"]}, {"secret_commands": ("./fail",)}, "./fail: ended with exit code 7"),
    ({"command": ["there-is-none"]}, {"secret_commands": ("*",)}, "there-is-none: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "leave", "words"), REFUSED, ids=lambda one: one[-24:] if isinstance(one, str) else ""
)
def test_what_they_do_not_give_and_nothing_of_it_is_said(
    folder: Path, source: dict[str, Any], leave: dict[str, Any], words: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        ask(folder, source, **leave)
    told = str(caught.value)
    assert words in told and "<secret NAME>" in told and CANARY not in told


def test_absolute_files_that_the_policy_opens(folder: Path) -> None:
    leave: dict[str, Any] = {"foreign": True, "secret_files": (f"{folder}/pl*",)}
    assert ask(folder, {"file": f"{folder}/plain"}, **leave) == CANARY
    (folder / "elsewhere").symlink_to("/proc/self")
    assert ask(folder, {"file": f"{folder}/elsewhere/../plain"}, **leave) == CANARY
    (folder / "pl").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError, match="outside"):
        ask(folder, {"file": f"{folder}/pl"}, **leave)


def test_a_generator_is_asked_once(folder: Path) -> None:
    counting = {"command": ["sh", "-c", "echo x >> count; wc -l < count"]}
    secrets = Secrets(Policy("/p", secret_commands=("*",)), partial(manifest.read_payload, roots=()), key=lambda: KEY)
    one = Generator("N", counting, str(folder))
    assert secrets((one, one))[1] == secrets((one, one))[1] == b"11"


def test_the_key_is_private_stays_and_can_be_lost(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = key_in(state)
    place = state / "secrets.key"
    assert key_in(state) == key and len(key) == 32
    assert (place.stat().st_mode & 0o777, [path.name for path in state.iterdir()]) == (0o600, ["secrets.key"])
    place.write_bytes(b"cut")
    assert key_in(state) != key


def test_whether_they_may_be_had_is_asked_without_having_them(folder: Path) -> None:
    read = partial(manifest.read_payload, roots=())

    def dry(source: dict[str, Any], *commands: str) -> None:
        Secrets(Policy("/p", secret_commands=commands), read, dry=True)((Generator("NAME", source, str(folder)),))

    witness = {"command": ["touch", str(folder / "witness")]}
    dry({"environment": "NOBODY_SET_THIS"})
    dry({"file": "plain"})
    dry(witness, "touch *")
    assert not (folder / "witness").exists()
    for source, words in (
        (witness, "not allowed"),
        ({"file": "gone"}, "No such file"),
        ({"command": ["x"], "input": "gone"}, "No such file"),
    ):
        with pytest.raises(ManifestError, match=words):
            dry(source, "x")


def test_what_a_command_leaves_running_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "setsid sh -c 'echo $$ >pid; exec sleep 300' & until [ -s pid ]; do :; done"
    for patience in (0.5, 4.0, 32.0):  # on a slow machine it takes a while until it is left running
        monkeypatch.setattr(secrets, "_TIMEOUT", patience)
        with pytest.raises(ManifestError, match="took longer than"):
            ask(folder, {"command": ["sh", "-c", script]}, secret_commands=("*",))
        if (folder / "pid").exists() and (pid := (folder / "pid").read_text()):
            break
    os.kill(int(pid), signal.SIGKILL)
