"""APPLY, inside the running guest: what makes it a home: the account that people use, time zone and locale.

Everything may be done again: each thing is looked at first, and changed only where it is not as declared. Accounts are
made with useradd where the guest has it, else in its own files. Nothing that is declared ever goes through a shell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from reconciler import accounts
from reconciler.accounts import Account
from reconciler.backends.lxd.apply import zones
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.console import tail
from reconciler.backends.lxd.files import Files
from reconciler.backends.lxd.session import MOST, capture
from reconciler.blocks import BrokenMarks, with_block
from reconciler.ports import FILE, FOLDER
from reconciler.problems import GuestFailed, Problem, Refused

FIELDS = ("user", "timezone", "locale")
SUDOERS = "/etc/sudoers.d/reconciler"
LINGER = "/var/lib/systemd/linger"
KEYS = "reconciler"
"""What our part of authorized_keys is called."""
_PASSWD, _GROUP, _SHADOW = "/etc/passwd", "/etc/group", "/etc/shadow"
_NOT_THERE = "Command not found"
_PATIENCE = 60.0


def concerned(task: Task) -> bool:
    """Whether the step changes anything of it."""
    return any(change.path[0] in FIELDS for change in task.step.changes)


def set_up(task: Task) -> None:
    """Have account, time zone and locale as declared. Raises GuestFailed with what the guest said, Refused."""
    guest = Guest(task, Files(task.client, task.name, task.deadline))
    if user := task.spec.get("user"):
        task.tell(f"setting up {user['name']}")
        account = _account(guest, user)
        _groups(guest, user, account)
        _grants(guest, user)
        _home(guest, user, account)
    if zone := task.spec.get("timezone"):
        zones.set_timezone(guest.files, zone, str(task.step.id))
    if locale := task.spec.get("locale"):
        zones.set_locale(guest.files, locale)


def take_back(task: Task) -> None:
    """Take away what an earlier apply granted and the manifest no longer does. The account and its home stay."""
    applied = task.observed.applied if task.observed else None
    before, now = (applied or {}).get("user") or {}, task.spec.get("user") or {}
    if not before or not concerned(task):
        return
    if before.get("name") != now.get("name"):
        now = {}
    guest = Guest(task, Files(task.client, task.name, task.deadline))
    if before.get("sudo") and not now.get("sudo"):
        guest.files.remove(SUDOERS)
    if before.get("linger") and not now.get("linger"):
        guest.run("loginctl", "disable-linger", before["name"])
        guest.files.remove(f"{LINGER}/{before['name']}")
    account = guest.account(before["name"])
    if account is None:
        return
    if before.get("sshKeys") and not now.get("sshKeys"):
        _write_keys(guest, account, [])
    for group in sorted(set(before.get("groups") or ()) - set(now.get("groups") or ())):
        guest.change(_GROUP, partial(accounts.without_member, name=group, member=account.name))


@dataclass(frozen=True, slots=True)
class Guest:
    """The guest of a task: its files, and commands in it."""

    task: Task
    files: Files

    def run(self, *words: str, account: Account | None = None, data: bytes = b"") -> tuple[int, bytes] | None:
        """How a command ended and what it said; None when the guest has no such command, or does not run.

        account: whom it runs as, None for root; data: what it reads
        """
        within = self.task.deadline.within(_PATIENCE)
        try:
            return capture(self.task.client, self.task.name, words, within, account, data)
        except Refused as error:
            if error.problem.summary in (_NOT_THERE, "Instance is not running"):
                return None
            raise

    def tool(self, *words: str) -> bool:
        """Run a command that has to work; False when the guest does not have it. Raises GuestFailed."""
        done = self.run(*words)
        if done is None:
            return False
        if done[0] != 0:
            summary = f"user: {words[0]} ended with exit code {done[0]}"
            raise GuestFailed(Problem(summary, subject=str(self.task.step.id), detail=tail(done[1])))
        return True

    def text(self, path: str) -> str:
        return (self.files.read(path) or b"").decode("utf-8", "surrogateescape")

    def account(self, name: str) -> Account | None:
        return next((one for one in accounts.accounts(self.text(_PASSWD)) if one.name == name), None)

    def change(self, path: str, edit: Callable[[str], str], mode: int = 0o644) -> None:
        """Edit one of the guest's own files: written whole beside it, and then put in its place."""
        entry, before = self.files.entry(path), self.text(path)
        after = edit(before)
        if after == before:
            return
        if entry is not None and entry.type != FILE:
            raise self.refused(f"{path} is not a plain file")
        data, beside = after.encode("utf-8", "surrogateescape"), f"{path}.reconciler"
        self.files.remove(beside)
        mode, uid, gid = (entry.mode, entry.uid, entry.gid) if entry else (mode, 0, 0)
        self.files.write(beside, data, mode, uid, gid)
        if self.run("mv", "-f", beside, path) != (0, b""):
            self.files.write(path, data, mode, uid, gid)
            self.files.remove(beside)

    def refused(self, summary: str, hint: str | None = None) -> Refused:
        return Refused(Problem(f"user: {summary}", subject=str(self.task.step.id), hint=hint))


