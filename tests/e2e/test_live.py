"""What the command line promises of running guests: shares and ports come and go, what must restart waits."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.e2e.conftest import Done, Place
from tests.e2e.test_commands import IMAGE, container
from tests.support.unique import own_port

PORT = own_port(3)  # and the two behind it


def share(path: str = "/site") -> str:
    mounts = f"[{{target: Container/web, path: {path}}}]"
    head = "---\napiVersion: reconciler/v1\nkind: Share\nmetadata: {name: site}\n"
    return f"{head}spec: {{source: ./site, mounts: {mounts}}}\n"


def forward() -> str:
    head = "---\napiVersion: reconciler/v1\nkind: PortForward\nmetadata: {name: http}\n"
    return f"{head}spec: {{listen: '127.0.0.1:{PORT}', target: Container/web, port: 80}}\n"


def folder(place: Place) -> None:
    site = place.folder / "site"
    site.mkdir(mode=0o755)
    site.joinpath("hello").write_text("from the host")


def born(place: Place) -> str:
    """When the container's init began: a restart cannot hide from it."""
    return place.ok("exec", "web", "--", "sh", "-c", "cut -d' ' -f22 /proc/1/stat").out


def step(done: Done, id: str) -> dict[str, Any]:
    (found,) = [one for one in done.json["steps"] if one["id"] == id]
    return dict(found)


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Another program listens there."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", PORT))
        other.listen()
        yield


def test_a_share_comes_and_goes_while_its_guest_runs(place: Place) -> None:
    folder(place)
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    began = born(place)
    place.write("web.yaml", IMAGE + container("web") + share())
    planned = place.ok("plan", "-o", "json", file)
    assert step(planned, "Container/web")["effect"] == "live"
    assert step(planned, "Share/site")["reason"] == "carried by Container/web"
    place.ok("apply", file)
    assert place.ok("exec", "web", "--", "cat", "/site/hello").out == "from the host"
    assert place.run("exec", "web", "--", "touch", "/site/x").code != 0
    (seen,) = place.ok("get", "-o", "json", "Share").json
    mount = {"target": "Container/web", "path": "/site"}
    assert seen["spec"] == {"source": str(place.folder / "site"), "readOnly": True, "mounts": [mount]}
    assert "Container/web" in place.ok("describe", "Share/site").out

    assert "is taken out of Container/web" in place.ok("delete", "Share/site").err
    assert place.run("exec", "web", "--", "cat", "/site/hello").code != 0
    assert place.ok("get", "-o", "json", "Share").json == []
    assert born(place) == began

    place.ok("apply", file)  # it is declared still
    place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)  # and now it is not: no prune is needed
    assert place.names("Share") == set()
    assert born(place) == began
    place.write("web.yaml", IMAGE + container("web") + share())
    place.ok("apply", file)
    assert "goes with Container/web" in place.ok("delete", "--yes", file).err


