"""The watch keeps the names of guests up to date, where programs of this host find them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.unique import own_name, own_net
from tests.watch.conftest import COMMAND, PATIENCE, Place, Watch

BRIDGE, NET = own_name("n"), f"{own_net()}.12"
OWN = "127.0.0.1\tlocalhost\n"


def network(place: Place) -> None:
    ipv4 = {"address": f"{NET}.1/24", "nat": False}
    spec = {"type": "bridge", "ipv4": ipv4, "ipv6": {"address": "none"}, "deletionPolicy": "delete"}
    document = {"apiVersion": "reconciler/v1", "kind": "Network", "metadata": {"name": BRIDGE}, "spec": spec}
    place.save("network.yaml", json.dumps(document))


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """Stands for /etc/hosts."""
    file = tmp_path / "hosts"
    file.write_text(OWN)
    return file


@pytest.fixture
def watch(place: Place, hosts: Path) -> Iterator[Watch]:
    """It sees ``hosts`` as /etc/hosts."""
    network(place)
    place.environment_yaml(names=True, approve={"delete": True}, prune=True)
    script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(hosts), *COMMAND]
    command += ["watch", str(place.folder), "--log-format", "json"]
    here = place.environment
    pipe = subprocess.PIPE
    running = Watch(subprocess.Popen(command, env=here, stdin=subprocess.DEVNULL, stderr=pipe, text=True))
    try:
        yield running
        running.process.terminate()
        assert running.process.wait(120) == 0, str(running)
    finally:
        running.kill()


def lines(hosts: Path) -> list[str]:
    """Our part of the file; the rest has to be as it was. A mount is written where it is: half of it may be seen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        text = hosts.read_text()
        block = text.removeprefix(OWN).splitlines()
        whole = not block or (block[0], block[-1]) == ("# begin reconciler", "# end reconciler")
        if text.startswith(OWN) and whole:
            return block[1:-1]
        assert time.monotonic() < deadline, text


def test_an_address_that_comes_changes_and_goes(place: Place, hosts: Path, watch: Watch) -> None:
    card = {"eth0": {"type": "nic", "network": BRIDGE, "name": "eth0"}}
    watch.until("InSync")
    assert lines(hosts) == []
    web = place.container("web", devices=card)
    place.environment_yaml(names=True, approve={"delete": True}, prune=True)
    watch.until("Ready", web)
    while not lines(hosts):
        watch.until("Named", words="/etc/hosts")
    (first,) = lines(hosts)
    assert first.startswith(f"{NET}.") and first.endswith("\tweb.linux.test")

    other = f"ip addr flush dev eth0; ip addr add {NET}.250/24 dev eth0"
    place.run("exec", "web", "--", "sh", "-c", other)  # nobody is told of that
    while lines(hosts) != [f"{NET}.250\tweb.linux.test"]:
        watch.until("Named")

    (place.folder / "web.yaml").unlink()
    place.environment_yaml(names=True, approve={"delete": True}, prune=True)
    while lines(hosts):
        watch.until("Named")
    assert hosts.read_text() == OWN
    told = place.status()["names"]
    assert (told["place"], told["problems"]) == ("/etc/hosts", [])


def test_names_that_cannot_be_kept_are_told_once_and_hold_nothing_up(place: Place, hosts: Path) -> None:
    hosts.write_text(f"{OWN}# end reconciler\n")  # somebody broke the marks of our block
    with place.watching("--names", str(hosts)) as watch:
        watch.until("NotNamed", words="do not stand there once each")
        web = place.container("web")
        watch.until("Ready", web)
        watch.until("InSync")
        told = place.status()["names"]
        assert [f"{hosts}: the lines" in problem for problem in told["problems"]] == [True]
        while place.status()["names"]["lookedAt"] == told["lookedAt"]:
            place.run("reconcile")
        assert f"names: {hosts}" in place.run("status")
    assert [one["reason"] for one in watch.events].count("NotNamed") == 1
