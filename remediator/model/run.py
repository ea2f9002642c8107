"""A run as a value, and the one table of how its state may change.

Read by everyone; changed only by `store.runs`, which refuses a transition that is not in
`TRANSITIONS`. The surprise: `state` says how a run ended and `verdict` says what it did; a run can
succeed and still have changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from remediator.model.playbook import Mode
from remediator.model.verdict import Reading, Verdict


class RunState(StrEnum):
    """How a run stands, or how it ended."""

    ACTING = "acting"  # it may send effects
    WAITING = "waiting"  # it waits for time or for the next measurement; a row with due_at
    ROLLING_BACK = "rolling_back"  # it takes back what it did
    SUCCEEDED = "succeeded"  # every step did what it should
    FAILED = "failed"  # a step did not; whatever is still held lives on as a change
    ROLLED_BACK = "rolled_back"  # it made things worse, or was stopped, and was taken back
    ROLLBACK_FAILED = "rollback_failed"  # taking it back failed: a person is told
    CANCELLED = "cancelled"  # stopped with nothing left to take back

    @property
    def is_open(self) -> bool:
        """Say whether the run can still go on."""
        return self in OPEN_STATES


OPEN_STATES = (RunState.ACTING, RunState.WAITING, RunState.ROLLING_BACK)

# The one place that says which state may follow which; docs/architecture.md draws it from here.
TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.ACTING: frozenset(
        {
            RunState.ACTING,
            RunState.WAITING,
            RunState.ROLLING_BACK,
            RunState.SUCCEEDED,
            RunState.FAILED,
            RunState.CANCELLED,
        }
    ),
    RunState.WAITING: frozenset(
        {
            RunState.ACTING,
            RunState.WAITING,
            RunState.ROLLING_BACK,
            RunState.SUCCEEDED,
            RunState.FAILED,
            RunState.CANCELLED,
        }
    ),
    RunState.ROLLING_BACK: frozenset(
        {RunState.ROLLING_BACK, RunState.ROLLED_BACK, RunState.ROLLBACK_FAILED}
    ),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.ROLLED_BACK: frozenset(),
    RunState.ROLLBACK_FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


class RunKind(StrEnum):
    """Why the run exists."""

    REMEDY = "remedy"  # an alert's playbook
    RESTORE = "restore"  # gives back, step by step, what a remedy changed


class Phase(StrEnum):
    """Which way a run goes."""

    FORWARD = "forward"
    ROLLBACK = "rollback"


class StepStatus(StrEnum):
    """What is known of one attempt of one call."""

    STARTED = "started"  # the intent is on record; it may have been sent
    OK = "ok"  # the target confirmed it
    FAILED = "failed"  # definitely not applied, and trying again will not help
    NOT_SENT = "not_sent"  # definitely not applied; may be tried again
    UNKNOWN = "unknown"  # nobody can say


@dataclass(frozen=True)
class Run:
    """One execution of one pinned playbook on one target.

    Attributes:
        plan: the playbook with every template filled in, as JSON.
        pc: index of the step it is at.
        epoch: raised at every claim; a write that carries an older one is refused.
        fencing_token: grows per target; sent with every effect.
        holds_slot: whether it is the one run acting on its target.
        proposed: it began as a proposal; `mode` is auto from its approval on.
        pool: the target's pool when the run was opened.
        stop_reason: why it was asked to stop; honoured at the next step boundary.
    """

    id: int
    kind: RunKind
    playbook: str
    playbook_sha: str
    plan: dict[str, Any]
    mode: Mode
    proposed: bool
    priority: int
    target: str
    pool: str
    alert_id: int | None
    parent_id: int | None
    change_id: int | None
    state: RunState
    phase: Phase
    verdict: Verdict | None
    reason: str
    pc: int
    due_at: datetime
    owner: str | None
    epoch: int
    lease_until: datetime | None
    fencing_token: int
    holds_slot: bool
    stop_reason: str | None
    step_started_at: datetime | None
    opened_at: datetime
    acted_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True)
class StepRow:
    """One attempt of one call of one step: the intent, and the outcome once it is known."""

    id: int
    run_id: int
    phase: Phase
    pc: int
    iteration: int
    call: str
    attempt: int
    action: str
    actuator: str
    verb: str
    args: dict[str, Any]
    before: dict[str, Any]
    undo: dict[str, Any] | None
    undone: bool
    why: str
    idempotency_key: str
    fencing_token: int
    epoch: int
    status: StepStatus
    result: dict[str, Any] | None
    error: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Measured:
    """A reading that a run kept, and what for."""

    pc: int
    role: str
    reading: Reading


class Decided(StrEnum):
    """What became of a question to a person. The first decision wins."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"  # nobody answered in time


# Where a proposal asks: before the first step.
PROPOSAL = -1


@dataclass(frozen=True)
class ApprovalRow:
    """A question to a person, and the answer once there is one.

    Attributes:
        pc: the step that asks; `PROPOSAL` for the run as a whole.
        decision: None while it is open.
        by: who decided, and with which words (`reason`).
    """

    id: int
    run_id: int
    pc: int
    message: str
    asked_at: datetime
    expires_at: datetime
    decision: Decided | None
    decided_at: datetime | None
    by: str
    reason: str


@dataclass(frozen=True)
class History:
    """All that the journal knows of a run: what the next move is decided from.

    Attributes:
        steps: attempts, oldest first.
        measurements: oldest first.
        approvals: questions to a person.
        diagnosed: the steps that have looked already (`PROPOSAL` = before the first).
    """

    steps: tuple[StepRow, ...]
    measurements: tuple[Measured, ...]
    approvals: tuple[ApprovalRow, ...] = ()
    diagnosed: frozenset[int] = frozenset()

    def approval(self, pc: int) -> ApprovalRow | None:
        """Return the question that a step asked, or None."""
        return next((row for row in self.approvals if row.pc == pc), None)

    def attempts(self, phase: Phase, pc: int, iteration: int, call: str) -> tuple[StepRow, ...]:
        """Return the attempts of one call, oldest first."""
        return tuple(
            row
            for row in self.steps
            if (row.phase, row.pc, row.iteration, row.call) == (phase, pc, iteration, call)
        )

    def readings(self, pc: int, role: str) -> tuple[Reading, ...]:
        """Return the readings of one step taken for one purpose, oldest first."""
        return tuple(m.reading for m in self.measurements if m.pc == pc and m.role == role)


@dataclass(frozen=True)
class HeldChange:
    """What a run changed and has not given back: it lives on after the run.

    Attributes:
        base: the value to give back to.
        value: the value now.
        priority: of the playbook that holds it: a less important one leaves it alone.
        reverts_itself: the target takes the value back when the lease lapses; a balancer does not.
        restore: how it is given back, as JSON; None = the lease is left to lapse.
        restore_interval_s: seconds between two restore steps; doubled when one is undone.
    """

    id: int
    target: str
    mode: Mode
    knob: str
    base: float
    value: float
    actuator: str
    run_id: int
    alert_id: int | None
    playbook: str
    playbook_sha: str
    priority: int
    reverts_itself: bool
    restore: dict[str, Any] | None
    restore_interval_s: float | None
    state: str
    reason: str
    fencing_token: int
    lease_s: float
    lease_until: datetime
    renew_at: datetime
    renewals: int
    renewal_error: str
    created_at: datetime
    stepped_back_at: datetime | None
    closed_at: datetime | None
