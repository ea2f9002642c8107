"""The one transaction that allows an effect: what it checks, and that nothing passes it twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from remediator.errors import FencedError
from remediator.model.run import Phase, Run, RunState, StepStatus
from remediator.store import controls, runs, steps
from remediator.store.database import Database, Tx
from tests.api import rows
from tests.api.edge import Hands


@pytest.fixture
def run(db: Database) -> Run:
    db.transact(rows.opened)
    return db.transact(rows.claimed)


def held(db: Database, run: Run) -> str:
    """Say why the next forward action of `run` is held back."""
    result = db.transact(rows.begun, run)
    assert isinstance(result, steps.Barred), result
    assert db.transact(attempts, run.id) == 0
    return result.reason


def attempts(tx: Tx, run_id: int) -> int:
    return len(steps.history(tx, run_id).steps)


def test_an_intent_is_on_record_as_started_before_anybody_may_send(db: Database, run: Run) -> None:
    begun = db.transact(rows.begun, run)
    assert isinstance(begun, steps.Begun)
    (row,) = db.transact(steps.history, run.id).steps
    assert (row.status, row.epoch) == (StepStatus.STARTED, run.epoch)
    assert (row.idempotency_key, row.fencing_token) == (begun.idempotency_key, begun.fencing_token)
    assert row.fencing_token == run.fencing_token


def test_an_intent_renews_the_lease_by_the_journals_clock(
    db: Database, run: Run, clock: Hands
) -> None:
    clock.forward(seconds=20)
    db.transact(rows.begun, run)
    renewed = db.transact(runs.get_run, run.id)
    assert renewed is not None
    assert renewed.lease_until == clock.now + rows.LEASE


def test_attempts_of_one_call_share_a_key_and_another_iteration_has_its_own(
    db: Database, run: Run
) -> None:
    def key(iteration: int = 0) -> str:
        begun = db.transact(rows.begun, run, iteration=iteration)
        assert isinstance(begun, steps.Begun)
        return begun.idempotency_key

    first, again, following = key(), key(), key(1)
    assert first == again != following
    assert [row.attempt for row in db.transact(steps.history, run.id).steps] == [1, 2, 1]


def test_whoever_lost_the_run_cannot_begin_finish_or_close(
    db: Database, run: Run, clock: Hands
) -> None:
    begun = db.transact(rows.begun, run)
    assert isinstance(begun, steps.Begun)
    clock.forward(seconds=31)
    taken_over = db.transact(rows.claimed, "b")
    assert taken_over.epoch == run.epoch + 1
    with pytest.raises(FencedError):
        db.transact(rows.begun, run)
    with pytest.raises(FencedError):
        db.transact(steps.finish, run, begun.step_id, status=StepStatus.OK, result={})
    with pytest.raises(FencedError):
        db.transact(runs.close, run, state=RunState.FAILED, verdict=None, reason="")
    # What the first one sent stays unknown until its successor looks.
    (row,) = db.transact(steps.history, run.id).steps
    assert row.status is StepStatus.STARTED
    assert isinstance(db.transact(rows.begun, taken_over), steps.Begun)


def test_a_stop_holds_the_next_forward_action_back(db: Database, run: Run) -> None:
    db.transact(runs.ask_to_stop, run.id, reason="cancelled by ann")
    assert held(db, run) == "stop"


def a_pause(tx: Tx, scope: str = "all", name: str = "") -> None:
    controls.add_pause(
        tx, scope=scope, name=name, reason="x", by="ann", length=timedelta(minutes=10)
    )


def test_a_pause_holds_the_next_forward_action_back(db: Database, run: Run) -> None:
    db.transact(a_pause)
    assert held(db, run) == "paused"


def test_a_pause_of_something_else_holds_nothing_back(db: Database, run: Run) -> None:
    db.transact(a_pause, "target", "throttle-slow-detector")
    db.transact(a_pause, "playbook", "detector-1")
    assert isinstance(db.transact(rows.begun, run), steps.Begun)


def test_being_blind_holds_the_next_forward_action_back(db: Database, run: Run) -> None:
    db.transact(controls.give_sign, controls.BLIND)
    assert held(db, run) == "blind"


@pytest.mark.parametrize("why", ["stop", "paused", "blind"])
def test_what_completes_or_takes_back_something_half_done_is_never_held_back(
    db: Database, run: Run, why: str
) -> None:
    db.transact(runs.ask_to_stop, run.id, reason="cancelled by ann")
    db.transact(a_pause)
    db.transact(controls.give_sign, controls.BLIND)
    begun = db.transact(rows.begun, run, counts=False, phase=Phase.ROLLBACK, call="undo:drain")
    assert isinstance(begun, steps.Begun)


def test_the_action_budget_of_a_target_counts_actions_and_not_their_calls(
    db: Database, run: Run, clock: Hands
) -> None:
    for iteration in range(6):
        for call in ("drain", "stop", "stop"):
            begun = db.transact(rows.begun, run, iteration=iteration, call=call)
            assert isinstance(begun, steps.Begun)
            clock.forward(seconds=1)
    refused = db.transact(rows.begun, run, iteration=6)
    assert isinstance(refused, steps.Barred)
    assert refused.reason == "budget"
    # Finishing what was begun is not one more action.
    assert isinstance(db.transact(rows.begun, run, iteration=5, call="start"), steps.Begun)
    clock.forward(minutes=10)
    assert isinstance(db.transact(rows.begun, run, iteration=6), steps.Begun)


def test_the_action_budget_is_kept_per_target_and_across_runs(db: Database, run: Run) -> None:
    for iteration in range(6):
        db.transact(rows.begun, run, iteration=iteration)
    db.transact(runs.close, run, state=RunState.FAILED, verdict=None, reason="")
    db.transact(rows.opened, "detector-2")
    assert isinstance(db.transact(rows.begun, db.transact(rows.claimed)), steps.Begun)
    db.transact(rows.opened)
    assert held(db, db.transact(rows.claimed)) == "budget"


def test_a_run_without_the_slot_takes_it_or_sends_nothing(db: Database, run: Run) -> None:
    db.transact(rows.opened, holds_slot=False)
    waiting = db.transact(rows.claimed, "b")
    assert held(db, waiting) == "slot"
    db.transact(runs.close, run, state=RunState.FAILED, verdict=None, reason="")
    assert isinstance(db.transact(rows.begun, waiting), steps.Begun)
    acting = db.transact(runs.acting_run, "detector-1", waiting.mode)
    assert acting is not None
    assert acting.id == waiting.id


def test_a_closed_run_begins_nothing(db: Database, run: Run) -> None:
    db.transact(runs.close, run, state=RunState.CANCELLED, verdict=None, reason="")
    with pytest.raises(FencedError):
        db.transact(rows.begun, run)


def test_an_outcome_is_recorded_once(db: Database, run: Run) -> None:
    begun = db.transact(rows.begun, run)
    assert isinstance(begun, steps.Begun)
    db.transact(steps.finish, run, begun.step_id, status=StepStatus.OK, result={"a": 1})
    db.transact(steps.finish, run, begun.step_id, status=StepStatus.FAILED, result={})
    db.transact(
        steps.reclassify, run, begun.step_id, status=StepStatus.NOT_SENT, result={}, error=""
    )
    (row,) = db.transact(steps.history, run.id).steps
    assert (row.status, row.result) == (StepStatus.OK, {"a": 1})


def test_a_refused_intent_leaves_nothing_behind_when_the_journal_fails_beneath_it(
    db: Database, run: Run
) -> None:
    before = db.transact(runs.get_run, run.id)

    def begin_and_die(tx: Tx) -> None:
        rows.begun(tx, run)
        tx.conn.execute(text("SELECT * FROM nothing_of_the_kind"))

    with pytest.raises(Exception, match="unavailable"):
        db.transact(begin_and_die)
    assert db.transact(runs.get_run, run.id) == before
    assert db.transact(attempts, run.id) == 0


def test_a_stale_memory_of_the_slot_does_not_fool_the_index(
    db: Database, run: Run, opened: Callable[[], Database]
) -> None:
    """A run that believes it holds the slot is fenced before that matters."""
    with pytest.raises(FencedError):
        opened().transact(rows.begun, replace(run, owner="somebody else"))
