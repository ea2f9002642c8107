"""Facts: the snapshot of the journal, and the evidence, that the guards of one candidate look at.

Taken by admission (`engine.guards.snapshot`) inside the transaction that decides. The surprise: it
holds what was counted and no limit; the limits stand in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from remediator.engine.breaker import Standing
from remediator.engine.evidence import Evidence
from remediator.model.guard import Budget, NotWhile
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Playbook
from remediator.model.run import HeldChange, Run
from remediator.model.target import Inventory, Target
from remediator.model.verdict import Verdict
from remediator.store.controls import Blocked
from remediator.store.guarding import Other, Rejection, Row, Unanswered, Unsettled
from remediator.store.overrides import Override, Pin


@dataclass(frozen=True)
class Facts:
    """The snapshot that guards look at.

    Attributes:
        now: the database's clock in the deciding transaction.
        plan: the playbook with its templates filled in.
        mode: how far the run may go now.
        labels: of the alert.
        evidence: what was asked before; None on the cheap look before anything is asked.
        blocked: why the scope is held back, if it is.
        overrides: what people decided for this playbook here.
        pins: pinned knobs of the target.
        rejected: a person's no to this playbook for this episode of the alert.
        unanswered: its last question about this episode, when nobody answered.
        unsettled: its call in this episode that must not be sent twice, and may have come through.
        slot_run: the run that this slot of the schedule had already.
        held: open changes on the target that other playbooks hold.
        acting: the run that holds the target's slot.
        asking: the open proposal of this playbook on the target.
        actions: forward actions on the target in the action budget's window.
        last_closed: when this playbook's last run on the target ended.
        last_verdict: what that run came to.
        opened: runs opened in the window of each budget.
        others: how the playbooks stand that must leave the target alone.
        disturbed: targets on which a run acts.
        in_trouble: targets with a firing alert.
        failed_row: the last runs of this playbook on the target, when they failed.
        breaker: where the breaker stands; None where nothing acts.
        trial: the open run of this playbook in its class, while its breaker is not closed.
    """

    now: datetime
    plan: Playbook
    mode: Mode
    target: Target
    inventory: Inventory
    labels: Mapping[str, str]
    pace: Pace
    evidence: Evidence | None = None
    blocked: Blocked | None = None
    overrides: tuple[Override, ...] = ()
    pins: Mapping[str, Pin] = field(default_factory=dict)
    rejected: Rejection | None = None
    unanswered: Unanswered | None = None
    unsettled: Unsettled | None = None
    slot_run: int | None = None
    held: tuple[HeldChange, ...] = ()
    acting: Run | None = None
    asking: int | None = None
    actions: int = 0
    last_closed: datetime | None = None
    last_verdict: Verdict | None = None
    opened: Mapping[Budget, int] = field(default_factory=dict)
    others: Mapping[NotWhile, Other] = field(default_factory=dict)
    disturbed: frozenset[str] = frozenset()
    in_trouble: frozenset[str] = frozenset()
    failed_row: Row | None = None
    breaker: Standing | None = None
    trial: int | None = None

    @property
    def target_class(self) -> str:
        """What a breaker is kept for: the target's pool, or the target when it has none."""
        return self.target.pool or self.target.name

    def pool_of(self, named: str) -> tuple[str, tuple[Target, ...]]:
        """Return a pool and its targets: the named one, or the target's own.

        A target that is in no pool is a pool of one.
        """
        pool = named or self.target.pool
        if not pool:
            return self.target.name, (self.target,)
        return pool, tuple(one for one in self.inventory if one.pool == pool)
