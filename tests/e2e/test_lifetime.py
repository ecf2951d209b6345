"""``lifetime``: guests that end with their session and keep their data, and guests that come with the host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.backends.qemu import companions
from reconciler.cli.owners import started
from tests.e2e.conftest import COMMAND, Place
from tests.e2e.test_commands import IMAGE, VM, container, lxd

PATIENCE = 90.0


@contextmanager
def owner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when its standard input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def home(place: Place, pid: int) -> Path:
    """Where the keeper of that owner is at home."""
    return place.state / "run" / "owners" / f"{pid}-{started(pid)}"


def power(place: Place, name: str = "Container/web") -> str:
    [found] = place.ok("get", "-o", "json", name).json
    return str(found["power"])


def autostart(place: Place, name: str = "web") -> str | None:
    client = lxd(place)
    config: dict[str, str] = client.get("instances", name).metadata["config"]
    client.close()
    return config.get("boot.autostart")


def wait_for_end(folder: Path) -> None:
    """The keeper has done what it is there for, and is gone with its folder."""
    assert companions.is_gone(folder / "alive", PATIENCE)
    assert not folder.exists(), (folder / "log").read_text()


def test_a_session_ends_and_its_guests_with_it(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", lifetime="session") + container("stays"))
    with owner() as first:
        place.ok("apply", "--owner", str(first.pid), file)
        folder = home(place, first.pid)
        place.ok("exec", "web", "--", "sh", "-c", "echo mine >/root/data; sync")

        # A keeper that was killed is started again by the next apply, whoever calls it: the owner stays the same.
        [keeper] = companions.holders(folder / "alive")
        os.kill(keeper, 9)
        assert companions.is_gone(folder / "alive", PATIENCE)
        place.ok("apply", file)
        assert companions.holders(folder / "alive") not in ([], [keeper])
        assert power(place) == "running"
    wait_for_end(folder)
    assert (power(place), power(place, "Container/stays")) == ("stopped", "running")
    assert place.run("plan", "--exit-code", file).code == 2

    with owner() as second, owner() as third:
        place.ok("apply", "--owner", str(second.pid), file)
        assert place.ok("exec", "web", "--", "cat", "/root/data").out == "mine\n"
        folder = home(place, second.pid)
        place.ok("apply", "--owner", str(third.pid), file)  # taken over, by name
        second.kill()
        wait_for_end(folder)
        assert power(place) == "running"
        folder = home(place, third.pid)

        # Declared otherwise meanwhile: what is bound to the session stands on the guest itself.
        place.write("web.yaml", IMAGE + container("web") + container("stays"))
        place.ok("apply", file)
    wait_for_end(folder)
    assert power(place) == "running"
    place.ok("delete", "--yes", file)


def test_the_session_is_that_of_whoever_calls(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", lifetime="session"))
    shell = f'"{sys.executable}" -m reconciler.cli apply "{file}" && echo up && read line'
    with subprocess.Popen(
        ["sh", "-c", shell],
        env={**place.environment, "XDG_SESSION_ID": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as login:
        assert login.stdin is not None and login.stdout is not None
        while login.stdout.readline() != "up\n":
            assert login.poll() is None
        folder = home(place, login.pid)
        assert companions.is_held(folder / "alive")
        login.stdin.close()
    wait_for_end(folder)
    assert power(place) == "stopped"

    alone = subprocess.run(
        [*COMMAND, "apply", file], env={**place.environment, "XDG_SESSION_ID": ""}, capture_output=True, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert alone.returncode == 1
    assert "this command belongs to no session that outlives it" in alone.stderr
    assert "--owner PID" in alone.stderr
    assert "there is no such process" in place.run("apply", "--owner", str(2**22 + 1), file).err
    assert power(place) == "stopped"
    place.ok("delete", "--yes", file)


def test_nothing_comes_with_the_host_unless_it_is_asked_for(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    assert autostart(place) == "false"
    with owner() as process:
        for lifetime, expected in (("boot", "true"), ("session", "false"), ("always", "true")):
            place.write("web.yaml", IMAGE + container("web", lifetime=lifetime))
            place.ok("apply", "--owner", str(process.pid), file)
            assert autostart(place) == expected
        folder = home(place, process.pid)
    wait_for_end(folder)
    assert power(place) == "running"
    place.ok("stop", "web")
    assert "Container/web: started" in place.ok("boot").err
    assert power(place) == "running"
    assert place.ok("boot").err == ""
    place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    assert autostart(place) == "false"
    place.ok("stop", "web")
    assert place.ok("boot").err == ""
    assert power(place) == "stopped"
    place.ok("delete", "--yes", file)


def test_the_unit_is_one_that_systemd_takes(place: Place, tmp_path: Path) -> None:
    unit = tmp_path / "reconciler-boot.service"
    unit.write_text(place.ok("boot", "--unit").out)
    assert f'Environment="RECONCILER_STATE_DIR={place.state}"' in unit.read_text()
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.proof
def test_a_vm_ends_with_its_session_and_comes_with_the_host(place: Place) -> None:
    text = VM.replace("MEMORY", "256MiB")
    file = place.write("vm.yaml", text.replace("spec: {memory", "spec: {lifetime: session, memory"))
    with owner() as process:
        place.ok("apply", "--owner", str(process.pid), file)
        folder = home(place, process.pid)
    wait_for_end(folder)
    assert power(place, "VirtualMachine/vm") == "stopped"
    assert "reconciler-guest: poweroff" in place.ok("logs", "vm").out  # it was asked, and went down by itself
    place.write("vm.yaml", text.replace("spec: {memory", "spec: {lifetime: boot, memory"))
    place.ok("apply", file)
    place.ok("boot", "--down")
    assert power(place, "VirtualMachine/vm") == "stopped"
    assert "VirtualMachine/vm: started" in place.ok("boot").err
    assert power(place, "VirtualMachine/vm") == "running"
    place.ok("delete", "--yes", file)