def _account(guest: Guest, user: Mapping[str, Any]) -> Account:
    """The account as declared; made, or its shell and home changed, where it is not."""
    name, passwd = user["name"], guest.text(_PASSWD)
    if not passwd:
        raise guest.refused("the container has no /etc/passwd")
    found = guest.account(name)
    if found is None:
        _check_free(guest, user, passwd)
        _create(guest, user, passwd)
    else:
        _check_same(guest, user, found)
        _change(guest, user, found)
    account = guest.account(name)
    if account is None:
        raise guest.refused(f"there is no account {name} although it was made")
    return account


def _check_free(guest: Guest, user: Mapping[str, Any], passwd: str) -> None:
    taken = [one.name for one in accounts.accounts(passwd) if one.uid == user.get("uid")]
    if taken:
        summary = f"uid {user['uid']} belongs to {taken[0]} in this image"
        raise guest.refused(summary, f"take another uid, or name: {taken[0]}")


def _check_same(guest: Guest, user: Mapping[str, Any], found: Account) -> None:
    if user.get("uid", found.uid) != found.uid:
        summary = f"{found.name} has uid {found.uid}, and its files belong to that"
        raise guest.refused(summary, f"declare uid: {found.uid}, or another name")


def _create(guest: Guest, user: Mapping[str, Any], passwd: str) -> None:
    name, group = user["name"], guest.text(_GROUP)
    uid = user.get("uid", accounts.free_uid(passwd))
    own = next((one.gid for one in accounts.groups(group) if one.name == name), None)
    gid = own if own is not None else accounts.free_gid(group, uid)
    home, shell = user.get("home", f"/home/{name}"), user.get("shell") or _usual_shell(guest)
    _folders(guest, home)
    _make_group(guest, name, gid)
    words = ("--uid", str(uid), "--gid", name, "--home-dir", home, "--shell", shell)
    if not guest.tool("useradd", *words, "--create-home", "--", name):
        guest.change(_SHADOW, lambda text: accounts.with_shadow(text, name) if text else text, 0o600)
        guest.change(_PASSWD, lambda text: accounts.with_account(text, Account(name, uid, gid, home, shell)))


def _usual_shell(guest: Guest) -> str:
    return "/bin/bash" if guest.files.entry("/bin/bash") else "/bin/sh"


def _change(guest: Guest, user: Mapping[str, Any], found: Account) -> None:
    home, shell = user.get("home", found.home), user.get("shell", found.shell)
    if (home, shell) == (found.home, found.shell):
        return
    # usermod refuses while somebody is logged in, although neither concerns who is.
    guest.change(
        _PASSWD, lambda text: accounts.with_account(text, Account(found.name, found.uid, found.gid, home, shell))
    )


def _make_group(guest: Guest, name: str, gid: int) -> None:
    if any(one.name == name for one in accounts.groups(guest.text(_GROUP))):
        return
    if not guest.tool("groupadd", "--gid", str(gid), "--", name):
        guest.change(_GROUP, lambda text: accounts.with_group(text, name, gid))


