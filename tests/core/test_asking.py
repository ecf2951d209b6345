"""cli/carry: what a person is asked about, and what environment.yaml or updatePolicy lets happen unattended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from reconciler.cli.carry import agreed
from reconciler.model import Change, Desired, Effect, Plan, ResourceId, Step, Verb

WEB = ResourceId("Container", "web")
GONE = Change("remove", ("disks", "d"), {}, None, Effect.LIVE, destroys=True)


def plan(verb: Verb, effect: Effect, *changes: Change) -> Plan:
    return Plan("test", (Step(WEB, "lxd/local", verb, "why", effect, changes),))


def allowed(asked: Plan, yes: bool = False, policy: str | None = None, approve: Iterable[str] = ()) -> bool:
    spec: dict[str, Any] = {"updatePolicy": policy} if policy else {}
    return agreed(asked, yes, dict.fromkeys(approve, True), {WEB: Desired(WEB, "lxd/local", spec)})


LIVE = plan(Verb.UPDATE, Effect.LIVE)
RESTART = plan(Verb.RESTART, Effect.RESTART)
REPLACE = plan(Verb.REPLACE, Effect.REPLACE)
DELETE = plan(Verb.DELETE, Effect.STOP)
LOSES = plan(Verb.UPDATE, Effect.LIVE, GONE)
LOSES_AND_RESTARTS = plan(Verb.RESTART, Effect.RESTART, GONE)


@pytest.mark.parametrize("asked", [RESTART, REPLACE, DELETE, LOSES])
def test_where_nobody_can_be_asked_harm_is_refused(asked: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert not allowed(asked)
    assert "Container/web" in capsys.readouterr().err
    assert allowed(asked, yes=True)


def test_what_is_live_is_not_asked_about() -> None:
    assert allowed(LIVE)


@pytest.mark.parametrize(
    ("asked", "enough", "too_little"),
    [
        (RESTART, {"restart"}, {"replace", "delete"}),
        (REPLACE, {"replace"}, {"restart", "delete"}),
        (DELETE, {"delete"}, {"restart", "replace"}),
        (LOSES, {"delete"}, {"restart", "replace"}),
        (LOSES_AND_RESTARTS, {"delete", "restart"}, {"restart"}),
        (LOSES_AND_RESTARTS, {"delete", "restart"}, {"delete"}),
    ],
)
def test_environment_yaml_gives_leave_for_just_that(asked: Plan, enough: set[str], too_little: set[str]) -> None:
    assert allowed(asked, approve=enough)
    assert not allowed(asked, approve=too_little)


@pytest.mark.parametrize(
    ("asked", "policy", "expected"),
    [
        (RESTART, "restart", True),
        (RESTART, "replace", True),
        (RESTART, "live", False),
        (REPLACE, "restart", False),
        (REPLACE, "replace", True),
        (DELETE, "replace", False),
        (LOSES, "replace", False),
    ],
)
def test_the_resource_itself_says_what_may_happen_unattended(asked: Plan, policy: str, expected: bool) -> None:
    assert allowed(asked, policy=policy) is expected
