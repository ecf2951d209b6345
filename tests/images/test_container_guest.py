"""The busybox container in a real LXD: up in no time, a good PID 1, and gone when it is asked to go."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.backends.images import ContainerImage, container_image
from reconciler.backends.images.busybox import script
from tests.images.lxc import Lxc, Stopwatch, until
from tests.support.lxd import PrivateLxd, private_lxd
from tests.support.unique import own_net

MARKER = "/etc/motd"
RECIPE = {"recipe": "busybox", "files": [{"path": MARKER, "content": "hello\n", "mode": "0640"}]}
NET = f"{own_net()}.9"
HAS_ADDRESS = f"ip -4 addr show eth0 | grep -q {NET}."


@pytest.fixture(scope="module")
def lxd() -> Iterator[PrivateLxd]:
    """A private daemon for this file."""
    with private_lxd() as started:
        yield started


@pytest.fixture(scope="module")
def image(lasting_state: Path) -> ContainerImage:
    """The busybox image with a file of our own."""
    return container_image({"build": RECIPE}, lasting_state, lambda _: None)


@pytest.fixture(scope="module")
def network(lxd: PrivateLxd) -> str:
    """The name of the bridge."""
    return lxd.name("br")


@pytest.fixture(scope="module")
def lxc(
    lxd: PrivateLxd, image: ContainerImage, network: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lxc]:
    """The client; the image is there, and a bridge with DHCP."""
    client = Lxc(lxd.socket.parent, tmp_path_factory.mktemp("lxc"))
    client("image", "import", str(image.metadata), "--alias", "busybox")
    client("network", "create", network, f"ipv4.address={NET}.1/24", "ipv4.nat=false", "ipv6.address=none")
    yield client
    client("network", "delete", network)
    client("image", "delete", "busybox")


@pytest.fixture
def name(lxd: PrivateLxd, lxc: Lxc) -> Iterator[str]:
    """The name of a container that is gone afterwards."""
    name = lxd.name("i")
    yield name
    lxc.delete(name)


@pytest.fixture
def running(lxc: Lxc, name: str, network: str) -> str:
    """A running container with a network card."""
    lxc("launch", "busybox", name, "--network", network)
    return name


def test_lxd_counts_the_same_fingerprint(lxc: Lxc, image: ContainerImage) -> None:
    (found,) = json.loads(lxc("image", "list", "--format", "json"))
    assert (found["fingerprint"], found["size"]) == (image.fingerprint, image.size)
    assert found["architecture"] == "x86_64"


def test_it_is_there_as_soon_as_it_is_started(lxc: Lxc, name: str, network: str) -> None:
    lxc("launch", "busybox", name, "--network", network)
    lxc.inside(name, "true")


def test_it_feels_like_home(lxc: Lxc, running: str) -> None:
    said = lxc.inside(
        running, f"id -un; echo $HOME; hostname; cat /etc/hostname {MARKER}; stat -c %a:%u {MARKER} /tmp /root"
    )
    assert said.split() == ["root", "/root", running, running, "hello", "640:0", "1777:0", "700:0"]
    lxc.inside(running, "httpd -f -p 127.0.0.1:80 -h /etc </dev/null >/dev/null 2>&1 &")
    assert lxc.inside(running, until("wget -q -O - http://localhost/motd 2>/dev/null")) == "hello\n"
    failing = lxc.start("exec", running, "--", "sh", "-c", "exit 7")
    failing.communicate(timeout=120)
    assert failing.returncode == 7


def test_an_address_by_dhcp(lxc: Lxc, running: str) -> None:
    lxc.inside(running, until(HAS_ADDRESS))
    lxc.inside(running, until(f"grep -q {NET}.1 /etc/resolv.conf"))
    assert f"default via {NET}.1" in lxc.inside(running, "ip route")


def test_a_card_that_comes_later(lxc: Lxc, running: str, network: str) -> None:
    lxc.inside(running, until(HAS_ADDRESS))
    lxc("config", "device", "remove", running, "eth0")
    lxc.inside(running, until("! pidof udhcpc"))
    lxc("config", "device", "add", running, "eth0", "nic", f"network={network}", "name=eth0")
    lxc.inside(running, until(HAS_ADDRESS))


def test_a_card_that_comes_before_the_guest_listens_is_found(lxc: Lxc, name: str, network: str, tmp_path: Path) -> None:
    """Nobody is there yet to hear of it: whoever looks for cards has to look after that."""
    slow = f'uevent() {{ >/run/begun; {until("[ -e /run/go ]")}; exec busybox uevent "$@"; }}'
    (tmp_path / "common.sh").write_bytes(script("common.sh") + slow.encode())
    lxc("init", "busybox", name)
    lxc("file", "push", str(tmp_path / "common.sh"), f"{name}/lib/reconciler/common.sh")
    lxc("start", name)
    lxc.inside(name, until("[ -e /run/begun ]"))
    lxc("config", "device", "add", name, "eth0", "nic", f"network={network}", "name=eth0")
    lxc.inside(name, until("[ -e /sys/class/net/eth0 ]") + "; >/run/go")
    lxc.inside(name, until(HAS_ADDRESS))


def test_whoever_asks_at_the_same_time_gets_one_client(lxc: Lxc, running: str) -> None:
    common = ". /lib/reconciler/common.sh"
    lxc.inside(running, f"{common}; {until(HAS_ADDRESS)}; dhcp_stop eth0; {until('! pidof udhcpc')}")
    lxc.inside(running, f"{common}; for i in 1 2 3 4 5 6 7 8 9; do dhcp eth0 & done; wait")
    lxc.inside(running, until(HAS_ADDRESS))
    assert len(lxc.inside(running, "pidof udhcpc").split()) == 1
    lxc.inside(running, f"kill -9 $(pidof udhcpc); {until('! pidof udhcpc')}; {common}; dhcp eth0")
    lxc.inside(running, until("pidof udhcpc"))


def test_the_console(lxc: Lxc, running: str) -> None:
    lxc.inside(running, until("grep -q ^-sh /proc/[0-9]*/cmdline"))
    assert "reconciler-guest: ready" in lxc("console", running, "--show-log")


def test_a_console_shell_that_ends_is_followed_by_another(lxc: Lxc, running: str) -> None:
    find = "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline)\" = '-sh ' ] && echo ${p#/proc/}; done"
    lxc.inside(running, until(f'[ -n "$({find})" ]'))
    first = lxc.inside(running, find + "; true").strip()
    lxc.inside(running, f"kill -9 {first}")
    lxc.inside(running, until(f'[ -n "$({find})" ] && [ "$({find})" != {first} ]'))


def test_orphans_are_reaped(lxc: Lxc, running: str) -> None:
    lxc.inside(running, "for i in 1 2 3 4 5; do (usleep 1000 &) ; done")
    lxc.inside(running, until("! grep -q '^State:.*zombie' /proc/[0-9]*/status"))


def test_stopped_gracefully(lxc: Lxc, running: str) -> None:
    script = "trap 'echo asked >/root/asked; exit' TERM; echo up >/root/up; while :; do usleep 10000; done"
    lxc.inside(running, f'setsid sh -c "{script}" </dev/null >/dev/null 2>&1 & {until("[ -e /root/up ]")}')
    init = lxc.init(running)
    try:
        stopping = lxc.start("stop", running)
        assert select.select([init], [], [], 120)[0]
        assert stopping.wait(120) == 0, stopping.communicate()
        stopping.communicate()
    finally:
        os.close(init)
    lxc("start", running)
    assert lxc.inside(running, "cat /root/asked") == "asked\n"


def test_a_process_that_does_not_listen_is_made_to_go(lxc: Lxc, running: str) -> None:
    lxc.inside(running, "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &")
    init = lxc.init(running)
    try:
        stopping = lxc.start("stop", running)
        assert select.select([init], [], [], 120)[0]
        stopping.communicate(timeout=120)
    finally:
        os.close(init)


@pytest.mark.parametrize("command", ["reboot", "kill -INT 1"])
def test_reboot(lxc: Lxc, running: str, command: str) -> None:
    before = lxc.info(running)["pid"]
    lxc.start("exec", running, "--", "sh", "-c", command).communicate(timeout=120)
    watch = Stopwatch()
    while lxc.info(running)["pid"] in (0, -1, before):
        assert watch.seconds < 120
    lxc.inside(running, "true")


@pytest.mark.parametrize("command", ["poweroff", "halt"])
def test_poweroff_from_within(lxc: Lxc, running: str, command: str) -> None:
    init = lxc.init(running)
    try:
        lxc.start("exec", running, "--", command).communicate(timeout=120)
        assert select.select([init], [], [], 120)[0]
    finally:
        os.close(init)
    lxc.until(running, "Stopped")


def test_user_data_runs_once(lxc: Lxc, name: str) -> None:
    script = "#!/bin/sh\necho ran >>/root/ran\nexit 3\n"
    lxc("launch", "busybox", name, "--config", f"cloud-init.user-data={script}")
    lxc.inside(name, until("[ -e /var/lib/cloud/instance/boot-finished ]"))
    assert "user-data ended with 3" in lxc("console", name, "--show-log")
    lxc("restart", name)
    lxc.inside(name, until("grep -q ^-sh /proc/[0-9]*/cmdline"))
    assert lxc.inside(name, "cat /root/ran") == "ran\n"


def test_user_data_for_a_real_cloud_init(lxc: Lxc, name: str) -> None:
    lxc("launch", "busybox", name, "--config", "cloud-init.user-data=#cloud-config\npackages: [vim]\n")
    lxc.inside(name, until("[ -e /var/lib/cloud/instance/boot-finished ]"))
    assert "user-data is not a script: left alone" in lxc("console", name, "--show-log")
