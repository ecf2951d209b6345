"""What makes a container a home, in a guest without tools for it: account, time zone, locale, and who may log in."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from reconciler.backends.lxd.apply import home
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.files import Files
from reconciler.model import Outcome, ResourceId, Result, Step, Verb
from reconciler.ports import Call
from reconciler.problems import Refused
from tests.support.lxd import Crash, Lab, crash_at

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2nl8Vq0gkJzGZJ8pUZ3s4rQmN7e0TqgkQbUq3J7o1c ada@desk"
OTHER = KEY.replace("ada@desk", "ada@phone")
ADA = {"name": "ada", "uid": 1234, "groups": ["audio", "www-data"], "sudo": True, "linger": True, "sshKeys": [KEY]}
KEYS = "/home/ada/.ssh/authorized_keys"
ZONE: dict[str, Any] = {"timezone": "Asia/Kolkata", "locale": "de_DE.UTF-8"}


def told(outcomes: list[Outcome]) -> str:
    assert outcomes[0].result is Result.FAILED
    return str(outcomes[0].problem)


def check_home(lab: Lab, name: str) -> None:
    """Everything that ADA and ZONE say, as the guest has it."""
    assert lab.inside(name, "su", "-l", "ada", "-c", "id -u; id -g; pwd; date +%Z").split() == [
        "1234",
        "1234",
        "/home/ada",
        "IST",
    ]
    assert set(lab.inside(name, "id", "-Gn", "ada").split()) == {"ada", "www-data", "audio"}
    script = f"cd /; stat -c '%a %U:%G' etc/sudoers.d/reconciler home/ada home/ada/.ssh .{KEYS} etc/shadow"
    assert lab.inside(name, "sh", "-c", script).splitlines() == [
        "440 root:root",
        "755 ada:ada",
        "700 ada:ada",
        "600 ada:ada",
        "600 root:root",
    ]
    assert lab.inside(name, "cat", "/etc/sudoers.d/reconciler") == "ada ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert KEY in lab.inside(name, "cat", KEYS)
    assert lab.inside(name, "cat", "/etc/locale.conf") == "LANG=de_DE.UTF-8\n"
    assert lab.inside(name, "ls", "/var/lib/systemd/linger") == "ada\n"
    assert lab.inside(
        name, "sh", "-c", "exec 2>&1; grep -c ^ada: /etc/passwd /etc/group /etc/shadow; ls /etc/*.reconciler || true"
    ) == ("/etc/passwd:1\n/etc/group:1\n/etc/shadow:1\nls: /etc/*.reconciler: No such file or directory\n")


def test_an_account_is_set_up_changed_and_taken_back_while_it_runs(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, user=ADA, **ZONE))
    check_home(lab, name)
    began = lab.init_start(name)
    lab.inside(name, "sh", "-c", f"echo 'ssh-rsa AAAA mine' >> {KEYS}; echo LC_TIME=C >> /etc/locale.conf")

    changed = {**ADA, "groups": ["audio"], "sudo": False, "linger": False, "shell": "/bin/ash", "sshKeys": [OTHER]}
    lab.converge(lab.container(name, user=changed, timezone="UTC", locale="C.UTF-8"))
    assert "www-data" not in lab.inside(name, "id", "ada")
    assert lab.inside(name, "sh", "-c", "ls /etc/sudoers.d /var/lib/systemd/linger; date +%Z").split() == [
        "/etc/sudoers.d:",
        "/var/lib/systemd/linger:",
        "UTC",
    ]
    assert lab.inside(name, "grep", "^ada:", "/etc/passwd") == "ada:x:1234:1234::/home/ada:/bin/ash\n"
    assert lab.inside(name, "cat", KEYS) == f"# begin reconciler\n{OTHER}\n# end reconciler\nssh-rsa AAAA mine\n"
    assert lab.inside(name, "cat", "/etc/locale.conf") == "LC_TIME=C\nLANG=C.UTF-8\n"

    lab.converge(lab.container(name))
    assert lab.inside(name, "cat", KEYS) == "ssh-rsa AAAA mine\n"
    assert lab.inside(name, "id", "-u", "ada") == "1234\n"  # the account and what is its own stay
    assert lab.init_start(name) == began


@pytest.mark.parametrize(
    ("meddling", "field"),
    [
        ("sed -i /^ada:/d /etc/passwd /etc/shadow", "user.name"),
        ("sed -i s,/bin/sh$,/bin/false, /etc/passwd", "user.shell"),
        ("sed -i s,33:ada,33:, /etc/group", "user.groups"),
    ],
)
def test_an_account_that_somebody_took_away_is_seen_and_set_up_again(lab: Lab, meddling: str, field: str) -> None:
    name = lab.lxd.name()
    want = lab.container(name, user={**ADA, "shell": "/bin/sh"}, **ZONE)
    lab.converge(want)
    before = lab.client.requests
    assert lab.plan(want)[0].in_sync
    reads = lab.client.requests - before
    lab.inside(name, "sh", "-c", meddling)
    before = lab.client.requests
    [step] = lab.plan(want)[0].work
    assert lab.client.requests - before == reads  # seen without a question more
    assert field in [change.field for change in step.changes]
    lab.converge(want)
    check_home(lab, name)


def test_what_is_not_said_is_left_to_the_guest(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, user={"name": "bob"}))
    assert lab.inside(name, "grep", "^bob:", "/etc/passwd") == "bob:x:1000:1000::/home/bob:/bin/sh\n"
    lab.inside(name, "sed", "-i", "s,/home/bob:/bin/sh,/srv:/bin/ash,", "/etc/passwd")
    lab.converge(lab.container(name, user={"name": "bob", "groups": ["daemon"]}))
    assert lab.inside(name, "grep", "^bob:", "/etc/passwd") == "bob:x:1000:1000::/srv:/bin/ash\n"
    assert lab.inside(name, "id", "-Gn", "bob") == "bob daemon\n"
    assert (
        lab.inside(name, "sh", "-c", "ls -d /etc/sudoers.d /home/bob/.ssh /etc/locale.conf 2>&1 | grep -c No") == "3\n"
    )


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"name": "ada", "uid": 65534}, "uid 65534 belongs to nobody in this image"),
        ({"name": "daemon", "uid": 1000}, "daemon has uid 1, and its files belong to that"),
    ],
)
def test_a_number_that_cannot_be_had_is_refused_by_name(lab: Lab, user: dict[str, object], said: str) -> None:
    assert said in told(lab.apply(lab.container(lab.lxd.name(), user=user)))


def test_a_zone_that_nobody_knows_is_refused_by_name(lab: Lab) -> None:
    name = lab.lxd.name()
    assert 'there is no "Mars/Base"' in told(lab.apply(lab.container(name, timezone="Mars/Base")))
    outcomes = lab.converge(lab.container(name, timezone="UTC"))
    assert outcomes[0].step.verb is Verb.UPDATE


def test_keys_are_not_written_through_a_link(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, user={"name": "ada"}))
    for trap in (".ssh", ".ssh/authorized_keys"):
        target = "/root" if trap == ".ssh" else "/root/authorized_keys"
        script = f"rm -rf /home/ada/.ssh; mkdir -p $(dirname /home/ada/{trap}); ln -s {target} /home/ada/{trap}"
        lab.inside(name, "sh", "-c", script)
        outcomes = lab.apply(lab.container(name, user={"name": "ada", "sshKeys": [KEY]}))
        assert f"/home/ada/{trap} is not a plain" in told(outcomes)
        assert lab.inside(name, "ls", "-A", "/root").strip() == ""


def test_whoever_puts_a_link_there_in_the_last_moment_gets_nothing_of_roots(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(name, user={"name": "ada"})
    lab.converge(want)
    lab.inside(name, "sh", "-c", "umask 077; echo theirs >/root/keys; ln -s /root/keys /home/ada/keys")
    step = Step(want.id, want.backend, Verb.UPDATE, "")
    task = Task(lab.client, lab.lxd.settings, step, want, None, lambda _: None, Deadline.after(60))
    guest = home.Guest(task, Files(lab.client, name))
    ada = guest.account("ada")
    assert ada is not None
    with pytest.raises(Refused, match="no keys were written"):
        home.read_as(guest, ada, "/home/ada/keys")
    with pytest.raises(Refused, match="no keys were written"):
        home.write_as(guest, ada, "/home/ada/keys", b"ours")
    assert lab.inside(name, "cat", "/root/keys") == "theirs\n"


def test_what_is_down_is_set_up_when_it_starts(lab: Lab) -> None:
    name = lab.lxd.name()
    log = [{"command": ["sh", "-c", "id -un ada >> /log"], "when": when, "timeout": 9} for when in ("create", "change")]
    lab.converge(lab.container(name, user=ADA, run=log, power="stopped", **ZONE))
    lab.converge(lab.container(name, user=ADA, run=log, **ZONE))
    check_home(lab, name)
    began = lab.init_start(name)
    lab.converge(lab.container(name, user=ADA, run=log, power="stopped", **ZONE))
    bob = {"name": "bob"}
    lab.converge(lab.container(name, user=bob, run=log, power="stopped", **ZONE))
    lab.converge(lab.container(name, user=bob, run=log, **ZONE))
    assert lab.init_start(name) != began
    assert lab.inside(name, "id", "-un", "bob") == "bob\n"
    assert lab.inside(name, "cat", "/log") == "ada\n"  # an account that changes is no change that commands run for


def test_what_a_start_owes_is_due_whoever_started_it(lab: Lab) -> None:
    name = lab.lxd.name()
    want = lab.container(name, user=ADA, power="stopped", **ZONE)
    lab.converge(want)
    lab.backend.power(ResourceId("Container", name), "start", False, 20, lab.told.append)
    outcomes = lab.converge(lab.container(name, user=ADA, **ZONE))
    assert outcomes[0].step.verb is Verb.UPDATE
    check_home(lab, name)


def test_a_kill_at_any_request_is_made_good_by_the_next_apply(lab: Lab) -> None:
    """At every third one, each time from what the last kill left."""
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    wanted = lab.container(name, user=ADA, **ZONE)
    write, replied, died = 1, False, ["first"]
    while died:
        with crash_at(lab.client, write, replied) as died, contextlib.suppress(Crash):
            lab.apply(wanted)
        write, replied = write + 3, not replied
    lab.converge(wanted)
    check_home(lab, name)


def test_files_says_what_is_there(lab: Lab) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name))
    files = Files(lab.client, name, Deadline.after(60))
    files.folder("/srv")
    files.folder("/srv/a b", 0o750, 7, 8)
    files.write("/srv/a b/c", b"words", 0o640, 7, 8)
    files.link("/srv/l", "/etc/passwd")
    found = {path: files.entry(path) for path in ("/srv/a b", "/srv/a b/c", "/srv/l", "/srv/none")}
    assert [(one.type, one.mode, one.uid, one.gid) if one else None for one in found.values()] == [
        ("folder", 0o750, 7, 8),
        ("file", 0o640, 7, 8),
        ("link", 0o777, 0, 0),
        None,
    ]
    parts: list[bytes] = []
    files.stream("/srv/a b/c", parts.append)
    assert (b"".join(parts), files.read("/srv/l"), sorted(files.names("/srv"))) == (
        b"words",
        b"/etc/passwd",
        ["a b", "l"],
    )
    assert (files.remove("/srv/l"), files.remove("/srv/l")) == (True, False)


def as_somebody(
    lab: Lab, capfd: pytest.CaptureFixture[str], name: str, user: str, *words: str
) -> tuple[int, list[str]]:
    code = lab.backend.execute(ResourceId("Container", name), Call(words, {"X": "y"}, timeout=60, user=user))
    return code, capfd.readouterr().out.split()


def test_exec_as_an_account(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    name = lab.lxd.name()
    lab.converge(lab.container(name, user={"name": "ada", "uid": 1234}))
    script = ("sh", "-c", "id -u; id -g; pwd; echo $HOME $USER $X; exit 7")
    for who in ("ada", "1234"):
        assert as_somebody(lab, capfd, name, who, *script) == (
            7,
            ["1234", "1234", "/home/ada", "/home/ada", "ada", "y"],
        )
    assert as_somebody(lab, capfd, name, "root", *script)[1][:2] == ["0", "0"]
    lab.inside(name, "rm", "-r", "/home/ada")
    assert as_somebody(lab, capfd, name, "ada", "pwd") == (0, ["/"])
    for nobody in ("eve", "-x", "ada; id", "77"):
        with pytest.raises(Refused, match="there is no account"):
            as_somebody(lab, capfd, name, nobody, "true")
