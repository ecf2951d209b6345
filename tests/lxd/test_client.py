"""The typed client: deadlines, ETags, operations, keep-alive, and what silence means."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.client import Client, Missing, Raced
from reconciler.backends.lxd.client.answers import Answer, each
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Desired, ResourceId
from reconciler.problems import Interrupted, Refused, Unreachable
from tests.support.lxd import Lab, PrivateLxd
from tests.support.proxy import Proxy, proxy


@pytest.fixture
def through(lxd: PrivateLxd) -> Iterator[tuple[Client, Proxy]]:
    with proxy(lxd.state / "proxy.socket", lxd.socket) as between:
        client = Client(Address(socket=between.path))
        yield client, between
        client.close()


def note(client: Client, value: str, within: float = 60.0) -> None:
    client.patch(("profiles", "default"), {"config": {"user.note": value}}, Deadline.after(within))


def test_one_connection_serves_many_reads(through: tuple[Client, Proxy]) -> None:
    client, between = through
    for number in range(50):
        client.find("instances", f"none{number}")
    assert between.connections == 1


def test_writes_to_many_urls_share_one_connection(through: tuple[Client, Proxy]) -> None:
    client, between = through
    for number in range(20):
        client.delete(("profiles", f"none{number}"), Deadline.after(60))
    assert between.connections == 1


def test_many_threads_may_ask_at_once(through: tuple[Client, Proxy]) -> None:
    client, between = through
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("profiles", "default").metadata["name"], range(200)))
    assert answers == ["default"] * 200 and between.connections <= 16


def test_a_silent_lxd_is_unreachable_in_time(through: tuple[Client, Proxy]) -> None:
    client, between = through
    between.mode = "silent"
    with pytest.raises(Unreachable, match="took too long"):
        client.get("instances", within=Deadline.after(1))


def test_a_silent_lxd_while_writing_may_have_done_it(through: tuple[Client, Proxy]) -> None:
    client, between = through
    note(client, "before")
    between.mode = "silent"
    with pytest.raises(Interrupted):
        note(client, "after", within=1)


def test_a_lost_reply_may_have_happened(through: tuple[Client, Proxy], lxd: PrivateLxd) -> None:
    client, between = through
    note(client, "before")
    between.mode = "lose"
    with pytest.raises(Interrupted):
        note(client, "after")
    between.mode = "pass"
    assert client.get("profiles", "default").metadata["config"]["user.note"] == "after"
    note(client, "")


@pytest.mark.parametrize("writing", [False, True])
def test_garbage_is_no_answer(through: tuple[Client, Proxy], writing: bool) -> None:
    client, between = through
    note(client, "")
    between.mode = "garble"
    with pytest.raises(Interrupted if writing else Unreachable):
        note(client, "x") if writing else client.get("instances")


def test_connections_gone_stale_are_made_anew(lxd: PrivateLxd) -> None:
    path = lxd.state / "proxy.socket"
    client = Client(Address(socket=path))
    for _ in range(2):  # the same client, another server behind the same name
        with proxy(path, lxd.socket):
            assert client.get("profiles", "default").metadata["name"] == "default"
            note(client, "")
    with pytest.raises(Unreachable, match="no such file"):
        client.get("instances")
    client.close()


def test_one_that_has_moved_is_let_go_of_where_it_was(lxd: PrivateLxd, tmp_path: Path) -> None:
    places = [lxd.socket, tmp_path / "moved"]
    places[1].symlink_to(lxd.socket)
    backend = LxdBackend("lxd/moves", {}, lxd.settings, find=lambda: Address(socket=places[0]))
    before = backend.client
    assert before.get("profiles", "default").metadata and before._local is not None and before._local._idle
    assert backend.client is before
    del places[0]
    assert backend.client is not before and not before._local._idle
    assert backend.client.get("profiles", "default").metadata
    backend.close()


def test_nobody_there_is_unreachable_with_a_hint(tmp_path: Path) -> None:
    client = Client(Address(socket=tmp_path / "none"))
    with pytest.raises(Unreachable, match="reconciler doctor"):
        client.get("instances")
    with pytest.raises(Unreachable):
        note(client, "x")
    client.close()


def test_an_etag_protects_what_somebody_else_wrote(lxd: PrivateLxd) -> None:
    client = lxd.client()
    read = client.get("profiles", "default")
    note(client, "theirs")
    body = {key: read.metadata[key] for key in ("config", "devices", "description")}
    with pytest.raises(Raced):
        client.put(("profiles", "default"), body, Deadline.after(60), etag=read.etag)
    assert client.get("profiles", "default").metadata["config"]["user.note"] == "theirs"
    note(client, "")
    client.close()


def test_an_operation_that_fails_is_refused_with_its_words(lab: Lab) -> None:
    body: dict[str, Any] = {"name": lab.lxd.name(), "source": {"type": "none"}, "profiles": ["default"]}
    lab.client.post(("instances",), body, Deadline.after(60))
    with pytest.raises(Refused, match="already stopped"):
        lab.backend.client.put(
            ("instances", body["name"], "state"), {"action": "stop", "timeout": 5}, Deadline.after(60)
        )


def test_a_forgotten_operation_may_have_happened(lxd: PrivateLxd) -> None:
    client = lxd.client()
    with pytest.raises(Interrupted, match="forgot"):
        client.wait("00000000-0000-0000-0000-000000000000", Deadline.after(60))
    with pytest.raises(Missing):
        client.get("operations", "00000000-0000-0000-0000-000000000000")
    client.close()


def test_an_operation_that_outlasts_its_deadline_is_interrupted(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, config={"raw.lxc": "lxc.signal.halt = SIGWINCH"}))
    stop = {"action": "stop", "timeout": 600, "force": False}
    with pytest.raises(Interrupted, match="in time"):
        lab.client.put(("instances", name, "state"), stop, Deadline.after(4))
    lab.client.put(("instances", name, "state"), {**stop, "force": True}, Deadline.after(60))


def test_observation_asks_as_often_for_many_as_for_few(lab: Lab) -> None:
    asked: list[int] = []
    wanted: list[Desired] = []
    for _ in range(3):
        before = lab.client.requests
        lab.plan(*(wanted or [lab.container(lab.lxd.name())]))
        asked.append(lab.client.requests - before)
        wanted += [lab.container(lab.lxd.name(), power="stopped") for _ in range(4)]
        lab.converge(*wanted)
    assert len(set(asked[1:])) == 1 and max(asked) <= 4


def test_an_observation_that_is_only_about_containers_reads_nothing_else(lab: Lab) -> None:
    before = lab.client.requests
    lab.backend.observe({ResourceId("Container", f"none{number}") for number in range(50)})
    assert lab.client.requests - before == 1
    before = lab.client.requests
    lab.backend.observe({ResourceId("Container", "none"), ResourceId("Image", "busybox")})
    assert lab.client.requests - before == 2


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("members", [[], [1, "],"], [{"a": [1, {"metadata": []}]}, {"b": None}], None])
def test_a_list_is_read_one_after_the_other(members: list[Any] | None, indent: int | None) -> None:
    separators = (",", ":") if indent is None else None
    body = json.dumps({"type": "sync", "error": "", "metadata": members}, indent=indent, separators=separators)
    assert list(each(Answer(200, "", body.encode()), "GET /1.0/x")) == (members or [])
    if members and indent is None:
        with pytest.raises(Unreachable):
            list(each(Answer(200, "", body.encode()[:-3]), "GET /1.0/x"))


def test_one_that_is_read_alone_is_as_it_is_among_all(lab: Lab) -> None:
    container = lab.container(lab.lxd.name())
    profile = lab.desired("Profile", lab.lxd.name("p"), {"config": {"user.x": "1"}, "deletionPolicy": "delete"})
    nowhere = {"ipv4": {"address": "none"}, "ipv6": {"address": "none"}, "deletionPolicy": "delete"}
    network = lab.desired("Network", lab.lxd.name("n"), nowhere)
    lab.converge(container, profile, network)
    everything = lab.backend.observe().resources
    image = ResourceId("Image", "busybox")
    for id in (container.id, profile.id, network.id, image):
        before = lab.client.requests
        alone = lab.backend.observe({id, ResourceId(id.kind, "none")}).resources
        assert alone == {id: everything[id]}
        assert lab.client.requests - before == 2, "each by itself"


def test_what_is_written_over_a_unix_socket_imports_no_pylxd(lxd: PrivateLxd) -> None:
    program = f"""
import sys
from pathlib import Path
from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
client = Client(Address(socket=Path({str(lxd.socket)!r})))
client.patch(("profiles", "default"), {{"description": "written"}}, Deadline.after(120))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("pylxd", "requests", "urllib3", "ws4py")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    client = lxd.client()
    assert client.get("profiles", "default").metadata["description"] == "written"
    client.close()


def test_a_plan_that_finds_nothing_imports_no_pylxd(lxd: PrivateLxd) -> None:
    program = f"""
import sys
from pathlib import Path
from reconciler.backends.lxd.backend import LxdBackend
from reconciler.ports import Settings
backend = LxdBackend("lxd/local", {{"socket": {str(lxd.socket)!r}}}, Settings("e", Path("/nowhere"), Path("/nowhere")))
assert not any(name.startswith("reconciler.backends.lxd.apply") for name in sys.modules)
print(len(backend.observe().resources))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("pylxd", "requests", "urllib3", "ws4py")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, imported = done.stdout.splitlines()
    assert int(count) >= 4 and imported == "[]"
