"""VIEW: plans, outcomes and problems read well, and nothing in them drives a terminal or gives a secret away."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from reconciler.model import (
    Change,
    Condition,
    Desired,
    Effect,
    Observed,
    Outcome,
    Plan,
    Power,
    ResourceId,
    Result,
    Run,
    Step,
    Verb,
)
from reconciler.problems import Mark, Problem
from reconciler.view.documents import plan_document, resource_document, run_document
from reconciler.view.fields import duration, shown
from reconciler.view.outcomes import run_lines
from reconciler.view.plans import diff_lines, plan_lines
from reconciler.view.problems import problem_lines
from reconciler.view.progress import LiveProgress, PlainProgress
from reconciler.view.resources import description, resource_table
from reconciler.view.text import clean, has_colour, line, render
from reconciler.view.yaml import to_yaml

WEB = ResourceId("Container", "web")
EVIL = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\r\n"


def step(verb: Verb, effect: Effect = Effect.NONE, *changes: Change, id: ResourceId = WEB, reason: str = "why") -> Step:
    return Step(id, "lxd/local", verb, reason, effect, changes)


def text_of(plan: Plan, verbose: bool = False, **desired: Desired) -> str:
    return render(plan_lines(plan, {want.id: want for want in desired.values()}, verbose), colour=False)


def test_a_changed_field_shows_old_new_effect_and_why() -> None:
    memory = Change("change", ("memory", "size"), 256 << 20, 512 << 20, Effect.LIVE, "a limit of the cgroup")
    privileged = Change("add", ("privileged",), None, True, Effect.RESTART, "acts at its next start")
    told = text_of(Plan("default", (step(Verb.RESTART, Effect.RESTART, memory, privileged, reason="fields differ"),)))
    assert "  ↻ Container/web  restarts  fields differ\n" in told
    assert "      memory.size  256MiB → 512MiB  live     a limit of the cgroup\n" in told
    assert "      privileged   + true           restart  acts at its next start\n" in told
    assert told.endswith("Plan: 1 to restart.\n")


def test_what_is_unchanged_is_only_counted() -> None:
    other = step(Verb.NOOP, id=ResourceId("Container", "quiet"))
    plan = Plan("default", (step(Verb.CREATE, Effect.LIVE), other))
    assert "quiet" not in text_of(plan)
    assert "Plan: 1 to create, 1 unchanged." in text_of(plan)
    assert "quiet" in text_of(plan, verbose=True)


def test_nothing_to_do_says_so() -> None:
    plan = Plan("default", (step(Verb.NOOP),))
    assert text_of(plan) == "Nothing to do: 1 resource as declared.\n"
    gone = render(run_lines(Run("1", "delete", plan, [], True)), colour=False)
    assert gone == "Nothing to do: 1 resource not there any more.\n"


def test_where_an_account_follows_nothing_to_do_is_said_once() -> None:
    quiet, busy = Plan("default", (step(Verb.NOOP),)), Plan("default", (step(Verb.CREATE),))
    assert list(plan_lines(quiet, {}, followed=True)) == []
    assert render(plan_lines(busy, {}, followed=True), colour=False).endswith("Plan: 1 to create.\n")


def test_a_creation_shows_what_is_made_now_and_once_what_waits() -> None:
    port = {"listen": "127.0.0.1:8080"}
    whole = Desired(WEB, "lxd/local", {"cpus": {"count": 2}, "forwards": {"http": port}})
    now = replace(whole, spec={"cpus": {"count": 2}})
    taken = Change("add", ("forwards", "http"), None, port, Effect.IMPOSSIBLE, "it is taken")
    plan = Plan("default", (replace(step(Verb.CREATE), waiting=(taken,)),), adjusted={WEB: now})
    told = text_of(plan, web=whole)
    assert "cpus.count" in told and told.count("forwards.http") == 1


def test_what_nobody_knows_is_not_shown_as_null() -> None:
    asked = Change("change", ("reset",), None, "asked for", Effect.REPLACE, "what is in it goes")
    assert '      reset  "asked for"  replace  what is in it goes\n' in text_of(
        Plan("default", (step(Verb.REPLACE, Effect.REPLACE, asked),))
    )


def test_a_creation_shows_what_is_made_but_not_its_secrets() -> None:
    spec = {"memory": {"size": 1 << 30}, "cloudInit": {"userData": "password: hunter2"}, "imagePolicy": "create"}
    told = text_of(Plan("default", (step(Verb.CREATE),)), web=Desired(WEB, "lxd/local", spec))
    assert "memory.size         1GiB" in told
    assert "hunter2" not in told
    assert "sha256:" in told
    assert "imagePolicy" not in told


@pytest.mark.parametrize(
    "path",
    [
        ("cloudInit", "userData"),
        ("config", "cloud-init.user-data"),
        ("config", "environment.DATABASE"),
        ("config", "user.user-data"),
        ("lxd", "trustToken"),
        ("dbPassword",),
    ],
)
def test_a_secret_is_never_shown_in_any_form(path: tuple[str, ...]) -> None:
    secret = "hunter2-is-my-secret"
    plan = Plan("default", (step(Verb.UPDATE, Effect.LIVE, Change("change", path, secret, f"{secret}-new")),))
    run = Run("1", "apply", plan, [Outcome(plan.steps[0], Result.APPLIED)], True)
    whole: dict[str, object] = {path[-1]: secret}
    for key in reversed(path[:-1]):
        whole = {key: whole}
    seen = Observed(WEB, "lxd/local", whole, Power.RUNNING, True)
    everything = [
        text_of(plan, verbose=True),
        render(diff_lines(plan), False),
        json.dumps([plan_document(plan), run_document(run), resource_document(seen)]),
        render(description(seen, (), ()), False),
    ]
    assert all("hunter2" not in text for text in everything)
    assert "sha256:" in everything[0]


def test_nothing_from_a_manifest_or_guest_drives_the_terminal() -> None:
    id = ResourceId("Container", EVIL)
    change = Change("change", ("config", EVIL), EVIL, [EVIL], Effect.LIVE, EVIL)
    plan = Plan(EVIL, (step(Verb.UPDATE, Effect.LIVE, change, id=id, reason=EVIL),), (EVIL,), Problem(EVIL, hint=EVIL))
    outcome = Outcome(plan.steps[0], Result.FAILED, 1.0, Problem(EVIL, Mark(EVIL, 1, 2), EVIL, EVIL, EVIL))
    run = Run("1", "apply", plan, [outcome])
    seen = Observed(id, EVIL, {EVIL: EVIL}, Power.RUNNING, True, environment=EVIL, pending=EVIL)
    conditions = (Condition(EVIL, False, EVIL, EVIL),)
    shown_lines = [
        *plan_lines(plan, {}),
        *diff_lines(plan),
        *run_lines(run),
        *resource_table([seen], {(EVIL, id): conditions}, wide=True),
        *description(seen, conditions, [EVIL]),
        *problem_lines([Problem(EVIL, Mark(EVIL, 1, 1), EVIL, EVIL, EVIL)]),
    ]
    for one in shown_lines:
        assert render([one], colour=False).rstrip("\n").isprintable()
    stream = io.StringIO()
    with PlainProgress(plan, stream) as progress:
        progress.event(id, "started", "")
        progress.event(id, "progress", EVIL)
        progress.event(id, "failed", EVIL)
    assert stream.getvalue().replace("\n", "").isprintable()
    assert to_yaml({EVIL: EVIL}).replace("\n", "").isprintable()


def test_the_live_view_on_a_terminal_keeps_what_ended_and_writes_escapes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # rich asks it whether the cursor can be moved
    slow = ResourceId("Container", "slow")
    plan = Plan("default", (step(Verb.CREATE, Effect.LIVE), step(Verb.CREATE, Effect.LIVE, id=slow)))
    stream = io.StringIO()
    with LiveProgress(plan, stream, colour=True) as progress:
        progress.event(WEB, "started", "create")
        progress.event(WEB, "applied", "")
        progress.event(slow, "started", "create")
        progress.event(slow, "progress", "unpacking \x1b]0;owned\x07")
    assert "Container/web" in stream.getvalue()
    assert "created" in stream.getvalue()
    assert "unpacking" in stream.getvalue()
    assert "\x1b]0;" not in stream.getvalue()


def test_a_problem_has_its_place_its_subject_and_a_way_out() -> None:
    problem = Problem(
        'memory: expected a size such as "2GiB", got "two gigs"',
        Mark("web.yaml", 12, 5),
        "Container/web",
        "last words\nof the guest",
        "write 2GiB",
    )
    assert render(problem_lines([problem]), colour=False) == (
        'web.yaml:12:5: Container/web: memory: expected a size such as "2GiB", got "two gigs"\n'
        "  | last words\n"
        "  | of the guest\n"
        "  hint: write 2GiB\n"
    )


def test_a_failure_is_accounted_for_with_the_guests_last_words() -> None:
    made, failed = step(Verb.CREATE, id=ResourceId("Image", "b")), step(Verb.CREATE)
    plan = Plan("default", (failed, made))
    outcomes = [
        Outcome(failed, Result.FAILED, 2.0, Problem("its init ended", detail="panic!")),
        Outcome(made, Result.APPLIED, 0.4),
    ]
    told = render(run_lines(Run("1", "apply", plan, outcomes)), colour=False)
    assert "Container/web: create failed after 2.0s\n" in told
    assert "| panic!" in told
    assert told.endswith("Not converged: 1 failed, 1 created.\n")


def test_what_was_not_even_tried_is_told_in_one_line_with_the_way_out() -> None:
    held, blocked = step(Verb.HOLD, reason="not ours"), step(Verb.CREATE, id=ResourceId("Container", "b"))
    outcomes = [
        Outcome(held, Result.HELD, problem=Problem("not ours", subject="Container/web", hint="--adopt")),
        Outcome(blocked, Result.BLOCKED, problem=Problem("Image/a did not end well", subject="Container/b")),
    ]
    told = render(run_lines(Run("1", "apply", Plan("default", (held, blocked)), outcomes)), colour=False)
    assert told == (
        "Container/web: held: not ours\n    hint: --adopt\n"
        "Container/b: blocked: Image/a did not end well\nNot converged: 1 held, 1 blocked.\n"
    )


def test_plan_and_apply_json_have_the_promised_form() -> None:
    change = Change("change", ("memory", "size"), 1, 2, Effect.LIVE, "note")
    plan = Plan("demo", (step(Verb.UPDATE, Effect.LIVE, change), step(Verb.NOOP, id=ResourceId("Image", "b"))))
    document = plan_document(plan)
    assert {key: document[key] for key in ("environment", "applyable", "complete", "summary")} == {
        "environment": "demo",
        "applyable": True,
        "complete": True,
        "summary": {"update": 1, "noop": 1},
    }
    first = document["steps"][0]
    assert set(first) >= {"id", "verb", "effect", "reason", "changes", "after"}
    assert {"op": "change", "path": ["memory", "size"], "old": 1, "new": 2}.items() <= first["changes"][0].items()
    run = run_document(Run("1", "apply", plan, [Outcome(plan.steps[0], Result.FAILED, 0.5, Problem("no"))]))
    assert run == {
        "environment": "demo",
        "converged": False,
        "outcomes": [
            {"id": "Container/web", "verb": "update", "result": "failed", "elapsed": 0.5, "problem": {"summary": "no"}}
        ],
    }


def test_a_resource_is_ready_only_when_every_condition_is() -> None:
    seen = Observed(WEB, "lxd/far", {}, Power.RUNNING, True)
    yes, no, unknown = (Condition("Tcp", status, "r") for status in (True, False, None))
    assert resource_document(seen)["ready"] is None
    assert resource_document(seen, (yes, yes))["ready"] is True
    assert resource_document(seen, (yes, unknown))["ready"] is None
    assert resource_document(seen, (unknown, no))["ready"] is False
    foreign = Condition("ShareOwners", False, "NotMapped", "share-site: files belong to nobody")
    assert resource_document(seen, (yes, foreign))["ready"] is True
    assert resource_document(seen)["host"] == "far"


def test_that_something_waits_for_a_restart_is_shown_and_makes_nothing_ready() -> None:
    seen = Observed(WEB, "lxd/local", {}, Power.RUNNING, True)
    waits, no = Condition("RestartPending", True, "Waiting", "cpus.max"), Condition("Tcp", False, "r")
    assert resource_document(seen, (waits,))["ready"] is None
    assert resource_document(seen, (waits, no))["ready"] is False
    told = render(resource_table([seen], {("lxd/local", WEB): (waits,)}, wide=True), colour=False)
    assert "waits for a restart: cpus.max" in told


def test_what_a_watch_knows_is_shown_and_makes_nothing_unready() -> None:
    seen = Observed(WEB, "lxd/local", {}, Power.RUNNING, True)
    ready = Condition("Ready", True, "Running", since=0.0)
    synced, held = (Condition(type, type == "Held", "NotApproved", "no", 60.0) for type in ("Synced", "Held"))
    document = resource_document(seen, (ready, synced, held), "1970-01-01T00:01:00Z")
    assert document["ready"] is True and document["lookedAt"] == "1970-01-01T00:01:00Z"
    assert document["conditions"][0]["since"] == "1970-01-01T00:00:00Z"
    told = render(resource_table([seen], {("lxd/local", WEB): (ready, synced, held)}, wide=True), colour=False)
    assert "SYNCED" in told and told.count("NotApproved") == 1 and "held since 1970-01-01" in told
    unwatched = render(resource_table([seen], {("lxd/local", WEB): (replace(ready, since=None),)}, wide=False), False)
    assert "SYNCED" not in unwatched


@pytest.mark.parametrize(("seconds", "words"), [(0.31, "0.3s"), (12.4, "12s"), (125, "2m05s"), (3725, "1h02m")])
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("memory", "size"), 2 << 30, "2GiB"),
        (("cpus", "count"), 2, "2"),
        (("config", "a"), "", '""'),
        (("config", "a"), "two words", '"two words"'),
        (("profiles",), ["a", "b"], '["a", "b"]'),
        (("protect",), True, "true"),
        (("x",), None, "null"),
    ],
)
def test_values_read_well(path: tuple[str, ...], value: object, words: str) -> None:
    assert shown(path, value) == words


def test_a_very_long_value_is_cut() -> None:
    assert len(shown(("config", "a"), "x" * 5000)) == 100


def test_clean_leaves_readable_text_alone() -> None:
    assert clean("Grüße → 世界") == "Grüße → 世界"
    assert clean("a\tb\x00\u202e\U000e0001") == "a\\tb\\x00\\u202e\\U000e0001"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "environment", "colour"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colour_only_where_it_belongs(terminal: bool, environment: dict[str, str], colour: bool) -> None:
    assert has_colour(_Terminal() if terminal else io.StringIO(), environment) is colour


def test_colour_changes_no_word() -> None:
    one = line(("Container/web", "bold"), " is ", ("bad", "bad"))
    assert render([one], colour=True) == "\x1b[1mContainer/web\x1b[0m is \x1b[31mbad\x1b[0m\n"
    assert render([one], colour=False) == "Container/web is bad\n"


def test_yaml_output_is_read_back_as_the_same() -> None:
    import yaml

    document = [{"id": "Container/web", "spec": {"config": {"limits.cpu": "2", "no": "yes"}, "list": [{"a": 1}, []]}}]
    assert yaml.safe_load(to_yaml(document)) == document
    assert yaml.safe_load(to_yaml([])) == []


WAITS = Change("add", ("tpm",), None, True, Effect.RESTART, "waits for a restart (updatePolicy: live)")


def test_what_waits_is_shown_with_what_it_waits_for() -> None:
    memory = Change("change", ("memory", "size"), 256 << 20, 512 << 20, Effect.LIVE, "")
    plan = Plan("default", (replace(step(Verb.UPDATE, Effect.LIVE, memory), waiting=(WAITS,)),))
    told = text_of(plan)
    assert "      tpm          + true           waits  waits for a restart (updatePolicy: live)\n" in told
    assert told.endswith("Plan: 1 to update; something waits in 1.\n")
    document = plan_document(plan)["steps"][0]
    assert [one["path"] for one in document["waiting"]] == [["tpm"]] and len(document["changes"]) == 1
    assert "@@ waits for a restart (updatePolicy: live) @@\n+tpm: true\n" in render(diff_lines(plan), colour=False)


def test_what_waits_is_shown_when_nothing_else_is_to_be_done() -> None:
    plan = Plan("default", (replace(step(Verb.NOOP), waiting=(WAITS,)), step(Verb.NOOP, id=ResourceId("Image", "b"))))
    told = text_of(plan)
    assert "Container/web" in told and "Image/b" not in told
    assert told.endswith("Nothing to do: 2 resources as declared, but for what waits in 1.\n")
    assert "--- Container/web (observed)" in render(diff_lines(plan), colour=False)


def test_the_account_says_what_was_left_for_later() -> None:
    done = replace(step(Verb.UPDATE, Effect.LIVE), waiting=(WAITS,))
    run = Run("1", "apply", Plan("default", (done,)), [Outcome(done, Result.APPLIED)], True)
    assert render(run_lines(run), colour=False) == (
        "Container/web: tpm waits for a restart (updatePolicy: live)\nConverged: 1 updated.\n"
    )


def test_data_that_goes_is_told_to_programs_as_well() -> None:
    gone = Change("remove", ("disks", "d"), {"size": 1}, None, Effect.LIVE, "its data is deleted", destroys=True)
    plan = Plan("default", (step(Verb.UPDATE, Effect.LIVE, gone),))
    assert plan_document(plan)["steps"][0]["changes"][0]["destroys"] is True
    assert "its data is deleted" in text_of(plan)
