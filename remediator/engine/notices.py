"""Notices: what a person has to know about a refusal, and the demotion that a breaker brings.

Called by admission in the transaction of the decision. The surprise: a message's key is what makes
it once. The same storm, budget or breaker is told of once, however many alerts run into it.
"""

from __future__ import annotations

from remediator.engine.breaker import Standing
from remediator.engine.dispatch import Candidate
from remediator.model.decision import Denied, Reason
from remediator.model.effect import Message
from remediator.model.playbook import Mode
from remediator.store import outbox, overrides
from remediator.store.database import Tx


def refused(tx: Tx, candidate: Candidate, denied: Denied) -> None:
    """Tell a person of a refusal that makes it a person's business."""
    name, target = candidate.plan.name, candidate.target.name
    hour = f"{tx.now:%Y-%m-%dT%H}"
    evidence = denied.evidence
    if not candidate.plan.mode.acts:
        return
    if denied.reason is Reason.BUDGET and "actions" in evidence:
        # We may not act on this target any more for a while.
        key, title = f"budget/{target}/{hour}", f"{name} on {target}: needs a person"
    elif denied.reason is Reason.STORM:
        key, title = f"storm/{evidence['pool']}/{hour}", f"{evidence['pool']}: needs a person"
    elif denied.reason is Reason.BREAKER:
        key = f"breaker/{name}/{evidence['class']}/R{evidence['opened_by']}"
        title = f"{name} does not help {evidence['class']}: needs a person"
    else:
        return
    body = f"{candidate.alert.name} fires on {target}, and {denied.detail}."
    outbox.queue(tx, Message(key=key, severity="critical", title=title, body=body))


def demote(tx: Tx, candidate: Candidate, stands: Standing) -> None:
    """Let a playbook only propose once a trial run did not help, either; tell a person once.

    Who takes the cap away is not overruled by the same failure.
    """
    name, target = candidate.plan.name, candidate.target
    if stands.failed_trial is None or candidate.pinned.playbook.mode is not Mode.AUTO:
        return
    why = f"run R{stands.failed_trial}, a trial, did not help {target.pool or target.name}, either"
    message = Message(
        key=f"breaker/{name}/trial/R{stands.failed_trial}",
        severity="warning",
        title=f"{name} may only propose from now on",
        body=f"{why}. To let it act by itself again, lift the mode of playbook {name}.",
    )
    if outbox.queue(tx, message, run_id=stands.failed_trial):
        overrides.demote(tx, playbook=name, reason=why)
