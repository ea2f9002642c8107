"""What a run may do next, as values; and what the decision is made from.

Each action in `engine.actions` is a pure function `Progress -> Move`; the runner carries the move
out and asks again. The surprise: nothing is remembered between two moves but the journal, so a run
that another process takes over goes on exactly where the rows say it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from remediator.model.pace import Pace
from remediator.model.playbook import Playbook
from remediator.model.run import ApprovalRow, HeldChange, History, Phase, Run, StepRow, StepStatus
from remediator.model.step import AnyStep
from remediator.model.target import Target
from remediator.model.verdict import Verdict
from remediator.store.database import Tx

# The roles that an actuator can have for a target.
SETTINGS = "settings"  # the service's own tunables
PROCESS = "process"  # its process manager
BALANCER = "balancer"  # whoever sends it traffic
SCALER = "scaler"  # whoever decides how many replicas serve
SILENCES = "silences"  # Alertmanager
ENDPOINTS = "endpoints"  # named HTTP endpoints of the configuration
COMMANDS = "commands"  # named programs of the configuration

# A piece of a transaction that is carried out together with the record of an outcome.
InTx = Callable[[Tx, Run], object]


def knobs_of(args: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the knobs that a call with these arguments moves."""
    return (*args.get("values", ()), *([args["knob"]] if "knob" in args else ()))


class Result(StrEnum):
    """What finally came of one call, over all its attempts."""

    OK = "ok"
    FAILED = "failed"  # definitely not applied
    UNKNOWN = "unknown"  # nobody could say, and nobody may try again


@dataclass(frozen=True)
class Measure:
    """Ask Prometheus now and keep the answer under `role`."""

    role: str
    query: str


@dataclass(frozen=True)
class MeasureBaseline:
    """Ask what the signal was before anything is done."""

    query: str
    length: timedelta


@dataclass(frozen=True)
class Inspect:
    """Read the present state of the target through one of its actuators."""

    role: str


@dataclass(frozen=True)
class Send:
    """Send one call, unless the journal shows that it was settled already.

    Attributes:
        call: its name within the step; with `iteration` it names the call for good.
        idempotent: the target collapses repeats of one key, so an unknown outcome may be re-sent.
        undo: verb and args that take it back; `lasting` says whether it is a setting that lives
            on as a change (True) or something half-done that must not stay (False).
        counts: a new forward action, which pause and budget may hold back.
        retries: further tries of it; None = as many as the step allows.
        on_ok: written in the transaction that records the success.
    """

    call: str
    role: str
    verb: str
    args: Mapping[str, Any]
    why: str
    idempotent: bool
    pc: int
    iteration: int = 0
    phase: Phase = Phase.FORWARD
    undo: Mapping[str, Any] | None = None
    counts: bool = True
    retries: int | None = None
    on_ok: InTx | None = None


