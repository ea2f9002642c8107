"""Snapshot: reads, in the deciding transaction, all that the guards of one candidate look at.

Called by admission. The surprise: a run that asks to go on (`run`) is not counted against itself,
and a playbook that takes over from another (`parent`) inherits what that one holds.
"""

from __future__ import annotations

from remediator.engine.breaker import TRIALS_SEEN, Standing, breaker_of, standing
from remediator.engine.dispatch import WATCHDOG, Candidate
from remediator.engine.evidence import Evidence
from remediator.engine.guards.facts import Facts
from remediator.model.guard import Budget, BudgetGuard, BudgetScope, NotWhileGuard, StormGuard
from remediator.model.pace import Pace
from remediator.model.playbook import Mode
from remediator.model.run import Run
from remediator.model.template import render_target, template_values
from remediator.store import changes, controls, guarding, overrides, runs, steps
from remediator.store.alerts import SCHEDULE
from remediator.store.database import Tx


def snapshot(
    tx: Tx,
    candidate: Candidate,
    evidence: Evidence | None,
    pace: Pace,
    *,
    breaker: Standing | None = None,
    run: Run | None = None,
    parent: Run | None = None,
) -> Facts:
    """Read what the guards look at.

    Args:
        tx: the transaction that decides.
        candidate: what would be done.
        evidence: what was asked before; None on the cheap look before that.
        pace: bounds.
        breaker: where the playbook's breaker stands, when that is known already.
        run: the run itself, when it was opened before and asks to go on.
        parent: the run that it takes over from.
    """
    plan, target = candidate.plan, candidate.target
    mode = plan.mode if run is None or not plan.mode.acts else Mode.AUTO
    but = guarding.NOBODY if run is None else run.id
    where = {"playbook": plan.name, "target": target.name}
    acting = runs.acting_run(tx, target.name, mode)
    stood = breaker or stands(tx, candidate)
    reset_at = overrides.breaker_reset_at(tx, plan.name, target.pool or target.name)
    return Facts(
        now=tx.now,
        plan=plan,
        mode=mode,
        target=target,
        inventory=candidate.inventory,
        labels=candidate.alert.labels,
        pace=pace,
        evidence=evidence,
        blocked=controls.blocked(tx, **where, pool=target.pool, actions=plan.actions),
        overrides=tuple(overrides.active(tx, **where, pool=target.pool)),
        pins=overrides.pins(tx, target.name),
        rejected=None if run else guarding.rejection(tx, **where, alert_id=candidate.alert.id),
        unanswered=guarding.unanswered(tx, **where, alert_id=candidate.alert.id)
        if mode is Mode.PROPOSE
        else None,
        unsettled=None
        if run
        else guarding.unsettled(tx, **where, alert_id=candidate.alert.id, since=reset_at),
        slot_run=None
        if candidate.slot is None
        else guarding.slot_run(tx, **where, mode=mode, slot=candidate.slot, but=but),
        held=tuple(
            one
            for one in changes.open_changes(tx)
            if (one.target, one.mode.lane) == (target.name, mode.lane)
            and one.playbook not in {plan.name, parent.playbook if parent else ""}
        ),
        acting=None if acting is None or acting.id == but else acting,
        asking=guarding.asking(tx, **where, but=but) if mode is Mode.PROPOSE else None,
        actions=steps.actions_since(tx, target.name, mode, per=pace.actions_per),
        last_closed=runs.last_closed(tx, plan.name, target.name, mode),
        last_verdict=guarding.last_verdict(tx, **where, mode=mode),
        opened={
            guard.budget: _opened(tx, guard.budget, candidate, mode, but)
            for guard in plan.guards
            if isinstance(guard, BudgetGuard)
        },
        others={
            guard.not_while: guarding.other(
                tx, playbook=guard.not_while.playbook, target=target.name, mode=mode, but=but
            )
            for guard in plan.guards
            if isinstance(guard, NotWhileGuard)
        },
        disturbed=guarding.acting_targets(tx, mode, but=but),
        in_trouble=_in_trouble(tx, candidate),
        failed_row=None if run else guarding.failed_row(tx, **where, mode=mode, since=reset_at),
        breaker=stood if mode.acts else None,
        trial=guarding.trial(tx, **where, pool=target.pool, but=but) if stood.until else None,
    )


def stands(tx: Tx, candidate: Candidate) -> Standing:
    """Say where the playbook's breaker stands for this target's class."""
    plan, target = candidate.plan, candidate.target
    spec = breaker_of(plan)
    ended = guarding.judged(
        tx,
        playbook=plan.name,
        target=target.name,
        pool=target.pool,
        since=overrides.breaker_reset_at(tx, plan.name, target.pool or target.name),
        limit=spec.failures + TRIALS_SEEN,
    )
    alert = candidate.alert
    since = alert.starts_at or alert.first_seen_at
    return standing(ended, spec, alert_id=alert.id, fires_since=since)


def _opened(tx: Tx, budget: Budget, candidate: Candidate, mode: Mode, but: int) -> int:
    target, scope = candidate.target, budget.scope
    pool = target.pool if scope is BudgetScope.POOL else ""
    alone = scope is BudgetScope.TARGET or (scope is BudgetScope.POOL and not pool)
    return guarding.count_opened(
        tx,
        since=tx.now - budget.per,
        mode=mode,
        playbook=candidate.plan.name if scope is BudgetScope.PLAYBOOK else None,
        target=target.name if alone else None,
        pool=pool or None,
        but=but,
    )


def _in_trouble(tx: Tx, candidate: Candidate) -> frozenset[str]:
    """Return the targets with a firing alert; what other playbooks' schedules found is none."""
    if not any(isinstance(guard, StormGuard) for guard in candidate.plan.guards):
        return frozenset()
    own = candidate.alert.labels.get("alertname", "")
    found = {candidate.target.name}
    for alert in guarding.firing(tx):
        name = alert.labels.get("alertname", "")
        if name == WATCHDOG or (alert.source == SCHEDULE and name != own):
            continue
        target = candidate.inventory.find(alert.labels.get("instance", ""))
        found |= {target.name} if target else _by_rule(candidate, alert)
    return frozenset(found)


def _by_rule(candidate: Candidate, alert: guarding.Firing) -> set[str]:
    try:
        wanted = render_target(
            candidate.pinned.playbook, template_values(alert.labels, alert.annotations, {})
        )
    except ValueError:
        return set()
    target = candidate.inventory.find(wanted)
    return {target.name} if target else set()
