"""Guards: pure functions that may refuse a candidate, each with a named reason and evidence.

Called by admission, inside the transaction that would open the run. The surprise: `require` judges
readings taken before the transaction and refuses them when they have grown too old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from remediator.model.decision import Denied, Reason
from remediator.model.duration import format_duration
from remediator.model.guard import Budget, BudgetGuard, CooldownGuard, RequireGuard
from remediator.model.pace import Pace
from remediator.model.playbook import Playbook
from remediator.model.run import Run
from remediator.model.verdict import Reading, ReadingStatus


@dataclass(frozen=True)
class Facts:
    """The snapshot that guards look at.

    Attributes:
        now: the database's clock in the deciding transaction.
        blocked: why the scope is held back (reason, detail), if it is.
        acting: the run that holds the target's slot.
        last_closed: when this playbook's last run on the target ended.
        actions: forward actions on the target in the action budget's window.
        opened: runs opened in the window of each budget, by the budget's place among the guards.
        evidence: readings by query.
    """

    now: datetime
    blocked: tuple[Reason, str] | None = None
    acting: Run | None = None
    last_closed: datetime | None = None
    actions: int = 0
    opened: Mapping[int, int] = field(default_factory=dict)
    evidence: Mapping[str, Reading] = field(default_factory=dict)


def judge(plan: Playbook, facts: Facts, pace: Pace, *, with_evidence: bool) -> Denied | None:
    """Return the first refusal, or None.

    Args:
        plan: the playbook with its templates filled in.
        facts: the snapshot.
        pace: bounds.
        with_evidence: False for the cheap look before Prometheus is asked.
    """
    denied = _blocked(facts) or _slot(plan, facts) or _spent(facts, pace)
    if denied is not None:
        return denied
    for place, guard in enumerate(plan.guards):
        if isinstance(guard, CooldownGuard):
            denied = _cooldown(guard, facts)
        elif isinstance(guard, BudgetGuard):
            denied = _budget(guard.budget, facts.opened.get(place, 0))
        elif isinstance(guard, RequireGuard) and with_evidence:
            denied = _require(guard, facts, pace)
        if denied is not None:
            return denied
    return None


def _blocked(facts: Facts) -> Denied | None:
    return None if facts.blocked is None else Denied(*facts.blocked)


def _slot(plan: Playbook, facts: Facts) -> Denied | None:
    acting = facts.acting
    if acting is None:
        return None
    evidence = {"run": acting.id, "playbook": acting.playbook, "priority": acting.priority}
    if acting.priority > plan.priority:
        return Denied(
            Reason.SUPERSEDED,
            f"run R{acting.id} ({acting.playbook}, priority {acting.priority}) tells the story of "
            f"this target",
            evidence,
        )
    return Denied(Reason.BUSY, f"run R{acting.id} ({acting.playbook}) acts on the target", evidence)


def _spent(facts: Facts, pace: Pace) -> Denied | None:
    if facts.actions < pace.actions:
        return None
    return Denied(
        Reason.BUDGET,
        f"{facts.actions} actions on this target in the last {format_duration(pace.actions_per)}; "
        f"{pace.actions} allowed",
        {"actions": facts.actions, "allowed": pace.actions},
    )


def _cooldown(guard: CooldownGuard, facts: Facts) -> Denied | None:
    if facts.last_closed is None:
        return None
    since = facts.now - facts.last_closed
    if since >= guard.cooldown:
        return None
    return Denied(
        Reason.COOLDOWN,
        f"its last run on this target ended {since.total_seconds():.0f}s ago; "
        f"cooldown {format_duration(guard.cooldown)}",
        {"last_closed_at": facts.last_closed.isoformat(), "cooldown_s": _s(guard)},
    )


def _s(guard: CooldownGuard) -> float:
    return guard.cooldown.total_seconds()


def _budget(budget: Budget, opened: int) -> Denied | None:
    if opened < budget.runs:
        return None
    return Denied(
        Reason.BUDGET,
        f"{opened} runs in the last {format_duration(budget.per)} for this {budget.scope}; "
        f"{budget.runs} allowed",
        {"opened": opened, "runs": budget.runs, "per_s": budget.per.total_seconds()},
    )


def _require(guard: RequireGuard, facts: Facts, pace: Pace) -> Denied | None:
    condition = guard.require
    reading = facts.evidence.get(condition.query)
    if reading is None:
        return Denied(Reason.UNKNOWN, "it was not measured", {"query": condition.query})
    evidence = {
        "query": condition.query,
        "value": reading.value,
        "wanted": condition.comparison,
        "at": reading.at.isoformat(),
    }
    if facts.now - reading.at > pace.evidence_max_age:
        return Denied(
            Reason.STALE_EVIDENCE,
            f"measured {(facts.now - reading.at).total_seconds():.0f}s ago",
            evidence,
        )
    if reading.status is not ReadingStatus.OK or reading.value is None:
        return Denied(Reason.UNKNOWN, reading.describe(), evidence)
    if not condition.holds(reading.value):
        return Denied(
            Reason.REQUIRE,
            f"measured {reading.describe()}, wanted {condition.comparison}",
            evidence,
        )
    return None
