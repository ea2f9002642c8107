"""Settle: how a run ends, and who takes over.

Called by the runner with the last move of a run. Closing a run, opening the run it escalates to and
queueing the message to a person are one transaction: none of them can exist without the others. The
surprise: a rollback that fails always reaches a person, whatever the playbook says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from remediator.engine import held, plans
from remediator.engine.admission import Admission, admit
from remediator.engine.dispatch import Candidate, Misfit, candidate_for
from remediator.engine.evidence import Evidence
from remediator.engine.moves import Done, Failed, Progress, knobs_of
from remediator.model.decision import Admitted
from remediator.model.effect import Message
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, OnFailure, Pinned
from remediator.model.run import (
    HeldChange,
    History,
    Phase,
    Run,
    RunKind,
    RunState,
    StepRow,
    StepStatus,
)
from remediator.model.step import PERSON, EscalateStep
from remediator.model.verdict import Verdict
from remediator.store import alerts, approvals, changes, controls, guarding, outbox, runs, steps
from remediator.store.alerts import StoredAlert
from remediator.store.database import Tx

# How the titles of messages end about runs that did nothing.
OBSERVED = "(only observed)"
PREEMPTED = "preempted"
CANCELLED = "cancelled"  # a person ended this run
STOPPED = "stopped"  # a person wants it rolled back now: this run, or a scope
KILLED = "killed"  # the kill switch
OUT_OF_BUDGET = "budget"
INEFFECTIVE = "no effect"  # what it set helped nobody: a rollback takes settings back as well
# A person's word takes back everything the run did; any other stop only what is half-done.
TAKE_ALL_BACK = (CANCELLED, STOPPED, KILLED, approvals.REJECTED)
NEEDS = "needs a person"
# An alert that nothing helps is a person's, who need not be woken by every run that says so.
PAGE_AGAIN = timedelta(hours=1)
# Who stops gets the target as it was before anybody touched it, not as an earlier run had set it.
TO_THE_BASE = (f"{STOPPED} by ", KILLED)
# Whoever asked for the room, or for quiet, comes first.
NOT_AGAIN_AT_ONCE = (PREEMPTED, OUT_OF_BUDGET, *TAKE_ALL_BACK)


@dataclass(frozen=True)
class Successor:
    """The playbook a run escalates to, with the evidence its guards asked for."""

    candidate: Candidate
    evidence: Evidence


def escalates_to(progress: Progress) -> str:
    """Return the playbook that takes over when this run fails, or `person`."""
    for step in progress.plan.steps:
        if isinstance(step, EscalateStep):
            return step.escalate_to
    return progress.plan.on_failure.escalate_to or PERSON


async def find_successor(
    progress: Progress,
    admission: Admission,
    library: Mapping[str, Pinned],
    alert: StoredAlert | None,
) -> Successor | str:
    """Return the successor with its evidence, or why only a person can take over."""
    name = escalates_to(progress)
    if name == PERSON:
        return "no further playbook"
    if alert is None or name not in library:
        return f"playbook {name!r} is not being served"
    found = candidate_for(alert, library[name], admission.inventory)
    if isinstance(found, Misfit):
        return f"playbook {name!r} does not fit: {found.denied.detail}"
    if progress.run.mode is Mode.OBSERVE:
        # Nothing was done here, so nothing may be done about its having failed.
        found = replace(found, plan=found.plan.model_copy(update={"mode": Mode.OBSERVE}))
    return Successor(candidate=found, evidence=await admission.evidence(found))


def takes_all_back(progress: Progress) -> bool:
    """Say whether a rollback takes settings back as well, which are leases that could live on."""
    return _takes_all_back(progress.run, progress.plan.on_failure)


def _takes_all_back(run: Run, on_failure: OnFailure) -> bool:
    if (run.stop_reason or "").startswith(TAKE_ALL_BACK) or run.verdict is Verdict.WORSE:
        return True
    if run.reason.startswith(INEFFECTIVE):
        return True
    return run.stop_reason is None and on_failure.undo


def half_done(history: History) -> bool:
    """Say whether something is half-done that must not stay, such as a drain."""
    return any(
        not row.undone and row.undo is not None and not row.undo.get("lasting", False)
        for row in history.steps
        if row.phase is Phase.FORWARD and row.status in TAKE_BACK
    )


# What may have been applied has to be taken back as if it was.
TAKE_BACK = frozenset({StepStatus.OK, StepStatus.UNKNOWN, StepStatus.STARTED})


def done_still(progress: Progress) -> list[StepRow]:
    """Return what can be taken back, oldest first; what a person pinned since is theirs."""
    return [
        row
        for row in progress.history.steps
        if row.phase is Phase.FORWARD and row.status in TAKE_BACK
        if not row.undone and row.undo is not None
        if progress.pins.isdisjoint(knobs_of(row.undo.get("args", {})))
    ]


def anything_done(progress: Progress) -> bool:
    """Say whether there is anything to take back at all."""
    return bool(done_still(progress))


# Verbs of `http` and `command`: what they did is no half-done work, and no change that is held.
FOR_GOOD = frozenset({"call", "run"})


def left_in_place(history: History) -> list[str]:
    """Return, in words, what was done, is there still, and shows in no list of what is held.

    Not what was tried to be taken back: that is told with its error.
    """
    tried = {
        (row.pc, row.call.removeprefix("undo:"))
        for row in history.steps
        if row.phase is Phase.ROLLBACK
    }
    left: dict[tuple[int, str], str] = {}
    for row in history.steps:
        if row.phase is not Phase.FORWARD or row.status not in TAKE_BACK or row.undone:
            continue
        if row.verb not in FOR_GOOD or (row.pc, row.call) in tried:
            continue
        left[row.pc, row.call] = row.why + ("" if row.status is StepStatus.OK else " (perhaps)")
    return list(left.values())


def _with_what_is_left(tx: Tx, run: Run, reason: str) -> str:
    if not run.mode.acts or run.kind is RunKind.RESTORE:
        return reason
    left = left_in_place(steps.history(tx, run.id))
    return f"{reason}; left in place: {'; '.join(left)}" if left else reason


def succeed(tx: Tx, run: Run, move: Done) -> None:
    """Close a run whose steps all did what they should."""
    verdict, reason = move.verdict, move.reason
    observed = run.mode is Mode.OBSERVE
    if observed and verdict is Verdict.IMPROVED:
        # Nothing was sent: what improved, improved by itself.
        verdict, reason = Verdict.UNCHANGED, f"natural recovery: {reason}"
    elif observed:
        reason = f"nothing was sent; it would have ended: {reason}"
    runs.close(tx, run, state=RunState.SUCCEEDED, verdict=verdict or Verdict.UNKNOWN, reason=reason)
    if run.kind is RunKind.RESTORE:
        title = f"{run.target}: given back"
    elif observed:
        ended = "natural recovery" if verdict else "done"
        title = f"{run.playbook} on {run.target}: {ended} {OBSERVED}"
    else:
        title = f"{run.playbook} on {run.target}: {verdict or 'done'}"
    outbox.queue(
        tx,
        Message(key=f"run/{run.id}/closed", severity="info", title=title, body=reason),
        run_id=run.id,
    )


def fail(
    tx: Tx,
    run: Run,
    move: Failed,
    successor: Successor | str,
    pace: Pace,
    *,
    change: HeldChange | None = None,
) -> int | None:
    """Close a failed run and hand over, in one transaction; return the run that takes over.

    Raises:
        OvertakenError: somebody had a word since the run, or the `change` it gives back, was read.
    """
    if run.kind is RunKind.RESTORE:
        runs.close(tx, run, state=RunState.CANCELLED, verdict=None, reason=move.reason)
        held.not_given_back(tx, run, move.reason, as_read=change)
        return None
    _in_turn(tx, successor)
    runs.close(
        tx, run, state=RunState.FAILED, verdict=move.verdict or Verdict.UNKNOWN, reason=move.reason
    )
    _tell_as_declared(tx, run, move.reason)
    return hand_over(tx, run, move.reason, successor, pace)


def _in_turn(tx: Tx, successor: Successor | str) -> None:
    # Whoever needs several waits for them in one order: admissions, controls, rows of runs, rows
    # of changes. An admission may set a control, and comes after this run's own row.
    if isinstance(successor, Successor):
        guarding.one_by_one(tx)
        controls.exclude_intents(tx)


def hand_over(tx: Tx, run: Run, reason: str, successor: Successor | str, pace: Pace) -> int | None:
    """Open the successor of a closed run, or tell a person; return the successor's id."""
    if run.alert_id is not None:
        alerts.review_again(tx, run.alert_id, after=pace.review)
    if isinstance(successor, Successor):
        decision = admit(tx, successor.candidate, successor.evidence, pace, parent_id=run.id)
        if isinstance(decision, Admitted):
            _tell(tx, run, "warning", f"escalated to {successor.candidate.plan.name}", reason)
            if run.mode.acts and not successor.candidate.plan.mode.acts:
                # It only observes, and what nobody acts on needs somebody who does.
                _need_a_person(tx, run, reason)
            return decision.run_id
        successor = f"{successor.candidate.plan.name} was denied: {decision.detail}"
    _need_a_person(tx, run, f"{reason}; {successor}")
    return None


