"""What is kept, what is counted and what is forgotten: decisions, messages, signs, retention."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from remediator.model.alert import Alert
from remediator.model.decision import Admitted, Denied, Reason
from remediator.model.effect import Message
from remediator.model.run import Run, RunState
from remediator.store import alerts as alert_rows
from remediator.store import changes, controls, decisions, outbox, queries, retention, runs
from remediator.store.database import Database, Tx
from remediator.store.tables import alerts, deliveries, metadata, notifications, playbooks
from tests.api import rows
from tests.api.edge import NOON, Hands

MONTH = timedelta(days=30)
NO_QUIET = timedelta(0)


def an_alert(tx: Tx, fingerprint: str = "f00d", *, firing: bool = True) -> int:
    alert = Alert(fingerprint=fingerprint, firing=firing, labels={"alertname": "DetectorSlow"})
    alert_rows.record_delivery(
        tx,
        body=b"{}",
        receiver="remediator",
        group_key="g",
        truncated=0,
        incoming=[alert],
        quiet_window=NO_QUIET,
    )
    return int(tx.conn.execute(select(func.max(alerts.c.id))).scalar_one())


def sizes(tx: Tx) -> dict[str, int]:
    """Return how many rows each table has, without the empty ones."""
    counted = {
        table.name: tx.conn.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
    }
    return {name: number for name, number in counted.items() if number}


# -- decisions ---------------------------------------------------------------------------------


def deny(tx: Tx, alert_id: int, reason: Reason, detail: str = "") -> None:
    decisions.record(
        tx, alert_id=alert_id, playbook="p", target="t", decision=Denied(reason, detail)
    )


def decided(tx: Tx) -> list[tuple[str, int, str]]:
    found = queries.list_decisions(
        tx, alert_id=None, run_id=None, reason=None, before=None, limit=100
    )
    return [(row["reason"], row["count"], row["detail"]) for row in reversed(found)]


def test_the_same_denial_again_is_counted_and_another_one_is_a_new_row(
    db: Database, clock: Hands
) -> None:
    alert_id = db.transact(an_alert)
    for reason in (Reason.BUSY, Reason.BUSY, Reason.BUSY, Reason.COOLDOWN, Reason.BUSY):
        clock.forward(seconds=15)
        db.transact(deny, alert_id, reason, f"at {clock.now:%H:%M:%S}")
    assert db.transact(decided) == [
        ("busy", 3, "at 12:00:45"),
        ("cooldown", 1, "at 12:01:00"),
        ("busy", 1, "at 12:01:15"),
    ]


def test_denials_of_two_playbooks_are_counted_apart(db: Database) -> None:
    alert_id = db.transact(an_alert)
    for playbook in ("a", "b", "a", "b"):
        denied = Denied(Reason.BUSY, playbook)
        db.transact(
            decisions.record, alert_id=alert_id, playbook=playbook, target="t", decision=denied
        )
    assert db.transact(decided) == [("busy", 2, "a"), ("busy", 2, "b")]


def test_every_admission_has_a_row_of_its_own(db: Database) -> None:
    alert_id = db.transact(an_alert)
    for target in ("a", "b"):
        run_id = db.transact(rows.opened, target)
        admitted = Admitted(run_id=run_id)
        db.transact(
            decisions.record, alert_id=alert_id, playbook="p", target=target, decision=admitted
        )
    assert db.transact(decided) == [("admitted", 1, ""), ("admitted", 1, "")]


def test_a_decision_that_is_only_for_the_record_yields_to_a_real_one(db: Database) -> None:
    alert_id = db.transact(an_alert)
    over = Denied(Reason.RESOLVED, "over")
    db.transact(decisions.record_if_first, alert_id=alert_id, decision=over)
    db.transact(decisions.record_if_first, alert_id=alert_id, decision=over)
    assert db.transact(decided) == [("resolved", 1, "over")]


# -- messages ----------------------------------------------------------------------------------


def a_message(key: str = "run/1") -> Message:
    return Message(key=key, severity="warning", title="t", body="b")


def test_one_event_is_one_message_however_often_it_is_queued(db: Database) -> None:
    assert db.transact(outbox.queue, a_message())
    assert not db.transact(outbox.queue, a_message())
    assert len(db.transact(outbox.take_due, limit=9)) == 1
    db.transact(outbox.told, "run/1")
    assert not db.transact(outbox.queue, a_message())
    assert db.transact(outbox.take_due, limit=9) == []


def test_replicas_that_queue_the_same_event_at_once_make_one_message(
    db: Database, opened: Callable[[], Database]
) -> None:
    journals = [db, opened(), opened()]
    with ThreadPoolExecutor(max_workers=3) as pool:
        queued = list(pool.map(lambda one: one.transact(outbox.queue, a_message()), journals))
    assert sorted(queued) == [False, False, True]


def test_a_message_is_taken_by_one_replica_and_tried_again_later_and_later(
    db: Database, clock: Hands
) -> None:
    db.transact(outbox.queue, a_message())
    waits = []
    for _ in range(12):
        assert len(db.transact(outbox.take_due, limit=9)) == 1
        assert db.transact(outbox.take_due, limit=9) == []
        db.transact(outbox.not_told, "run/1", error="no route")
        start = clock.now
        while not db.transact(_due):
            clock.forward(seconds=5)
        waits.append((clock.now - start).total_seconds())
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == 900


def _due(tx: Tx) -> bool:
    due = notifications.c.due_at <= tx.now
    return tx.conn.execute(select(notifications.c.key).where(due)).first() is not None


# -- signs of life -----------------------------------------------------------------------------

WITHIN = timedelta(minutes=5)


def blind(tx: Tx) -> bool:
    return controls.last_sign(tx, controls.BLIND) is not None


def check(
    db: Database, *, since: datetime = NOON, within: timedelta | None = WITHIN
) -> tuple[bool, bool]:
    """Return whether it just changed, and whether we are blind now."""
    changed = db.transact(controls.check_watchdog, within=within, since=since)
    return changed, db.transact(blind)


def test_silence_of_the_watchdog_makes_blind_once_and_its_return_heals_once(
    db: Database, clock: Hands
) -> None:
    db.transact(controls.give_sign, controls.WATCHDOG)
    clock.forward(minutes=5)
    assert check(db) == (False, False)
    clock.forward(seconds=1)
    assert check(db) == (True, True)
    assert check(db) == (False, True)
    db.transact(controls.give_sign, controls.WATCHDOG)
    assert check(db) == (True, False)
    assert check(db) == (False, False)


def test_a_controller_that_never_heard_it_is_patient_first(db: Database, clock: Hands) -> None:
    assert check(db) == (False, False)
    clock.forward(minutes=4)
    assert check(db) == (False, False)
    clock.forward(minutes=2)
    assert check(db) == (True, True)


def test_what_was_missed_while_nobody_listened_is_not_silence(db: Database, clock: Hands) -> None:
    db.transact(controls.give_sign, controls.WATCHDOG)
    clock.forward(hours=1)
    started = clock.now
    assert check(db, since=started) == (False, False)
    clock.forward(minutes=6)
    assert check(db, since=started) == (True, True)


def test_who_does_not_watch_is_never_blind(db: Database, clock: Hands) -> None:
    db.transact(controls.give_sign, controls.BLIND)
    clock.forward(hours=1)
    assert check(db, within=None) == (False, False)


def test_an_older_sign_never_hides_a_newer_one(db: Database, clock: Hands) -> None:
    db.transact(controls.give_sign, controls.WATCHDOG)
    newest = clock.now
    db.transact(controls.give_sign, controls.WATCHDOG, at=newest - timedelta(hours=1))
    assert db.transact(controls.last_sign, controls.WATCHDOG) == newest


def test_a_clock_that_runs_ahead_cannot_keep_us_from_noticing_silence(
    db: Database, clock: Hands
) -> None:
    db.transact(controls.give_sign, controls.WATCHDOG, at=clock.now + timedelta(days=1))
    clock.forward(minutes=6)
    assert check(db) == (True, True)


# -- alerts ------------------------------------------------------------------------------------


def test_an_alert_that_is_listed_no_more_is_over_only_after_a_while(
    db: Database, clock: Hands
) -> None:
    for name in ("listed", "gone"):
        db.transact(an_alert, name)
    clock.forward(minutes=3)
    recent = db.transact(an_alert, "recent")
    since = clock.now - timedelta(minutes=2)
    gone = db.transact(alert_rows.resolve_absent, ["listed"], not_seen_since=since)
    assert gone == [2]
    assert db.transact(_firing) == {"listed", "recent"}
    assert recent == 3


def _firing(tx: Tx) -> set[str]:
    return set(tx.conn.execute(select(alerts.c.fingerprint).where(alerts.c.firing)).scalars())


# -- retention ---------------------------------------------------------------------------------


def forget(db: Database, **changed: Any) -> int:
    return db.transact(retention.forget, older_than=MONTH, **changed)


def test_what_is_open_is_never_forgotten(db: Database, clock: Hands) -> None:
    alert_id = db.transact(an_alert)
    db.transact(deny, alert_id, Reason.NO_PLAYBOOK)
    db.transact(rows.opened, alert_id=alert_id)
    run = db.transact(rows.claimed)
    db.transact(rows.begun, run)
    db.transact(outbox.queue, a_message())
    db.transact(hold, run)
    before = db.transact(sizes)
    clock.forward(days=365)
    # The delivery's text goes; what came of it stays.
    assert forget(db) == 1
    assert db.transact(sizes) == {k: v for k, v in before.items() if k != "deliveries"}
    assert db.transact(decided) == [("no_playbook", 1, "")]


def hold(tx: Tx, run: Run) -> int:
    new = changes.NewChange(
        knob="max_concurrency",
        base=10,
        value=6,
        actuator="detector",
        lease=timedelta(minutes=15),
        restore={},
    )
    return changes.hold(tx, run, new)


def close(tx: Tx, run: Run) -> None:
    runs.close(tx, run, state=RunState.SUCCEEDED, verdict=None, reason="")


def test_the_run_that_a_held_change_is_given_back_from_stays_until_it_is_given_back(
    db: Database, clock: Hands
) -> None:
    db.transact(rows.opened)
    run = db.transact(rows.claimed)
    change_id = db.transact(hold, run)
    db.transact(close, run)
    clock.forward(days=31)
    forget(db)
    assert db.transact(runs.get_run, run.id) is not None
    db.transact(changes.close_change, change_id, "restored", reason="")
    clock.forward(days=31)
    forget(db)
    assert db.transact(runs.get_run, run.id) is None
    assert db.transact(changes.get_change, change_id) is None


def test_everything_that_ended_long_ago_is_forgotten(db: Database, clock: Hands) -> None:
    db.transact(an_alert)
    run_id = db.transact(rows.a_story)
    db.transact(outbox.told, f"run/{run_id}")
    db.transact(lambda tx: tx.conn.execute(update(alerts).values(firing=False)) and None)
    held = db.transact(changes.open_changes)
    db.transact(changes.close_change, held[0].id, "restored", reason="")
    soon = timedelta(minutes=1)
    db.transact(controls.add_pause, scope="all", name="", reason="x", by="ann", length=soon)
    clock.forward(days=29)
    assert forget(db) == 0
    clock.forward(days=2)
    while forget(db):
        pass
    # A fencing token must never start anew; its table grows with the inventory alone.
    assert db.transact(sizes) == {"fences": 1}


def test_a_playbook_text_stays_as_long_as_a_run_pins_it(db: Database, clock: Hands) -> None:
    db.transact(runs.keep_playbook, sha256=rows.SHA, name="pinned", text="a")
    db.transact(runs.keep_playbook, sha256="cd" * 32, name="unused", text="b")
    db.transact(rows.opened)
    clock.forward(days=31)
    forget(db)
    assert db.transact(lambda tx: tx.conn.execute(select(playbooks.c.name)).scalars().all()) == [
        "pinned"
    ]


def test_forgetting_goes_in_bites_until_nothing_is_left(db: Database, clock: Hands) -> None:
    values = [
        {"received_at": clock.now, "sha256": "", "body": b"", "alert_count": 0, "truncated": 0}
    ] * 25
    db.transact(lambda tx: tx.conn.execute(insert(deliveries), values) and None)
    clock.forward(days=31)
    assert [forget(db, limit=10) for _ in range(4)] == [10, 10, 5, 0]


REFERENCES = ["alerts WHERE delivery_id", "runs WHERE alert_id", "decisions WHERE run_id"]


@pytest.mark.parametrize("referring", REFERENCES)
def test_forgetting_a_row_does_not_search_a_whole_table_for_references_to_it(
    db: Database, referring: str
) -> None:
    """It once did: 5000 deliveries beside 25000 alerts kept every writer out for 22 s."""
    assert "SCAN" not in db.transact(_plan, f"SELECT 1 FROM {referring} = 1")


def test_looking_for_alerts_to_review_reads_only_those(db: Database) -> None:
    plan = db.transact(_plan, "SELECT * FROM alerts WHERE review_at <= 1 ORDER BY review_at, id")
    assert "SCAN" not in plan


def _plan(tx: Tx, statement: str) -> str:
    return " ".join(str(row) for row in tx.conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}"))
