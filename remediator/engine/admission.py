"""Admission: ask Prometheus first, then decide, count and claim in one transaction.

Called by reconcile for every alert that needs a decision, and by settle for an escalation. The
surprise: nothing is decided on what was read before the transaction except timestamped evidence,
and that is refused when it has grown too old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from remediator.engine.dispatch import Candidate, Misfit, candidates
from remediator.engine.guards import Facts, judge
from remediator.engine.ports import MetricSource
from remediator.model.decision import Admitted, Decision, Denied, Reason
from remediator.model.effect import Message
from remediator.model.guard import BudgetGuard, BudgetScope, RequireGuard
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Pinned
from remediator.model.run import RunKind
from remediator.model.target import Inventory
from remediator.model.verdict import Reading
from remediator.store import alerts as alert_rows
from remediator.store import controls, decisions, outbox, runs, steps
from remediator.store.alerts import StoredAlert
from remediator.store.database import Database, Tx, moment


@dataclass(frozen=True)
class Admission:
    """What admission needs to decide."""

    db: Database
    metrics: MetricSource
    inventory: Inventory
    pace: Pace

    async def consider(
        self, alert: StoredAlert, library: Mapping[str, Pinned]
    ) -> list[tuple[str, Decision]]:
        """Decide about one alert; return (playbook, decision) in the order they were taken.

        1. An alert that is over, or that a run already works on, needs no new decision.
        2. Candidates are looked at by priority; once one is admitted, the rest are superseded.
        3. Each is checked cheaply, then against fresh evidence, then for good in one transaction.
        """
        if not await self.db.write(_needs_decision, alert.id):
            return []
        taken: list[tuple[str, Decision]] = []
        again = makes_room = False
        admitted_on: dict[tuple[str, Mode], str] = {}
        for found in candidates(alert, library, self.inventory):
            if isinstance(found, Misfit):
                await self._record(alert, found.playbook, found.target, found.denied)
                taken.append((found.playbook, found.denied))
                continue
            decision = await self._decide(found, admitted_on)
            if decision is None:
                again = True
                continue
            if isinstance(decision, Admitted):
                admitted_on[found.target.name, found.plan.mode] = found.plan.name
            makes_room = makes_room or _makes_room(found, decision)
            again = again or isinstance(decision, Admitted) or decision.is_transient
            taken.append((found.plan.name, decision))
        # The run that makes room does so at its next step boundary: be there when it does.
        after = timedelta() if makes_room else self.pace.review
        await self.db.write(alert_rows.review_again, alert.id, after=after if again else None)
        return taken

    async def _decide(
        self, candidate: Candidate, admitted_on: Mapping[tuple[str, Mode], str]
    ) -> Decision | None:
        """Return the decision; None when a run of this mode works on the alert already."""
        other = admitted_on.get((candidate.target.name, candidate.plan.mode))
        if other is not None:
            denied = Denied(Reason.SUPERSEDED, f"{other} has a higher priority on this target")
            await self._record(candidate.alert, candidate.plan.name, candidate.target.name, denied)
            return denied
        if await self.db.read(_worked_on, candidate):
            return None
        early = await self.db.write(precheck, candidate, self.pace)
        if early is not None:
            return early
        evidence = await self.evidence(candidate)
        return await self.db.write(admit, candidate, evidence, self.pace)

    async def evidence(self, candidate: Candidate) -> dict[str, Reading]:
        """Ask Prometheus what the candidate's guards require."""
        queries = {g.require.query for g in candidate.plan.guards if isinstance(g, RequireGuard)}
        # Aged by the journal's clock, from before the question was asked (docs/decisions/0007).
        asked_at = await self.db.read(moment)
        return {
            query: replace(await self.metrics.query(query), at=asked_at)
            for query in sorted(queries)
        }

    async def _record(self, alert: StoredAlert, playbook: str, target: str, denied: Denied) -> None:
        await self.db.write(
            decisions.record, alert_id=alert.id, playbook=playbook, target=target, decision=denied
        )


def _makes_room(candidate: Candidate, decision: Decision) -> bool:
    if isinstance(decision, Admitted) or decision.reason is not Reason.BUSY:
        return False
    acting: int = decision.evidence.get("priority", candidate.plan.priority)
    return acting < candidate.plan.priority


def _needs_decision(tx: Tx, alert_id: int) -> bool:
    alert = alert_rows.get_alert(tx, alert_id)
    if alert is None:
        return False
    if not alert.firing:
        over = Denied(Reason.RESOLVED, "it was over before it was looked at")
        decisions.record_if_first(tx, alert_id=alert_id, decision=over)
        alert_rows.review_again(tx, alert_id, after=None)
        return False
    return True


def _worked_on(tx: Tx, candidate: Candidate) -> bool:
    return runs.open_remedy(tx, candidate.alert.id, candidate.plan.mode) is not None


def precheck(tx: Tx, candidate: Candidate, pace: Pace) -> Denied | None:
    """Refuse early what needs no query."""
    facts = _facts(tx, candidate, {}, pace)
    denied = judge(candidate.plan, facts, pace, with_evidence=False)
    if denied is None or _would_make_room(candidate, facts, denied):
        return None
    _record_in(tx, candidate, denied)
    return denied


