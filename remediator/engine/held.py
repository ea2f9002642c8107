"""What is held after its run: when it is given back, and what becomes of it otherwise.

Bodies of transactions, called by reconcile on every tick and by the end of a restore. The surprise:
a target that takes a value back by itself (a lease lapses there) may be left alone, one that does
not (a balancer's weight) never is: its change stays open until it has been given back, or until a
person takes the knob.
"""

from __future__ import annotations

from datetime import timedelta

from remediator.errors import OvertakenError
from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.model.run import HeldChange, Run
from remediator.store import changes, outbox, runs
from remediator.store.database import Tx

# A give-back that did not get through is tried again after this, until it does.
AGAIN_AFTER = timedelta(minutes=10)
AS_DECLARED = "left to its lease, as declared"


def begin_restores(tx: Tx) -> None:
    """Begin to give back what is held for alerts that are over."""
    for change in changes.resolved_changes(tx):
        if change.mode is Mode.OBSERVE:
            changes.close_change(tx, change.id, "expired", reason="nothing was done")
        elif change.restore is None and change.reverts_itself:
            # The target has the value until then: it stays on the list, and can be stopped.
            changes.set_state(tx, change.id, changes.LAPSING, reason=AS_DECLARED)
        elif change.restore is None:
            changes.give_back_now(tx, change.id, reason="the alert is over")
        elif runs.open_restore(tx, change.id) is None:
            changes.set_state(tx, change.id, changes.RESTORING)
            changes.open_restore(tx, change)


def lapse(tx: Tx) -> None:
    """Let go of leases that nobody renewed, or was to renew.

    Setting the value again would act on evidence from before the lapse. Whether it is needed still
    is a new question, and admission asks it while the alert fires.
    """
    for change in changes.lapsed(tx):
        if not change.reverts_itself:
            _overdue(tx, change, "its lease ended: nobody looked after it")
            continue
        if change.state == changes.LAPSING:
            changes.close_change(tx, change.id, "expired", reason=change.reason)
            continue
        changes.close_change(tx, change.id, "expired", reason="its lease ended and was not renewed")
        body = change.renewal_error or "No controller was there to renew it."
        _tell(tx, change, "warning", "lapsed", f"The service ramps back itself. {body}")


def expire(tx: Tx, change: HeldChange) -> None:
    """Let go of what has been held for as long as is allowed, and tell a person."""
    # While it fires somebody has to take over; after that it is only news.
    severity = "critical" if changes.alert_fires(tx, change.alert_id) else "warning"
    if change.reverts_itself:
        changes.set_state(tx, change.id, changes.LAPSING, reason="held for as long as is allowed")
        body = "It is not renewed any more; the service ramps back itself when its lease ends."
        _tell(tx, change, severity, "is not held any longer", body)
        return
    if change.state not in {changes.OVERDUE, changes.RETURNING}:
        _overdue(tx, change, "held for as long as is allowed")
    body = f"It does not go back by itself; we give it back ({change.base:g}) once it is healthy."
    _tell(tx, change, "critical", "is held for too long", body)


def _overdue(tx: Tx, change: HeldChange, reason: str) -> None:
    if change.restore is None:
        changes.give_back_now(tx, change.id, reason=reason)
        return
    changes.set_state(tx, change.id, changes.OVERDUE, reason=reason)
    changes.open_restore(tx, change)


def yield_to(tx: Tx, change: HeldChange, why: str) -> None:
    """Leave a knob to the person who took it."""
    changes.close_change(tx, change.id, "yielded", reason=why)
    _tell(tx, change, "info", "was taken over by a person", why)


def not_given_back(tx: Tx, run: Run, reason: str, *, as_read: HeldChange | None = None) -> None:
    """Say what becomes of the change of a restore that failed.

    A person is told, unless the alert fires again (then it is meant to stay) or the change is
    somebody else's business by now.

    Raises:
        OvertakenError: the change is to go another way than when it was read (`as_read`).
    """
    change = changes.get_change(tx, run.change_id or 0)
    if change is not None and as_read is not None and change.state != as_read.state:
        msg = f"change {change.id} was {as_read.state}, and is {change.state} since it was read"
        raise OvertakenError(msg)
    ours = {changes.RESTORING, changes.OVERDUE, changes.RETURNING}
    if change is None or change.closed_at is not None or change.state not in ours:
        return
    restoring = change.state == changes.RESTORING
    if restoring and changes.alert_fires(tx, change.alert_id) is not None:
        changes.set_state(tx, change.id, changes.HELD, reason=reason)
        return
    if change.reverts_itself:
        changes.set_state(tx, change.id, changes.LAPSING, reason=f"left to its lease: {reason}")
        _tell(
            tx, change, "warning", "could not be given back", f"It is left to its lease: {reason}"
        )
        return
    changes.open_restore(tx, change, after=AGAIN_AFTER)
    _tell(tx, change, "critical", "could not be given back", f"tried again: {reason}")


def _tell(tx: Tx, change: HeldChange, severity: str, what: str, body: str) -> None:
    message = Message(
        key=f"change/{change.id}/{what.replace(' ', '-')}",
        severity=severity,
        title=f"{change.target}: {change.knob} at {change.value:g} {what}",
        body=body,
    )
    outbox.queue(tx, message, run_id=change.run_id)