@dataclass(frozen=True)
class Diagnose:
    """Look at everything, change nothing, and keep what was seen under this step.

    Attributes:
        pc: the step that looks; `PROPOSAL` for the look before a run's first effect.
        queries: name: PromQL.
        log_lines: how many last lines of the target's log.
        within: what has not answered by then is left out, and the record says so.
    """

    pc: int
    queries: Mapping[str, str]
    log_lines: int
    within: timedelta


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`: let the run wait as a row."""

    until: datetime
    why: str
    release_slot: bool = False


@dataclass(frozen=True)
class Ask:
    """Ask a person and wait, without the slot, until somebody decides or nobody did in time.

    Attributes:
        pc: the step that asks; `PROPOSAL` for the run as a whole.
    """

    pc: int
    message: str
    within: timedelta


@dataclass(frozen=True)
class Readmit:
    """Somebody decided that it goes on: ask the guards again, and take the slot.

    Attributes:
        answer: the question with its decision.
    """

    answer: ApprovalRow


@dataclass(frozen=True)
class Record:
    """Nothing is to be done any more about something: write that down, and go on.

    Attributes:
        write: checks by itself that the run is still ours.
    """

    write: InTx


@dataclass(frozen=True)
class Halt:
    """The run ends here, as if it had been asked to stop for this reason."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The step is done; the verdict is None when it did not verify anything.

    Attributes:
        goto: the step that comes next, when it is not the one that follows.
    """

    verdict: Verdict | None
    reason: str
    on_close: InTx | None = None
    goto: int | None = None


@dataclass(frozen=True)
class Failed:
    """The step failed; `roll_back` when it made things worse."""

    verdict: Verdict | None
    reason: str
    roll_back: bool = False


Move = (
    Measure
    | MeasureBaseline
    | Inspect
    | Diagnose
    | Send
    | Wait
    | Ask
    | Readmit
    | Record
    | Halt
    | Done
    | Failed
)


@dataclass(frozen=True)
class Progress:
    """Everything the next move is decided from.

    Attributes:
        plan: the playbook with its templates filled in.
        now: the database's clock.
        view: what was just read of the target, by role; an `error` key when it could not be read.
        labels: of the run's alert: data, to be compared and never interpreted.
        alert_since: since when the run's alert fires; None when it does not.
        last_closed: when this playbook's run before this one ended on the target.
        change: the change a restore run gives back.
        held: the open changes on the target, and those given back in the last hour.
        pins: the knobs of the target that a person keeps: no run moves them, not even back.
        unreadable: why the run's own playbook cannot be read, and `plan` stands in for it.
    """

    run: Run
    plan: Playbook
    target: Target
    history: History
    now: datetime
    pace: Pace
    view: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    alert_since: datetime | None = None
    last_closed: datetime | None = None
    change: HeldChange | None = None
    held: tuple[HeldChange, ...] = ()
    pins: frozenset[str] = frozenset()
    unreadable: str = ""

    @property
    def step(self) -> AnyStep:
        """The step the run is at."""
        return self.plan.steps[self.run.pc]

    @property
    def step_started_at(self) -> datetime:
        """When the run came to this step."""
        return self.run.step_started_at or self.run.opened_at

    def attempts(
        self, call: str, iteration: int = 0, *, phase: Phase = Phase.FORWARD, pc: int | None = None
    ) -> tuple[StepRow, ...]:
        """Return the attempts of one call, oldest first."""
        place = self.run.pc if pc is None else pc
        return self.history.attempts(phase, place, iteration, call)

    def result(
        self,
        call: str,
        iteration: int = 0,
        *,
        phase: Phase = Phase.FORWARD,
        pc: int | None = None,
        retries: int | None = None,
    ) -> Result | None:
        """Return what finally came of a call, or None while it is not settled."""
        rows = self.attempts(call, iteration, phase=phase, pc=pc)
        if not rows:
            return None
        last = rows[-1]
        if last.status is StepStatus.OK:
            return Result.OK
        # One attempt that may have been applied outweighs later ones that were not.
        unsure = any(row.status is StepStatus.UNKNOWN for row in rows[:-1])
        failed = Result.UNKNOWN if unsure else Result.FAILED
        if last.status is StepStatus.FAILED:
            return failed
        if last.status is StepStatus.NOT_SENT:
            allowed = self.step.retries if retries is None else retries
            return failed if len(rows) > allowed else None
        given_up = (last.result or {}).get("given_up", False)
        return Result.UNKNOWN if given_up else None

    def last_ok(self) -> datetime | None:
        """Return when the newest effect of this step was confirmed."""
        times = [
            row.ended_at
            for row in self.history.steps
            if row.pc == self.run.pc
            and row.phase is Phase.FORWARD
            and row.status is StepStatus.OK
            and row.ended_at is not None
        ]
        return max(times, default=None)

    def iterations(self, call: str) -> tuple[StepRow, ...]:
        """Return the confirmed attempts of a call that is repeated, one per iteration."""
        return tuple(
            row
            for row in self.history.steps
            if row.pc == self.run.pc
            and row.phase is Phase.FORWARD
            and row.call == call
            and row.status is StepStatus.OK
        )

    def why_failed(self, call: str, iteration: int = 0) -> str:
        """Return what the last attempt of a call said."""
        rows = self.attempts(call, iteration)
        return rows[-1].error if rows else ""
