"""watch/runs: what was carried out is told before it is proved, and written down once it is."""

from __future__ import annotations

from pathlib import Path

from reconciler.model import Desired, Effect, Outcome, Plan, ResourceId, Result, Step, Verb, World
from reconciler.preparation import Wanted
from reconciler.record import History
from reconciler.watch.passes import Island, Pass
from reconciler.watch.runs import Runs

WEB = ResourceId("Container", "web")
STEP = Step(WEB, "lxd/local", Verb.UPDATE, "fields differ", effect=Effect.LIVE)


def island() -> Island:
    wanted = Wanted("lab", {WEB: Desired(WEB, "lxd/local", {})})
    about = Pass(wanted, frozenset({WEB}), False, {})
    return Island(about, Plan("lab", (STEP,)), World({}))


def written(state: Path) -> list[tuple[str, bool | None]]:
    history = History(state)
    try:
        return [(entry.environment, entry.converged) for entry in history.runs()]
    finally:
        history.close()


def test_what_was_carried_out_is_told_and_is_history_once_it_is_proved(tmp_path: Path) -> None:
    runs = Runs(tmp_path, lambda error: None)
    runs.carried_out(island(), [Outcome(STEP, Result.APPLIED, 0.1)])
    [told] = runs.unproved()
    assert told["converged"] is None and told["environment"] == "lab"
    assert [row["verb"] for row in told["outcomes"]] == ["update"]  # type: ignore[attr-defined]
    assert written(tmp_path) == []
    runs.proved(WEB)
    assert runs.unproved() == [] and written(tmp_path) == [("lab", True)]


def test_a_history_that_cannot_be_written_is_trouble_that_is_told_and_passes(tmp_path: Path) -> None:
    runs = Runs(tmp_path, lambda error: None)
    (tmp_path / "history.sqlite").mkdir()
    runs.carried_out(island(), [Outcome(STEP, Result.FAILED, 0.1)])
    assert runs.trouble
    (tmp_path / "history.sqlite").rmdir()
    runs.carried_out(island(), [Outcome(STEP, Result.FAILED, 0.1)])
    assert not runs.trouble and written(tmp_path) == [("lab", False)]