def end_rollback(
    tx: Tx,
    run: Run,
    *,
    failures: list[str],
    successor: Successor | str,
    pace: Pace,
) -> None:
    """Close a run that took back what it could; hand over unless it was asked to stop."""
    state = RunState.ROLLBACK_FAILED if failures else RunState.ROLLED_BACK
    reason = run.reason + (f"; could not be taken back: {'; '.join(failures)}" if failures else "")
    _in_turn(tx, successor)
    reason = _with_what_is_left(tx, run, reason)
    runs.close(tx, run, state=state, verdict=run.verdict or Verdict.UNKNOWN, reason=reason)
    if failures:
        _tell(tx, run, "critical", "rollback failed", reason)
        _give_back_instead(tx, run)
    if run.stop_reason is None:
        _tell_as_declared(tx, run, reason)
        hand_over(tx, run, reason, successor, pace)
    else:
        _after_stop(tx, run, pace)


def _give_back_instead(tx: Tx, run: Run) -> None:
    """What was to go back and did not is not looked after for hours: runs of its own try on."""
    if _takes_all_back(run, plans.plan_of(run).on_failure):
        _give_back(tx, run, f"the rollback of run R{run.id} failed")


def _give_back(tx: Tx, run: Run, reason: str) -> None:
    for change in changes.open_changes(tx):
        if change.run_id == run.id:
            changes.give_back_now(tx, change.id, reason=reason)


