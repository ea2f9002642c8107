"""Rows that a story is made of, written as the engine would write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from remediator.model.decision import Admitted, Denied, Reason
from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.model.run import Phase, Run, RunKind, RunState, StepStatus
from remediator.model.verdict import Reading, ReadingStatus, Verdict
from remediator.store import changes, decisions, outbox, runs, steps
from remediator.store.database import Tx
from remediator.store.tables import alerts

SHA = "ab" * 32
LEASE = timedelta(seconds=30)
BUDGET = steps.ActionBudget(actions=6, per=timedelta(minutes=10))


def new_run(target: str = "detector-1", **changed: Any) -> runs.NewRun:
    """Return what a remedy on `target` starts with."""
    values: dict[str, Any] = {
        "kind": RunKind.REMEDY,
        "playbook": "throttle-slow-detector",
        "playbook_sha": SHA,
        "plan": {},
        "mode": Mode.AUTO,
        "priority": 20,
        "target": target,
        "alert_id": None,
        "holds_slot": True,
    }
    return runs.NewRun(**{**values, **changed})


def opened(tx: Tx, /, target: str = "detector-1", **changed: Any) -> int:
    """Open a run and return its id."""
    run_id = runs.open_run(tx, new_run(target, **changed))
    assert run_id is not None
    return run_id


def claimed(tx: Tx, /, owner: str = "a", lease: timedelta = LEASE) -> Run:
    """Claim the one run that is due."""
    (run,) = runs.claim_due(tx, owner=owner, lease=lease, limit=1)
    return run


def an_intent(**changed: Any) -> steps.Intent:
    """Return a forward action: set the ceiling to six."""
    values: dict[str, Any] = {
        "pc": 0,
        "phase": Phase.FORWARD,
        "iteration": 0,
        "call": "set",
        "action": "throttle",
        "actuator": "detector",
        "verb": "set",
        "args": {"values": {"max_concurrency": 6}},
        "before": {},
        "undo": None,
        "why": "p95 is 0.41 s",
        "counts": True,
    }
    return steps.Intent(**{**values, **changed})


def begun(tx: Tx, /, run: Run, **changed: Any) -> steps.Begun | steps.Barred:
    """Put an intent of `run` on record, or say why not."""
    return steps.begin(tx, run, an_intent(**changed), lease=LEASE, budget=BUDGET)


def a_story(tx: Tx, /) -> int:
    """Write one whole story about the newest alert; return the run's id."""
    alert_id = tx.conn.execute(select(alerts.c.id).order_by(alerts.c.id.desc())).scalar()
    assert alert_id is not None
    denied = Denied(Reason.COOLDOWN, "it ran 2 minutes ago", {"cooldown_s": 300})
    for _ in range(3):
        decisions.record(
            tx,
            alert_id=alert_id,
            playbook="restart-dead-detector",
            target="detector-1",
            decision=denied,
        )
    runs.keep_playbook(tx, sha256=SHA, name="throttle-slow-detector", text="name: throttle\n")
    run_id = opened(tx, alert_id=alert_id)
    told = {"readings": [{"query": "up", "value": 0.41, "said": "0.41"}]}
    decisions.record(
        tx,
        alert_id=alert_id,
        playbook="throttle-slow-detector",
        target="detector-1",
        decision=Admitted(run_id=run_id, evidence=told),
    )
    run = claimed(tx)
    intent = begun(tx, run)
    assert isinstance(intent, steps.Begun)
    steps.finish(tx, run, intent.step_id, status=StepStatus.OK, result={"generation": 3})
    empty = Reading(query="p95", at=tx.now, status=ReadingStatus.NAN)
    steps.measure(tx, run, role="verify", readings=[empty, Reading.of("p95", tx.now, 0.2)])
    changes.hold(
        tx,
        run,
        changes.NewChange(
            knob="max_concurrency",
            base=10,
            value=6,
            actuator="detector",
            lease=timedelta(minutes=15),
            restore={},
        ),
    )
    said = Message(key=f"run/{run_id}", severity="info", title="throttled", body="10 -> 6")
    outbox.queue(tx, said, run_id=run_id)
    runs.close(tx, run, state=RunState.SUCCEEDED, verdict=Verdict.IMPROVED, reason="p95 is 0.2 s")
    return run_id
