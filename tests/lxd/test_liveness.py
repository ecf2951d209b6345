"""What a newer LXD says of keys that our table does not know; the stored answer is a part of a real one's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.backends.lxd.backend import LxdBackend
from reconciler.backends.lxd.effects import TABLE
from reconciler.backends.lxd.liveness import EXTENSION, with_metadata
from reconciler.effects import effect_of
from reconciler.model import Change, Effect, Power
from reconciler.ports import Settings
from tests.support.lxd import Lab

ANSWER = json.loads(Path(__file__).with_name("answers").joinpath("metadata_configuration.json").read_text())


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("limits.cpu.nodes", Effect.LIVE),
        ("placement.group", Effect.LIVE),
        ("security.protection.start", Effect.LIVE),
        ("security.delegate_bpf", Effect.RESTART),
        ("cloud-init.ssh-keys.mine", Effect.RESTART),
        ("limits.cpu.pin_strategy", Effect.IMPOSSIBLE),
        ("boot.mode", Effect.IMPOSSIBLE),
        ("boot.debug_edk2", Effect.UNKNOWN),
        ("volatile.uuid", Effect.UNKNOWN),
        ("no.such.key", Effect.UNKNOWN),
    ],
)
def test_keys_that_we_do_not_know_are_as_lxd_says(key: str, effect: Effect) -> None:
    change = Change("add", ("config", key), None, "1")
    assert effect_of(change, "Container", Power.RUNNING, TABLE).effect is Effect.UNKNOWN
    assert effect_of(change, "Container", Power.RUNNING, with_metadata(ANSWER)).effect is effect


def test_what_we_have_tested_wins() -> None:
    """LXD calls nesting live and means that it accepts it; a wildcard of ours counts as well."""
    merged = with_metadata(ANSWER)
    for key in ("security.nesting", "security.syscalls.intercept.mount.allowed"):
        change = Change("add", ("config", key), None, "true")
        assert effect_of(change, "Container", Power.RUNNING, merged).effect is Effect.RESTART
    assert all(merged["Container"][pattern] is rule for pattern, rule in TABLE["Container"].items())
    assert merged["Volume"] is TABLE["Volume"]


def test_no_field_of_a_profile_restarts_either() -> None:
    assert not [field for field, rule in with_metadata(ANSWER)["Profile"].items() if rule.effect is Effect.RESTART]


@pytest.mark.parametrize("answer", [{}, {"configs": {}}, {"configs": {"instance": {"boot": {"keys": None}}}}])
def test_an_answer_that_says_nothing_changes_nothing(answer: dict[str, object]) -> None:
    assert with_metadata(answer) is TABLE


def test_an_lxd_without_metadata_has_our_table(lab: Lab) -> None:
    assert EXTENSION not in lab.client.get().metadata["api_extensions"]
    assert lab.backend.effects() is TABLE
    before = lab.client.requests
    assert lab.backend.effects() is TABLE and lab.client.requests == before


def test_one_that_does_not_answer_has_our_table(tmp_path: Path) -> None:
    backend = LxdBackend("lxd/gone", {"socket": str(tmp_path / "none")}, Settings("tests", tmp_path, tmp_path))
    assert backend.effects() is TABLE
    backend.close()