def strand(tx: Tx, run: Run, reason: str, pace: Pace) -> None:
    """Close a run whose target nobody can reach any more, in whatever phase it is."""
    if run.phase is Phase.ROLLBACK:
        end_rollback(tx, run, failures=[reason], successor=reason, pace=pace)
    else:
        fail(tx, run, Failed(None, reason), reason, pace)


def abandon(tx: Tx, run: Run, reason: str) -> None:
    """Close a run that cannot even be given up as it should be, and wake a person."""
    back = run.phase is Phase.ROLLBACK
    state = RunState.ROLLBACK_FAILED if back else RunState.FAILED
    runs.close(tx, run, state=state, verdict=None, reason=reason)
    _tell(tx, run, "critical", "given up", reason)


def stop(tx: Tx, run: Run, reason: str, pace: Pace) -> None:
    """Close a run that was asked to stop and has nothing to take back."""
    told = _with_what_is_left(tx, run, reason)
    runs.close(tx, run, state=RunState.CANCELLED, verdict=None, reason=told)
    change = changes.get_change(tx, run.change_id) if run.change_id else None
    if change is not None and change.closed_at is None:
        _keep(tx, change, reason)
    _after_stop(tx, run, pace)


def _keep(tx: Tx, change: HeldChange, reason: str) -> None:
    """Say what becomes of a change whose restore was asked to stop."""
    returns = change.state in {changes.OVERDUE, changes.RETURNING}
    if reason.startswith(CANCELLED) and (returns or change.state == changes.RESTORING):
        changes.set_state(tx, change.id, changes.KEPT, reason=reason)
    elif returns:
        # It has to go back all the same; whoever asked for the room comes first.
        changes.open_restore(tx, change)
    elif change.state == changes.RESTORING:
        changes.set_state(tx, change.id, changes.HELD, reason=reason)


def _after_stop(tx: Tx, run: Run, pace: Pace) -> None:
    asked = run.stop_reason or ""
    if asked.startswith(OUT_OF_BUDGET):
        # It was not helped, and we may not go on: that is a person's business now.
        _need_a_person(tx, run, asked)
    if asked.startswith(TO_THE_BASE):
        # What it took over from an earlier run, with a call that was in flight when it was stopped.
        _give_back(tx, run, asked)
    if asked.startswith(NOT_AGAIN_AT_ONCE) and run.alert_id is not None:
        alerts.review_again(tx, run.alert_id, after=pace.review)
    else:
        _review_soon(tx, run)


def _review_soon(tx: Tx, run: Run) -> None:
    if run.alert_id is not None:
        alert = alerts.get_alert(tx, run.alert_id)
        if alert is not None and alert.firing:
            alerts.review_now(tx, run.alert_id)


def _tell_as_declared(tx: Tx, run: Run, reason: str) -> None:
    words = plans.plan_of(run).on_failure.notify
    if words:
        _tell(tx, run, "warning", "failed", f"{words}\n{reason}")


def _need_a_person(tx: Tx, run: Run, body: str) -> None:
    """Wake a person; for one playbook and one episode of its alert at most once an hour."""
    story = f"run/A{run.alert_id}/{run.playbook}/{run.mode.lane}/"
    if not outbox.queued_since(tx, story, since=tx.now - PAGE_AGAIN):
        _tell(tx, run, "critical", NEEDS, body, key=f"{story}{run.id}/{NEEDS.replace(' ', '-')}")


def _tell(tx: Tx, run: Run, severity: str, what: str, body: str, *, key: str | None = None) -> None:
    if run.mode is Mode.OBSERVE:
        # Nothing was done, so nobody has to get up; the record still says what would have been.
        severity, what = "info", f"{what} {OBSERVED}"
    outbox.queue(
        tx,
        Message(
            key=key or f"run/{run.id}/{what.replace(' ', '-')}",
            severity=severity,
            title=f"{run.playbook} on {run.target}: {what}",
            body=f"{body}\nWhy: remediator explain R{run.id}",
        ),
        run_id=run.id,
    )