def _groups(guest: Guest, user: Mapping[str, Any], account: Account) -> None:
    for name in user.get("groups") or ():
        there = {one.name: one for one in accounts.groups(guest.text(_GROUP))}
        if name not in there:
            _make_group(guest, name, accounts.free_gid(guest.text(_GROUP), accounts.FIRST_UID))
        elif account.name in there[name].members or there[name].gid == account.gid:
            continue
        if not guest.tool("usermod", "--append", "--groups", name, "--", account.name):
            guest.change(_GROUP, partial(accounts.with_member, name=name, member=account.name))


def _grants(guest: Guest, user: Mapping[str, Any]) -> None:
    name = user["name"]
    if user.get("sudo"):
        _write(guest, SUDOERS, f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n".encode(), 0o440)
    if user.get("linger"):
        _folders(guest, f"{LINGER}/{name}")
        _write(guest, f"{LINGER}/{name}", b"", 0o644)
        guest.run("loginctl", "enable-linger", name)  # where logind runs already; else it finds the file


def _write(guest: Guest, path: str, data: bytes, mode: int) -> None:
    """A file of ours, with exactly this mode: LXD keeps the mode of a file that it overwrites."""
    entry = guest.files.entry(path)
    if entry is not None and (entry.type, entry.mode, entry.uid) == (FILE, mode, 0) and guest.files.read(path) == data:
        return
    _folders(guest, path)
    if entry is not None:
        guest.files.remove(path)
    guest.files.write(path, data, mode)


def _folders(guest: Guest, path: str) -> None:
    """The folders on the way to that path, root's own where they are not there yet."""
    parts = path.strip("/").split("/")[:-1]
    for number in range(len(parts)):
        folder = "/" + "/".join(parts[: number + 1])
        if guest.files.entry(folder) is None:
            guest.files.folder(folder)


def _home(guest: Guest, user: Mapping[str, Any], account: Account) -> None:
    """The home folder, the account's own; and who may log in."""
    if guest.files.entry(account.home) is None:
        _folders(guest, account.home)
        guest.files.folder(account.home, 0o755, account.uid, account.gid)
    if "sshKeys" in user:
        _write_keys(guest, account, list(user["sshKeys"]))


def _write_keys(guest: Guest, account: Account, keys: list[str]) -> None:
    """Our part of authorized_keys. Its owner may have put a link in the way: root does not follow it."""
    folder = f"{account.home}/.ssh"
    path = f"{folder}/authorized_keys"
    for place, type in ((account.home, FOLDER), (folder, FOLDER), (path, FILE)):
        entry = guest.files.entry(place)
        if entry is not None and entry.type != type:
            raise guest.refused(f"{place} is not a plain {'file' if type == FILE else 'folder'}: no keys were written")
        if entry is None and (not keys or place == account.home):
            return
        if entry is None and place == folder:
            guest.files.folder(folder, 0o700, account.uid, account.gid)
    before = read_as(guest, account, path) if entry is not None else b""
    try:
        after = with_block(before, KEYS, keys)
    except BrokenMarks as error:
        raise guest.refused(f"{path}: {error}") from error
    if after != before:
        write_as(guest, account, path, after)


def read_as(guest: Guest, account: Account, path: str) -> bytes:
    """A file as its owner reads it: who swaps it for a link meanwhile gets no more than is theirs anyway."""
    done = guest.run("cat", path, account=account)
    if done is None:  # it is down, and nobody is at work in it
        return guest.files.read(path) or b""
    if done[0] != 0 or len(done[1]) >= MOST:
        raise guest.refused(f"{path} cannot be read: no keys were written")
    return done[1]


def write_as(guest: Guest, account: Account, path: str, data: bytes) -> None:
    """The same for writing."""
    done = guest.run("tee", path, account=account, data=data)
    if done is None:
        guest.files.write(path, data, 0o600, account.uid, account.gid)
    elif done[0] != 0:
        raise guest.refused(f"{path} cannot be written: no keys were written")
    else:
        guest.run("chmod", "600", path, account=account)