def _would_make_room(candidate: Candidate, facts: Facts, denied: Denied) -> bool:
    acting = facts.acting
    return (
        denied.reason is Reason.BUSY
        and acting is not None
        and acting.priority < candidate.plan.priority
    )


def admit(
    tx: Tx,
    candidate: Candidate,
    evidence: Mapping[str, Reading],
    pace: Pace,
    *,
    parent_id: int | None = None,
) -> Decision:
    """Decide for good: the alert, every counter, lock and pause again, then the run and its slot.

    A run of lower priority is asked to make room only when nothing else stands in the way.
    """
    facts = _facts(tx, candidate, evidence, pace)
    denied = _over(tx, candidate) or judge(candidate.plan, facts, pace, with_evidence=True)
    if denied is not None and _would_make_room(candidate, facts, denied):
        alone = replace(facts, acting=None)
        denied = judge(candidate.plan, alone, pace, with_evidence=True) or denied
        if denied.reason is Reason.BUSY and facts.acting is not None:
            why = f"preempted: {candidate.plan.name} has a higher priority"
            runs.ask_to_stop(tx, facts.acting.id, reason=why)
    if denied is not None:
        _record_in(tx, candidate, denied)
        return denied
    pinned = candidate.pinned
    runs.keep_playbook(tx, sha256=pinned.sha256, name=pinned.playbook.name, text=pinned.text)
    run_id = runs.open_run(
        tx,
        runs.NewRun(
            kind=RunKind.REMEDY,
            playbook=candidate.plan.name,
            playbook_sha=pinned.sha256,
            plan=candidate.plan.model_dump(mode="json", by_alias=True),
            mode=candidate.plan.mode,
            priority=candidate.plan.priority,
            target=candidate.target.name,
            pool=candidate.target.pool,
            proposed=candidate.plan.mode is Mode.PROPOSE,
            alert_id=candidate.alert.id,
            holds_slot=True,
            parent_id=parent_id,
        ),
    )
    if run_id is None:
        denied = Denied(Reason.BUSY, "another run took the target at the same moment")
        _record_in(tx, candidate, denied)
        return denied
    admitted = Admitted(run_id=run_id, evidence={"readings": _told(evidence.values())})
    _record_in(tx, candidate, admitted)
    return admitted


def _over(tx: Tx, candidate: Candidate) -> Denied | None:
    """Return why there is nothing to do (any more): it is over, or another run has it."""
    alert = alert_rows.get_alert(tx, candidate.alert.id)
    if alert is None or not alert.firing:
        return Denied(Reason.RESOLVED, "it was over before anything was done")
    other = runs.open_remedy(tx, candidate.alert.id, candidate.plan.mode)
    if other is not None:
        return Denied(
            Reason.BUSY, f"run R{other.id} works on this alert already", {"run": other.id}
        )
    return None


def _record_in(tx: Tx, candidate: Candidate, decision: Decision) -> None:
    if isinstance(decision, Denied) and "actions" in decision.evidence:
        # We may not act on this target any more for a while: that is a person's business now.
        target = candidate.target.name
        outbox.queue(
            tx,
            Message(
                key=f"budget/{target}/{tx.now:%Y-%m-%dT%H}",
                severity="critical",
                title=f"{candidate.plan.name} on {target}: needs a person",
                body=f"{candidate.alert.name} fires, and {decision.detail}.",
            ),
        )
    decisions.record(
        tx,
        alert_id=candidate.alert.id,
        playbook=candidate.plan.name,
        target=candidate.target.name,
        decision=decision,
    )


def _told(readings: Sequence[Reading] | Any) -> list[dict[str, Any]]:
    return [
        {"query": r.query, "value": r.value, "said": r.describe(), "at": r.at.isoformat()}
        for r in readings
    ]


def _facts(tx: Tx, candidate: Candidate, evidence: Mapping[str, Reading], pace: Pace) -> Facts:
    plan, target = candidate.plan, candidate.target.name
    blocked = controls.blocked(tx, playbook=plan.name, target=target)
    return Facts(
        now=tx.now,
        blocked=None if blocked is None else (Reason(blocked.reason), blocked.detail),
        acting=runs.acting_run(tx, target, plan.mode),
        last_closed=runs.last_closed(tx, plan.name, target, plan.mode),
        actions=steps.actions_since(tx, target, plan.mode, per=pace.actions_per),
        opened=_opened(tx, candidate, plan.mode),
        evidence=evidence,
    )


def _opened(tx: Tx, candidate: Candidate, mode: Mode) -> dict[int, int]:
    counts = {}
    for place, guard in enumerate(candidate.plan.guards):
        if not isinstance(guard, BudgetGuard):
            continue
        scope = guard.budget.scope
        counts[place] = runs.count_opened(
            tx,
            since=tx.now - guard.budget.per,
            mode=mode,
            playbook=candidate.plan.name if scope is BudgetScope.PLAYBOOK else None,
            target=candidate.target.name if scope is BudgetScope.TARGET else None,
        )
    return counts
