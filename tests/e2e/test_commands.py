"""What the verbs promise, against the real thing: containers of 1 MB that start in a third of a second."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.deadline import Deadline
from tests.e2e.conftest import COMMAND, Done, Place

IMAGE = """\
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox}
spec: {type: container, deletionPolicy: delete, source: {build: {recipe: busybox}}}
"""


def container(name: str, **spec: object) -> str:
    """A Container document; ``spec`` as JSON, which is YAML."""
    whole = {"image": "busybox", **spec}
    return f"---\napiVersion: reconciler/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec: {json.dumps(whole)}\n"


def environment(name: str, **spec: object) -> str:
    """An environment.yaml that lists all.yaml."""
    whole = {"resources": ["all.yaml"], **spec}
    return f"apiVersion: reconciler/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec: {json.dumps(whole)}\n"


def lxd(place: Place) -> Client:
    """A way past the reconciler, to look at or meddle with what is there."""
    return Client(Address(socket=Path(place.environment["LXD_SOCKET"])))


def verbs(done: Done) -> dict[str, str]:
    """Resource → verb, of a plan or run as JSON."""
    document = done.json
    return {one["id"]: one["verb"] for one in document.get("steps", document.get("outcomes"))}


def test_a_live_change_needs_no_word_and_a_disruptive_one_does(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)

    place.write("web.yaml", IMAGE + container("web", memory="64MiB"))
    assert verbs(place.ok("plan", "-o", "json", file))["Container/web"] == "update"
    place.ok("apply", file)

    place.write("web.yaml", IMAGE + container("web", memory="64MiB", power="stopped"))
    refused = place.run("apply", file)
    assert refused.code == 1
    assert "Container/web" in refused.err
    assert "--yes" in refused.err
    assert place.ok("get", "-o", "json", "Container/web").json[0]["power"] == "running"

    place.ok("apply", "--yes", file)
    assert place.ok("get", "-o", "json", "Container/web").json[0]["power"] == "stopped"
    place.ok("delete", "--yes", file)


def test_the_environment_may_approve_what_nobody_is_asked_about(place: Place) -> None:
    place.write("all.yaml", IMAGE + container("web"))
    file = place.write("environment.yaml", environment("approving", approve={"restart": True}))
    place.ok("apply", file)
    place.write("all.yaml", IMAGE + container("web", power="stopped"))
    place.ok("apply", file)
    place.ok("delete", "--yes", file)


def test_a_person_at_a_terminal_is_asked_and_may_say_no(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    for answer, code, left in (("n", 1, True), ("y", 0, False)):
        told, ended = at_terminal(place, ["delete", "Container/web"], "[y/N]", answer)
        assert "Go on? [y/N]" in told
        assert (ended, "Container/web" in place.names()) == (code, left)
    place.ok("delete", "--yes", file)


def at_terminal(place: Place, words: list[str], *dialogue: str) -> tuple[str, int]:
    """Run a command on a pseudo-terminal; what it said, and its exit code.

    dialogue: what it is to say, then what is answered to that, and so on
    """
    ours, theirs = os.openpty()
    told = b""
    with subprocess.Popen(
        [*COMMAND, *words], env=dict(place.environment), stdin=theirs, stdout=theirs, stderr=theirs, cwd=place.folder
    ) as process:
        os.close(theirs)
        try:
            heard = 0
            for prompt, answer in zip(dialogue[::2], dialogue[1::2], strict=True):
                while prompt.encode() not in told[heard:] and select.select([ours], [], [], 120)[0]:
                    told += os.read(ours, 4096)
                heard = len(told)
                os.write(ours, f"{answer}\n".encode())
            while select.select([ours], [], [], 120)[0]:
                told += os.read(ours, 4096)
            raise AssertionError(f"it neither ends nor says anything more: {told!r}")
        except OSError:  # the other side is closed: it has ended
            code = process.wait(120)
        finally:
            process.kill()
            os.close(ours)
    return told.decode(errors="replace"), code


def test_exit_codes_of_plan(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    assert place.run("plan", "--exit-code", file).code == 2
    assert place.run("plan", file).code == 0
    place.ok("apply", file)
    assert place.run("plan", "--exit-code", file).code == 0
    assert place.run("diff", "--exit-code", file).code == 0
    place.write("web.yaml", IMAGE + container("web", memory="64MiB"))
    different = place.run("diff", "--exit-code", file)
    assert different.code == 2
    assert "+memory.size: 64MiB" in different.out
    assert place.run("plan", "nowhere.yaml").code == 1
    place.ok("delete", "--yes", file)


def test_bad_manifests_are_all_shown_and_no_backend_is_called(place: Place) -> None:
    place.write("a.yaml", container("web", memory="two gigs"))
    place.write("b.yaml", container("web2", memorey="1GiB"))
    for verb in ("validate", "plan", "apply", "diff", "delete"):
        done = place.run(verb, str(place.folder), LXD_SOCKET="/nonexistent")
        assert done.code == 1
        assert done.out == ""
        assert "a.yaml:" in done.err
        assert "two gigs" in done.err
        assert "b.yaml:" in done.err
        assert "memory" in done.err
        assert "nonexistent" not in done.err


def test_a_saved_plan_is_carried_out_or_refuses_when_the_world_has_moved(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    saved = str(place.folder / "saved.plan")
    place.ok("plan", "--out", saved, file)
    assert Path(saved).stat().st_mode & 0o777 == 0o600
    place.ok("apply", saved)
    assert "Container/web" in place.names()
    assert place.run("apply", saved).code == 1  # it said create, and that is done

    place.write("web.yaml", IMAGE + container("web", memory="64MiB"))
    place.ok("plan", "--out", saved, file)
    client = lxd(place)
    client.patch(("instances", "web"), {"config": {"limits.memory": "32MiB"}}, Deadline.after(60))
    client.close()
    moved = place.run("apply", saved)
    assert moved.code == 1
    assert "moved" in moved.err
    assert "Container/web" in moved.err
    place.ok("delete", "--yes", file)


def test_a_saved_plan_that_others_could_have_changed_is_refused(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    saved = place.folder / "saved.plan"
    place.ok("plan", "--out", str(saved), file)
    saved.chmod(0o666)
    refused = place.run("apply", str(saved))
    assert refused.code == 1
    assert "writable by nobody else" in refused.err


def test_a_saved_plan_does_not_get_round_the_administrators_policy(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    saved = place.folder / "saved.plan"
    place.ok("plan", "--out", str(saved), file)
    saved.write_text(saved.read_text().replace('"power": "running"', '"power": "running", "privileged": true'))
    refused = place.run("apply", str(saved))
    assert refused.code == 1
    assert "privileged: root in it is root of the host" in refused.err
    assert "Container/web" not in place.names()


@pytest.mark.parametrize("damage", ["{}", '{"format": "reconciler/plan/v1"', "[" * 5000])
def test_a_broken_saved_plan_is_a_problem(place: Place, damage: str) -> None:
    saved = place.folder / "saved.plan"
    saved.write_text('{"format": "reconciler/plan/v1", "x": ' + damage)
    saved.chmod(0o600)
    assert place.run("apply", str(saved)).code == 1


def test_prune_takes_what_is_no_longer_declared_and_the_guard_stops_a_landslide(place: Place) -> None:
    names = [f"c{number}" for number in range(5)]
    place.write("all.yaml", IMAGE + "".join(container(name, power="stopped") for name in names))
    file = place.write("environment.yaml", environment("pruned", prune=True))
    place.ok("apply", file)

    place.write("all.yaml", IMAGE + "".join(container(name, power="stopped") for name in names[:4]))
    assert verbs(place.ok("plan", "-o", "json", file))["Container/c4"] == "delete"
    place.ok("apply", "--yes", file)
    assert "Container/c4" not in place.names()

    place.write("all.yaml", IMAGE)
    guarded = place.run("apply", "--yes", file)
    assert guarded.code == 1
    assert "--confirm-delete" in guarded.err
    assert {f"Container/{name}" for name in names[:4]} <= place.names()
    place.ok("apply", "--yes", "--confirm-delete", file)
    assert not {f"Container/{name}" for name in names} & place.names()
    place.ok("delete", "--yes", file)


def test_an_empty_set_of_manifests_is_an_error_never_delete_everything(place: Place) -> None:
    file = place.write("web/web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    empty = place.folder / "empty"
    empty.mkdir()
    place.write("nothing.yaml", "# nothing\n")
    for path in (str(empty), "gone.yaml", str(place.folder / "nothing.yaml")):
        assert place.run("apply", "--yes", "--prune", "--confirm-delete", path).code == 1, path
    assert "Container/web" in place.names()
    place.ok("delete", "--yes", file)


def test_the_second_apply_waits_or_says_who_holds_the_lock(place: Place) -> None:
    told = ["sh", "-c", "until [ -e /go ]; do sleep 0.1; done"]
    slow = container("slow", run=[{"command": told, "when": "create", "timeout": "4m"}])
    file = place.write("slow.yaml", IMAGE + slow)
    with place.started("apply", file, until="Container/slow: running sh") as first:
        impatient = place.run("apply", "--lock-timeout", "0s", file)
        assert impatient.code == 1
        assert f"process {first.pid}" in impatient.err
        with place.started("apply", "--lock-timeout", "4m", file, until="waiting") as patient:
            place.ok("exec", "slow", "--", "touch", "/go")
            patient.communicate(timeout=120)
        first.communicate(timeout=120)
    assert (first.returncode, patient.returncode) == (0, 0)
    place.ok("delete", "--yes", file)


def test_what_is_not_ours_is_held_until_it_is_adopted(place: Place) -> None:
    image = place.write("image.yaml", IMAGE)
    file = place.write("web.yaml", IMAGE + container("web", memory="64MiB"))
    place.ok("apply", image)
    client = lxd(place)
    body = {"name": "web", "source": {"type": "image", "alias": "busybox"}}
    client.post(("instances",), body, Deadline.after(60))
    held = place.run("plan", "-o", "json", file)
    assert held.code == 1
    assert verbs(held)["Container/web"] == "hold"
    refused = place.run("apply", "--yes", file)
    assert refused.code == 1
    assert "--adopt" in refused.out + refused.err
    assert "limits.memory" not in client.get("instances", "web").metadata["config"]
    place.ok("apply", "--yes", "--adopt", file)
    assert "limits.memory" in client.get("instances", "web").metadata["config"]
    client.close()
    assert place.run("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", file)


def test_an_unreachable_lxd_holds_its_own_and_lets_the_others_go_on(place: Place) -> None:
    disk = (
        "---\napiVersion: reconciler/v1\nkind: Disk\nmetadata: {name: d}\nspec: {size: 1MiB, deletionPolicy: delete}\n"
    )
    file = place.write("all.yaml", IMAGE + container("web") + disk)
    done = place.run("apply", "--yes", "-o", "json", file, LXD_SOCKET=str(place.folder / "nobody.sock"))
    assert done.code == 1
    results = {outcome["id"]: outcome["result"] for outcome in done.json["outcomes"]}
    assert results["Disk/d"] == "applied"
    assert results["Container/web"] == "held"
    assert not done.json["converged"]
    place.ok("apply", "--yes", file)
    place.ok("delete", "--yes", "--confirm-delete", file)


def test_guest_verbs(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    assert place.run("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7").code == 7
    assert place.ok("exec", "web", "-e", "WORD=hello there", "--", "sh", "-c", "echo $WORD").out == "hello there\n"
    assert place.ok("exec", "local/web", "--", "hostname").out == "web\n"
    assert place.ok("get", "-o", "name", "local/web").out == "Container/web\n"
    assert place.ok("exec", "-i", "Container/web", "--", "cat", stdin="through\n").out == "through\n"
    assert place.run("exec", "web").code == 1
    assert "web" in place.run("exec", "wep", "--", "true").err  # did you mean
    assert "reconciler-guest: ready" in place.ok("logs", "web").out
    assert place.run("shell", "web").code == 1  # no terminal
    place.ok("stop", "web")
    assert place.ok("get", "-o", "json", "web").json[0]["power"] == "stopped"
    down = place.run("exec", "web", "--", "true")
    assert (down.code, down.err) == (
        1,
        "Container/web: it is not running\n  hint: `reconciler start Container/web` starts it\n",
    )
    assert place.run("plan", "--exit-code", file).code == 2
    place.ok("start", "web")
    place.ok("restart", "web")
    assert place.run("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", file)


VM = """\
apiVersion: reconciler/v1
kind: Image
metadata: {name: busybox-vm}
spec: {type: virtual-machine, deletionPolicy: delete, source: {build: {recipe: busybox}}}
---
apiVersion: reconciler/v1
kind: VirtualMachine
metadata: {name: vm}
spec: {memory: MEMORY, boot: {image: busybox-vm}, ready: {guestAgent: true, timeout: 3m}}
"""


def test_a_vm_from_first_boot_to_restart(place: Place) -> None:
    file = place.write("vm.yaml", VM.replace("MEMORY", "256MiB"))
    place.ok("apply", file)
    assert place.run("exec", "vm", "--", "sh", "-c", "echo out; echo err >&2; exit 7").code == 7
    assert place.ok("exec", "vm", "--", "cat", "/proc/sys/kernel/ostype").out == "Linux\n"
    assert "reconciler-guest: ready" in place.ok("logs", "vm").out
    told, code = at_terminal(place, ["shell", "vm"], "~#", "\x1d")
    assert code == 0, told
    born = place.ok("exec", "vm", "--", "cat", "/proc/sys/kernel/random/boot_id").out

    place.write("vm.yaml", VM.replace("MEMORY", "288MiB"))
    planned = place.ok("plan", "-o", "json", file).json
    [step] = [step for step in planned["steps"] if step["verb"] != "noop"]
    assert (step["id"], step["verb"], step["effect"]) == ("VirtualMachine/vm", "restart", "restart")
    assert place.run("apply", file).code == 1  # nobody can be asked
    assert place.ok("exec", "vm", "--", "cat", "/proc/sys/kernel/random/boot_id").out == born
    place.ok("apply", "--yes", file)
    assert place.ok("exec", "vm", "--", "cat", "/proc/sys/kernel/random/boot_id").out != born
    place.ok("stop", "vm")
    assert place.run("plan", "--exit-code", file).code == 2
    place.ok("apply", file)  # starting it interrupts nobody
    assert place.ok("get", "-o", "json", "VirtualMachine/vm").json[0]["ready"] is True
    place.ok("delete", "--yes", file)


def test_a_shell_in_a_container_gives_its_exit_code_back(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    told, code = at_terminal(place, ["shell", "web"], "~#", "exit 5")
    assert code == 5, told
    place.ok("delete", "--yes", file)


def test_get_and_describe_show_what_is_there(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web", memory="64MiB", config={"environment.TOKEN": "hunter2"}))
    place.ok("apply", file)
    [web] = place.ok("get", "-o", "json", "Container/web").json
    assert {"id", "host", "power", "ready", "owned", "spec", "conditions"} <= web.keys()
    assert (web["id"], web["host"], web["power"], web["owned"]) == ("Container/web", "local", "running", True)
    assert web["spec"]["memory"]["size"] == 64 << 20
    shown = [place.ok("get", "-o", form).out for form in ("table", "wide", "json", "yaml", "name")]
    shown += [place.ok("describe", "-o", form, "Container/web").out for form in ("table", "json", "yaml")]
    assert all("Container/web" in text for text in shown)
    assert not any("hunter2" in text for text in shown)
    assert place.run("get", "Containr").code == 1
    assert place.run("get", "Container/nobody").code == 1
    assert "create" in place.ok("history").out
    place.ok("delete", "--yes", file)


def test_delete_keeps_to_what_is_ours_and_what_may_go(place: Place) -> None:
    volume = "---\napiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: kept}\nspec: {pool: default}\n"
    file = place.write("all.yaml", IMAGE + volume + container("web", protect=True))
    place.ok("apply", file)
    protected = place.run("delete", "--yes", "Container/web")
    assert protected.code == 1
    assert "protected" in protected.err + protected.out
    place.write("all.yaml", IMAGE + volume + container("web"))
    place.ok("apply", file)
    place.ok("delete", "--yes", file)
    assert place.names() == {"Volume/kept"}
    place.ok("delete", "--yes", "--confirm-delete", "Volume/kept")
    assert place.run("delete", "--yes", "--confirm-delete", "Volume/kept").code == 0  # gone is gone


def test_an_interrupted_apply_leaves_in_time_and_the_next_one_finishes(place: Place) -> None:
    slow = container("slow", run=[{"command": ["sleep", "600"], "when": "create", "timeout": "900s"}])
    file = place.write("slow.yaml", IMAGE + slow + container("quick"))
    with place.started("apply", file, until="Container/slow: creating") as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)  # it does not wait for what takes ten minutes
    assert process.returncode == 130
    place.write("slow.yaml", IMAGE + container("slow") + container("quick"))
    place.ok("apply", "--yes", file)
    assert place.run("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", file)


def test_a_lost_history_loses_nothing_else(place: Place) -> None:
    file = place.write("web.yaml", IMAGE + container("web"))
    place.ok("apply", file)
    history = place.state / "history.sqlite"
    history.write_bytes(b"this is no database" * 100)
    assert place.run("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", file)
    history.unlink()
    with sqlite3.connect(":memory:"):
        assert place.ok("history", "-o", "json").json == []


def test_a_failing_guest_is_shown_with_its_last_words_and_taken_up_again(place: Place) -> None:
    broken = container("web", run=[{"command": ["sh", "-c", "echo no such luck; exit 3"], "when": "create"}])
    file = place.write("web.yaml", IMAGE + broken + container("sibling"))
    failed = place.run("apply", "--yes", "-o", "json", file)
    assert failed.code == 1
    outcomes = {outcome["id"]: outcome for outcome in failed.json["outcomes"]}
    assert outcomes["Container/web"]["result"] == "failed"
    assert "no such luck" in json.dumps(outcomes["Container/web"]["problem"])
    assert outcomes["Container/sibling"]["result"] == "applied"
    place.write("web.yaml", IMAGE + container("web") + container("sibling"))
    place.ok("apply", "--yes", file)
    assert place.run("plan", "--exit-code", file).code == 0
    place.ok("delete", "--yes", file)


def test_only_looks_at_what_it_names_and_what_that_needs(place: Place) -> None:
    file = place.write("all.yaml", IMAGE + container("a") + container("b"))
    place.ok("apply", "--only", "a", file)
    assert place.names() == {"Container/a", "Image/busybox"}
    wrong = place.run("apply", "--only", "Container/aa", file)
    assert wrong.code == 1
    assert "did you mean Container/a?" in wrong.err
    place.ok("delete", "--yes", file)


def test_standard_input_is_a_manifest(place: Place) -> None:
    text = IMAGE + container("web")
    assert place.ok("validate", "-", stdin=text).out.startswith("Valid")
    place.ok("apply", "-", stdin=text)
    assert "Container/web" in place.names()
    place.ok("delete", "--yes", "-", stdin=text)


def test_a_reader_that_leaves_does_not_break_get(place: Place) -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -m reconciler.cli get --all -o json | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        ],
        env=dict(place.environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""
