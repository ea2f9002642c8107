"""Approvals: a person decides whether a run goes on.

`proposal` and `next_move` are pure planners, for a playbook in mode propose and for an `approve`
step; `ask` and `not_admitted` are the pieces of a transaction that the runner carries out for them.
The surprise: an approval is no permission to act on what was true when the question was asked. Who
waited has no slot, and takes it only past all the guards again (`Admission.readmit`).
"""

from __future__ import annotations

import json

from remediator.engine.moves import Ask, Done, Failed, Halt, Move, Progress, Readmit
from remediator.engine.settle import STOPPED
from remediator.model.decision import Denied, Reason
from remediator.model.duration import format_duration
from remediator.model.effect import Message
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Playbook
from remediator.model.run import PROPOSAL, ApprovalRow, Decided, Run
from remediator.model.step import AnyStep, Approve, EscalateStep, kind_of
from remediator.store import alerts, approvals, outbox, queries, runs
from remediator.store.database import Tx

# What may be over in a moment: who was approved waits for it, as long as the question was open.
WORTH_WAITING = frozenset({Reason.BUSY, Reason.SUPERSEDED, Reason.UNKNOWN, Reason.STALE_EVIDENCE})
STOP, ESCALATE, CONTINUE = "stop", "escalate", "continue"
LONGEST_LINE = 200
LONGEST_LIST = 20


def proposal(progress: Progress) -> Move | None:
    """Return the next move of a proposal; None once it was approved and acts, or was none."""
    run, asked = progress.run, progress.history.approvals
    if not run.proposed or (asked and asked[-1].pc != PROPOSAL):
        return None
    if run.mode is Mode.AUTO and run.holds_slot:
        return None
    plan = progress.plan
    said = Approve(
        message=plan.description or f"{plan.name} would act on {progress.target.name}.",
        within=plan.approval.within,
        on_timeout=plan.approval.on_timeout,
    )
    return next_move(progress, PROPOSAL, said)


def next_move(progress: Progress, pc: int, asked: Approve) -> Move:
    """Return what comes of a question: ask it, wait, go on, or go another way."""
    answer = progress.history.approval(pc)
    if answer is None or answer.decision is None:
        if progress.alert_since is None:
            return Halt("the alert was over before anybody decided")
        return Ask(pc=pc, message=asked.message, within=asked.within)
    branch = {
        Decided.APPROVED: CONTINUE,
        Decided.REJECTED: asked.on_reject,
        Decided.EXPIRED: asked.on_timeout,
    }[answer.decision]
    if branch == STOP:
        return Halt(_as_stop(answer))
    goto = _place(progress, branch)
    if branch == ESCALATE or goto is None:
        return Failed(None, _told(answer))
    if not progress.run.holds_slot:
        return Readmit(answer)
    return Done(None, _told(answer), goto=goto)


def _place(progress: Progress, branch: str) -> int | None:
    """Return the index of the step where it goes on; None when nothing but a person is left."""
    here = progress.run.pc
    if branch == CONTINUE:
        return here + 1
    later = list(enumerate(progress.plan.steps))[here + 1 :]
    found = next((place for place, step in later if step.name == branch), None)
    if found is None or isinstance(progress.plan.steps[found], EscalateStep):
        return None
    return found


def _told(answer: ApprovalRow) -> str:
    if answer.decision is Decided.EXPIRED:
        waited = format_duration(answer.expires_at - answer.asked_at)
        return f"nobody answered within {waited}"
    why = f": {answer.reason}" if answer.reason else ""
    return f"{answer.decision} by {answer.by}{why}"


def _as_stop(answer: ApprovalRow) -> str:
    told = _told(answer)
    return told if answer.decision is Decided.REJECTED else f"{STOPPED}: {told}"


def ask(tx: Tx, run: Run, plan: Playbook, question: Ask) -> None:
    """Ask a person, once, and let the run wait as a row until the answer or the end of the time."""
    row = approvals.ask(tx, run, pc=question.pc, message=question.message, within=question.within)
    key = f"run/{run.id}/ask/{question.pc}"
    title = f"{run.playbook} on {run.target}: approve R{run.id}?"
    body = _body(tx, run, plan, row)
    outbox.queue(tx, Message(key=key, severity="warning", title=title, body=body), run_id=run.id)
    runs.park(
        tx,
        run,
        # Decided since the run was read: that must not wait until nobody could decide any more.
        due_at=tx.now if row.decision else row.expires_at,
        reason=f"waits for a person until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC",
        release_slot=True,
    )


def _body(tx: Tx, run: Run, plan: Playbook, row: ApprovalRow) -> str:
    first = max(row.pc, 0)
    steps = [f"  {place + 1}. {_shown(step)}" for place, step in enumerate(plan.steps)][first:]
    return "\n".join(
        [
            row.message,
            *_alert(tx, run),
            f"Target: {run.target}",
            "What it would do:",
            *steps,
            *_evidence(tx, run),
            f"Yes: remediator approve R{run.id}",
            f"No: remediator reject R{run.id} --reason ...",
            f"Open until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC. The guards are asked again then.",
        ]
    )


def _shown(step: AnyStep) -> str:
    kind = kind_of(step)
    said = step.model_dump(mode="json", by_alias=True, exclude_defaults=True)[kind]
    return f"{step.name or kind}: {json.dumps(said)}"[:LONGEST_LINE]


def _alert(tx: Tx, run: Run) -> list[str]:
    """Return the alert that the run is about, as whoever is asked knows it."""
    alert = alerts.get_alert(tx, run.alert_id) if run.alert_id else None
    if alert is None:
        return []
    labels = [f'{k}="{v}"' for k, v in sorted(alert.labels.items()) if k != "alertname"]
    notes = [f"{name}: {said}" for name, said in sorted(alert.annotations.items())]
    since = f"{alert.starts_at or alert.first_seen_at:%Y-%m-%d %H:%M:%S} UTC"
    told = [f"  {line}"[:LONGEST_LINE] for line in (*labels, *notes)][:LONGEST_LIST]
    return [f"Alert: {alert.name}, since {since}"[:LONGEST_LINE], *told]


def _evidence(tx: Tx, run: Run) -> list[str]:
    found = queries.list_decisions(
        tx, alert_id=None, run_id=run.id, reason=None, before=None, limit=1
    )
    readings = found[0]["evidence"].get("readings", []) if found else []
    lines = [f"  {one.get('said')} = {one.get('query')}"[:LONGEST_LINE] for one in readings]
    return ["Measured:", *lines] if lines else ["Measured: nothing; none of its guards asks"]


def not_admitted(tx: Tx, run: Run, answer: ApprovalRow, denied: Denied, pace: Pace) -> bool:
    """Park a run whose guards say no for a moment, or end it and say so; True when it waits."""
    deadline = max(answer.expires_at, (answer.decided_at or tx.now) + pace.hold_down)
    if denied.reason in WORTH_WAITING and tx.now < deadline:
        due = min(tx.now + pace.review, deadline)
        runs.park(tx, run, due_at=due, reason=f"{_told(answer)}; waits: {denied.detail}")
        return True
    why = f"not begun, {denied.reason}: {denied.detail}"
    runs.ask_to_stop(tx, run.id, reason=why)
    told = Message(
        key=f"run/{run.id}/not-begun/{answer.pc}",
        severity="warning",
        title=f"{run.playbook} on {run.target}: {_told(answer)}, and not done",
        body=f"{denied.reason}: {denied.detail}\nWhy: remediator explain R{run.id}",
    )
    outbox.queue(tx, told, run_id=run.id)
    return False
