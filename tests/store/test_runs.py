"""Runs: one acting per target, claimed once, fenced, and closed for good."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remediator.errors import FencedError
from remediator.model.playbook import Mode
from remediator.model.run import TRANSITIONS, Phase, Run, RunKind, RunState
from remediator.model.verdict import Verdict
from remediator.store import runs
from remediator.store.database import Database, Tx
from tests.api import rows
from tests.api.edge import NOON, Hands

REPLICAS = 4


def at_once(journals: list[Database], do: Callable[[Database], object]) -> list[object]:
    """Let every replica do it at the same moment."""
    barrier = Barrier(len(journals))

    def one(journal: Database) -> object:
        barrier.wait()
        return do(journal)

    with ThreadPoolExecutor(max_workers=len(journals)) as pool:
        return list(pool.map(one, journals))


@pytest.fixture
def replicas(db: Database, opened: Callable[[], Database]) -> list[Database]:
    return [db, *(opened() for _ in range(REPLICAS - 1))]


def test_of_replicas_that_open_a_run_on_one_target_one_gets_the_slot(
    replicas: list[Database],
) -> None:
    for target in ("a", "b", "c"):

        def open_on(journal: Database, target: str = target) -> object:
            return journal.transact(runs.open_run, rows.new_run(target))

        got = at_once(replicas, open_on)
        assert sum(run_id is not None for run_id in got) == 1


def test_each_due_run_is_claimed_by_one_replica(replicas: list[Database]) -> None:
    for number in range(20):
        replicas[0].transact(rows.opened, f"target-{number}")

    def claim(journal: Database) -> object:
        mine: list[int] = []
        while claimed := journal.transact(
            runs.claim_due, owner=str(id(journal)), lease=rows.LEASE, limit=3
        ):
            mine += [run.id for run in claimed]
        return mine

    got = [run_id for mine in at_once(replicas, claim) for run_id in mine]  # type: ignore[attr-defined]  # lists
    assert sorted(got) == list(range(1, 21))


def test_fencing_tokens_of_a_target_only_ever_grow(replicas: list[Database]) -> None:
    def draw(journal: Database) -> object:
        return [journal.transact(runs.next_token, "detector-1") for _ in range(10)]

    drawn = at_once(replicas, draw)
    for mine in drawn:
        assert mine == sorted(mine)  # type: ignore[call-overload]  # lists of numbers
    flat = sorted(token for mine in drawn for token in mine)  # type: ignore[attr-defined]  # lists
    assert len(set(flat)) == 10 * REPLICAS
    assert replicas[0].transact(runs.next_token, "detector-1") > flat[-1]


def test_a_takeover_raises_epoch_and_token(db: Database, clock: Hands) -> None:
    db.transact(rows.opened)
    first = db.transact(rows.claimed)
    clock.forward(seconds=31)
    second = db.transact(rows.claimed, "b")
    assert (second.id, second.owner) == (first.id, "b")
    assert second.epoch > first.epoch
    assert second.fencing_token > first.fencing_token


def test_a_lease_is_measured_by_the_journals_clock_alone(db: Database, clock: Hands) -> None:
    db.transact(rows.opened)
    run = db.transact(rows.claimed)
    assert run.lease_until == NOON + rows.LEASE
    clock.forward(seconds=29)
    again = db.transact(runs.claim_due, owner="b", lease=rows.LEASE, limit=9)
    assert again == []
    db.transact(runs.renew, [(run.id, run.epoch)], owner="a", lease=rows.LEASE)
    clock.forward(seconds=29)
    assert db.transact(runs.claim_due, owner="b", lease=rows.LEASE, limit=9) == []
    clock.forward(seconds=2)
    assert len(db.transact(runs.claim_due, owner="b", lease=rows.LEASE, limit=9)) == 1


def test_a_lease_that_was_lost_cannot_be_renewed(db: Database, clock: Hands) -> None:
    db.transact(rows.opened)
    run = db.transact(rows.claimed)
    clock.forward(seconds=31)
    taken = db.transact(rows.claimed, "b")
    before = db.transact(runs.get_run, run.id)
    db.transact(runs.renew, [(run.id, run.epoch)], owner="a", lease=timedelta(hours=1))
    assert db.transact(runs.get_run, run.id) == before == taken


def test_a_run_that_waits_is_claimed_when_it_is_due_and_not_before(
    db: Database, clock: Hands
) -> None:
    db.transact(rows.opened)
    run = db.transact(rows.claimed)
    db.transact(runs.park, run, due_at=clock.now + timedelta(seconds=60), reason="hold-down")
    parked = db.transact(runs.get_run, run.id)
    assert parked is not None
    assert (parked.state, parked.owner, parked.lease_until) == (RunState.WAITING, None, None)
    clock.forward(seconds=59)
    assert db.transact(runs.claim_due, owner="b", lease=rows.LEASE, limit=9) == []
    clock.forward(seconds=1)
    assert db.transact(rows.claimed, "b").state is RunState.ACTING


def test_runs_of_higher_priority_are_claimed_first(db: Database) -> None:
    for priority in (5, 90, 20):
        db.transact(rows.opened, f"t{priority}", priority=priority)
    claimed = db.transact(runs.claim_due, owner="a", lease=rows.LEASE, limit=2)
    assert [run.priority for run in claimed] == [90, 20]


def test_a_process_that_shuts_down_lets_its_runs_go_at_once(db: Database) -> None:
    db.transact(rows.opened)
    db.transact(rows.claimed, "a")
    assert db.transact(runs.let_go, owner="a") == 1
    assert db.transact(rows.claimed, "b").owner == "b"


def test_each_mode_has_a_slot_of_its_own(db: Database) -> None:
    db.transact(rows.opened, mode=Mode.AUTO)
    db.transact(rows.opened, mode=Mode.OBSERVE)
    assert db.transact(runs.open_run, rows.new_run(mode=Mode.OBSERVE)) is None


def test_a_change_that_is_taken_over_stops_the_restore_that_waits(db: Database) -> None:
    db.transact(rows.opened, kind=RunKind.RESTORE, holds_slot=False, change_id=7)
    assert db.transact(runs.open_restore, 7) is not None
    db.transact(runs.stop_restores, 7, reason="run R2 took the change over")
    assert db.transact(runs.open_restore, 7) is None


OPEN = [state for state in RunState if state.is_open]
FINAL = [state for state in RunState if not state.is_open]


def test_no_final_state_has_a_successor_and_every_state_can_be_reached() -> None:
    assert all(not TRANSITIONS[state] for state in FINAL)
    reachable = {state for following in TRANSITIONS.values() for state in following}
    assert reachable == set(RunState)


def reload(tx: Tx, run: Run) -> Run:
    fresh = runs.get_run(tx, run.id)
    assert fresh is not None
    return fresh


MOVES: dict[str, Callable[[Tx, Run], object]] = {
    "park": lambda tx, run: runs.park(tx, run, due_at=tx.now, reason="wait"),
    "advance": lambda tx, run: runs.advance(tx, run, pc=run.pc + 1, verdict=None),
    "turn back": lambda tx, run: runs.turn_back(tx, run, verdict=Verdict.WORSE, reason="worse"),
    "ask to stop": lambda tx, run: runs.ask_to_stop(tx, run.id, reason="x", insists=True),
    "take slot": runs.take_slot,
    "intent": lambda tx, run: rows.begun(tx, run, counts=False),
    "let go": lambda tx, run: runs.let_go(tx, owner=run.owner or ""),
    "claim": lambda tx, _: runs.claim_due(tx, owner="b", lease=rows.LEASE, limit=9),
    "stop restores": lambda tx, _: runs.stop_restores(tx, 7, reason="x"),
    **{
        f"close as {state}": lambda tx, run, state=state: runs.close(  # type: ignore[misc]  # bound
            tx, run, state=state, verdict=Verdict.IMPROVED, reason="done"
        )
        for state in FINAL
    },
}


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=12),
    kind=st.sampled_from(RunKind),
)
def test_only_the_table_moves_a_run_and_nothing_moves_a_closed_one(
    journal: Database, moves: list[str], kind: RunKind
) -> None:
    run_id = journal.transact(rows.opened, kind=kind, change_id=7, holds_slot=False)
    run = next(
        r
        for r in journal.transact(runs.claim_due, owner="a", lease=rows.LEASE, limit=99)
        if r.id == run_id
    )
    try:
        for move in moves:
            before = journal.transact(ours, run)
            # One that always re-reads: the hardest case, for no old memory protects the row.
            moved = move_it(journal, move, before)
            after = journal.transact(reload, run)
            if not before.state.is_open:
                assert after == before
                assert not moved or move in {"claim", "let go", "stop restores", "ask to stop"}
            assert after.state in TRANSITIONS[before.state] | {before.state}
            assert after.state.is_open == (after.closed_at is None)
            assert after.state.is_open or not after.holds_slot
            assert (after.phase is Phase.ROLLBACK) >= (after.state is RunState.ROLLING_BACK)
    finally:
        journal.transact(end, run)


def ours(tx: Tx, run: Run) -> Run:
    """Claim it again when it was parked or let go: moves are made by whoever owns it."""
    if reload(tx, run).owner is None:
        runs.claim_due(tx, owner="a", lease=rows.LEASE, limit=99)
    return reload(tx, run)


def move_it(journal: Database, move: str, run: Run) -> bool:
    try:
        journal.transact(MOVES[move], run)
    except FencedError:
        return False
    return True


def end(tx: Tx, run: Run) -> None:
    """Give the slot back for the next example."""
    fresh = ours(tx, run)
    if fresh.state.is_open:
        rolling = fresh.state is RunState.ROLLING_BACK
        state = RunState.ROLLED_BACK if rolling else RunState.CANCELLED
        runs.close(tx, fresh, state=state, verdict=None, reason="the example is over")


@pytest.fixture(scope="module")
def journal() -> object:
    """One journal for all examples: making a new one each time would be most of the work."""
    with TemporaryDirectory() as folder:
        made = Database(f"sqlite:///{Path(folder) / 'journal.db'}", clock=Hands())
        made.migrate()
        yield made
        made.close()
