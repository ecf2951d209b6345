"""accounts, blocks: a guest's own files, edited as little as can be."""

from __future__ import annotations

import pytest

from reconciler import accounts
from reconciler.accounts import Account
from reconciler.blocks import BrokenMarks, block_of, with_block

PASSWD = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada,,,:/home/ada:/bin/sh\n# odd\nnobody:x:65534:65534::/:\n"
GROUP = "root:x:0:\naudio:x:29:bob\nada:x:1001:\nvideo:x:44:ada,bob\n"
ADA = Account("ada", 1000, 1001, "/home/ada", "/bin/sh")


def test_accounts_are_found_by_name_and_then_by_number() -> None:
    assert accounts.find_account(PASSWD, "ada") == accounts.find_account(PASSWD, "1000") == ADA
    assert accounts.find_account("7:x:8:8::/:/bin/sh\nx:x:7:7::/:/bin/sh\n", "7") == Account("7", 8, 8, "/", "/bin/sh")
    assert accounts.find_account(PASSWD, "65534") == Account("nobody", 65534, 65534, "/", "/bin/sh")
    assert accounts.find_account(PASSWD, "bob") is None
    assert accounts.memberships(GROUP, ADA) == (1001, 44)


@pytest.mark.parametrize(
    ("passwd", "free"), [("", 1000), (PASSWD, 1001), ("a:x:5:5::/:\nb:x:1007:1::/:\nn:x:65534:1::/:\n", 1008)]
)
def test_the_next_number_is_above_those_that_people_have(passwd: str, free: int) -> None:
    assert accounts.free_uid(passwd) == free


def test_a_group_takes_the_number_of_its_account_or_the_next_one() -> None:
    assert (accounts.free_gid(GROUP, 1000), accounts.free_gid(GROUP, 1001)) == (1000, 1002)


def test_an_account_is_added_or_changed_and_nothing_else_is() -> None:
    bob = Account("bob", 1001, 1002, "/home/bob", "/bin/bash")
    assert accounts.with_account(PASSWD, bob) == PASSWD + "bob:x:1001:1002::/home/bob:/bin/bash\n"
    moved = accounts.with_account(PASSWD, Account("ada", 1, 1, "/elsewhere", "/bin/zsh"))
    assert moved == PASSWD.replace("Ada,,,:/home/ada:/bin/sh", "Ada,,,:/elsewhere:/bin/zsh")
    assert accounts.with_shadow("root:*:::::::", "ada") == "root:*:::::::\nada:*:::::::\n"
    assert accounts.with_shadow("ada:secret:::::::\n", "ada") == "ada:secret:::::::\n"


def test_groups_and_members_come_and_go() -> None:
    assert accounts.with_group(GROUP, "disk", 6) == GROUP + "disk:x:6:\n"
    assert accounts.with_group(GROUP, "audio", 6) == GROUP
    assert accounts.with_member(GROUP, "audio", "ada") == GROUP.replace("29:bob", "29:bob,ada")
    assert accounts.with_member(GROUP, "root", "ada") == GROUP.replace("root:x:0:", "root:x:0:ada")
    assert accounts.with_member(GROUP, "video", "ada") == GROUP
    assert accounts.without_member(GROUP, "video", "ada") == GROUP.replace("44:ada,bob", "44:bob")
    assert accounts.without_member(GROUP, "audio", "ada") == GROUP


BLOCK = b"# begin x\none\ntwo\n# end x\n"
ENDLESS = BLOCK.replace(b"begin x", b"begin x (the line before had no end)")


@pytest.mark.parametrize(
    ("around", "there"),
    [
        (b"", BLOCK),
        (b"a\n", b"a\n" + BLOCK),
        (b"\n\n", b"\n\n" + BLOCK),
        (b"\xff\r\nno end", b"\xff\r\nno end\n" + ENDLESS),
    ],
)
def test_a_block_comes_changes_and_goes_and_the_rest_stays(around: bytes, there: bytes) -> None:
    assert with_block(around, "x", ["one", "two"]) == there
    assert with_block(there, "x", ["one", "two"]) == there
    assert block_of(there, "x") == ["one", "two"] and block_of(around, "x") == []
    assert with_block(there + b"tail", "x", ["three"]) == there.replace(b"one\ntwo", b"three") + b"tail"
    assert with_block(there, "x", []) == around
    assert with_block(around, "x", []) == around


@pytest.mark.parametrize(
    "broken", [b"# begin x\n", b"# end x\n# begin x\n", BLOCK + BLOCK, ENDLESS + BLOCK, b"# end x\n"]
)
def test_broken_marks_are_not_guessed_at(broken: bytes) -> None:
    with pytest.raises(BrokenMarks, match="begin x"):
        with_block(broken, "x", ["one"])
