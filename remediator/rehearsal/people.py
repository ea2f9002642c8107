"""What people do in the middle of a test, written as the control API writes it.

Called by `stage` at the moments that a test names. The surprise: what cannot be done (approve what
nobody asks) fails the test, because a test that says so is wrong about what happens.
"""

from __future__ import annotations

from remediator.engine import stopping
from remediator.engine.settle import CANCELLED
from remediator.model.run import Decided
from remediator.rehearsal.script import VERBS, Control
from remediator.store import approvals, controls, runs
from remediator.store.controls import Kind
from remediator.store.database import Tx


def does(control: Control) -> str:
    """Say what a person does, in words."""
    verb = next(verb for verb in VERBS if getattr(control, verb) is not None)
    said = getattr(control, verb)
    if verb == "kill":
        return f"{control.by} {'pulls' if said else 'lifts'} the kill switch"
    return f"{control.by}: {verb} {said}"


def do(tx: Tx, control: Control) -> str:
    """Do it; return why it could not be done, or nothing."""
    kind, _, name = (control.pause or control.resume or control.stop or "").partition(":")
    if control.pause is not None:
        controls.add_pause(
            tx,
            scope=kind,
            name=name,
            reason=control.reason,
            by=control.by,
            length=control.length,
        )
        return ""
    if control.resume is not None:
        lifted = controls.lift_pauses(tx, scope=kind, name=name, by=control.by)
        return "" if lifted else f"nothing is paused for {control.resume}"
    if control.cancel is not None:
        return _cancel(tx, control)
    if control.approve is not None or control.reject is not None:
        return _decide(tx, control)
    if control.stop is not None:
        stopping.stop_scope(tx, scope=kind, name=name, by=control.by, reason=control.reason)
        return ""
    return _switch(tx, control)


def _cancel(tx: Tx, control: Control) -> str:
    found = [run for run in runs.open_remedies(tx) if run.playbook == control.cancel]
    reason = f"{CANCELLED} by {control.by}: {control.reason}"
    for run in found:
        runs.ask_to_stop(tx, run.id, reason=reason, insists=True)
    return "" if found else f"no run of {control.cancel} is open"


def _decide(tx: Tx, control: Control) -> str:
    playbook = control.approve if control.approve is not None else control.reject
    decision = Decided.APPROVED if control.approve is not None else Decided.REJECTED
    decided = False
    for row in approvals.open_questions(tx):
        run = runs.get_run(tx, row.run_id)
        if run is not None and run.playbook == playbook:
            decided |= approvals.decide(
                tx, row.id, decision=decision, by=control.by, reason=control.reason
            )
    return "" if decided else f"{playbook} asks nothing"


def _switch(tx: Tx, control: Control) -> str:
    if control.kill:
        stopping.kill(tx, by=control.by, reason=control.reason)
        return ""
    lifted = controls.lift(tx, controls.in_force(tx, Kind.KILL), by=control.by)
    return "" if lifted else "the kill switch is off"