def test_a_port_that_is_taken_is_held_and_its_guest_comes_up(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web") + forward())
    with taken():
        assert step(place.run("plan", "-o", "json", file), "PortForward/http")["verb"] == "hold"
        first = place.run("apply", file)
        assert first.code == 1 and f"127.0.0.1:{PORT} is taken by another program" in first.err
        assert place.names("PortForward") == set() and "Container/web" in place.names()
    place.ok("apply", file)
    began = born(place)
    serve = "nc -ll -p 80 -e echo hello </dev/null >/dev/null 2>&1 & "
    serve += "until busybox netstat -ltn | grep ':80 '; do sleep 0.1; done"

    place.ok("exec", "web", "--", "sh", "-c", serve)
    with socket.create_connection(("127.0.0.1", PORT), timeout=60) as connection:
        assert connection.recv(16) == b"hello\n"
    assert place.ok("plan", "--exit-code", file).out.startswith("Nothing to do")  # it is our own guest that listens
    place.ok("delete", "PortForward/http")
    with taken():
        assert born(place) == began
    place.ok("delete", "--yes", file)


def test_what_must_restart_waits_until_somebody_restarts_it(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", updatePolicy="live"))
    place.ok("apply", file)
    began = born(place)
    wanted = container("web", updatePolicy="live", memory="64MiB", config={"limits.kernel.nofile": "4096"})
    place.write("web.yaml", IMAGE + wanted)
    planned = step(place.ok("plan", "-o", "json", file), "Container/web")
    assert planned["effect"] == "live"
    assert [one["path"] for one in planned["waiting"]] == [["config", "limits.kernel.nofile"]]
    told = place.ok("apply", file)  # nobody has to be asked
    assert "waits for a restart (updatePolicy: live)" in told.out
    assert place.ok("get", "-o", "json", "Container/web").json[0]["spec"]["memory"] == {"size": 64 << 20}
    assert place.ok("plan", "--exit-code", file).code == 0
    assert born(place) == began
    assert "RestartPending" in place.ok("describe", "Container/web").out

    place.ok("restart", "web")
    assert born(place) != began
    assert "RestartPending" not in place.ok("describe", "Container/web").out
    assert "Max open files            4096" in place.ok("exec", "web", "--", "cat", "/proc/1/limits").out
    assert place.ok("plan", "--exit-code", file).out.startswith("Nothing to do: 2 resources as declared.")
    place.ok("delete", "--yes", file)


def test_waiting_can_be_lifted_for_one_run_and_a_saved_plan_keeps_that(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", updatePolicy="live"))
    place.ok("apply", file)
    began = born(place)
    place.write("web.yaml", IMAGE + container("web", updatePolicy="live", config={"limits.kernel.nofile": "4096"}))
    saved = str(place.folder / "change.plan")
    place.ok("plan", "--allow", "restart", "--out", saved, file)
    assert place.run("apply", "--allow", "restart", file).code == 1  # a restart is asked about
    assert born(place) == began
    place.ok("apply", saved)
    assert born(place) != began
    assert place.ok("plan", "--exit-code", file).out.startswith("Nothing to do: 2 resources as declared.")

    place.write("web.yaml", IMAGE + container("web", updatePolicy="restart"))
    place.ok("apply", file)  # the manifest itself lets it happen unattended
    place.ok("delete", "--yes", file)


def test_what_listens_inside_is_followed(place: Place) -> None:
    head = "---\napiVersion: reconciler/v1\nkind: PortForward\nmetadata: {name: dev}\n"
    auto = f"{head}spec: {{listen: 127.0.0.1, target: Container/web, port: auto, allow: [{PORT + 1}]}}\n"
    file = place.write("web.yaml", IMAGE + container("web") + auto)
    place.ok("apply", file)  # it does not exist before, and says what listens in it right afterwards
    assert "nothing that it allows listens" in place.ok("plan", "-v", "-o", "json", file).out
    quiet = "</dev/null >/dev/null 2>&1 &"
    serve = f"echo from inside >/index.html; busybox httpd -p {PORT + 2} -h /; "
    serve += f"busybox httpd -f -p {PORT + 1} -h / {quiet} echo $! >/pid; "
    serve += f"until busybox netstat -ltn | grep ':{PORT + 1} '; do sleep 0.1; done"
    place.ok("exec", "web", "--", "sh", "-c", serve)
    assert fetched(PORT + 1) is None
    planned = step(place.ok("plan", "-o", "json", file), "Container/web")
    assert planned["effect"] == "live"
    assert [one["path"] for one in planned["changes"]] == [["devices", f"port-dev-{PORT + 1}"]]
    place.ok("apply", file)
    assert fetched(PORT + 1) == "from inside\n"
    assert fetched(PORT + 2) is None
    assert place.names("PortForward") == {f"PortForward/dev-{PORT + 1}"}
    assert "Nothing to do" in place.ok("apply", file).out
    place.ok("exec", "web", "--", "sh", "-c", "kill $(cat /pid); while [ -e /proc/$(cat /pid) ]; do sleep 0.1; done")
    place.ok("apply", file)
    assert fetched(PORT + 1) is None
    place.ok("delete", "--yes", "--confirm-delete", file)


def fetched(port: int) -> str | None:
    """What a web server at that port of this host says; None where nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            return str(answer.read().decode())
    except ConnectionRefusedError:
        return None
    except urllib.error.URLError as error:
        assert isinstance(error.reason, ConnectionRefusedError)
        return None
