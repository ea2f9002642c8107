"""What the API says, as models: wire types, apart from the engine's own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from remediator.model.playbook import Mode
from remediator.store.overrides import Ruling

# What both databases can count to; a larger number names nothing.
LARGEST_ID = 2**31 - 1
WEEK_S = 7 * 86400.0
YEAR_S = 365 * 86400.0
Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
# Blanks name nobody, and are no reason.
Said = StringConstraints(strip_whitespace=True, min_length=1)
By = Annotated[str, Said, Field(max_length=100)]


class Out(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(from_attributes=True)


class AlertOut(Out):
    """One episode of one alert."""

    id: int
    fingerprint: str
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime | None
    resolved_at: datetime | None
    first_seen_at: datetime
    last_seen_at: datetime
    seen: int = Field(description="How often it was received.")
    source: str = Field(description="webhook, or reconcile when a poll found it first.")


class RejectedOut(Out):
    """One body that can never be an Alertmanager webhook; it is kept in the journal."""

    id: int
    received_at: datetime
    problem: str


class DecisionOut(Out):
    """Why it did, or did not."""

    id: int
    alert_id: int | None
    playbook: str
    target: str
    admitted: bool
    reason: str
    detail: str
    evidence: dict[str, Any]
    run_id: int | None
    first_at: datetime
    last_at: datetime
    count: int = Field(description="How often it was taken: in a row, or on and off.")


class RunOut(Out):
    """One run, without its story."""

    id: int
    kind: str
    playbook: str
    playbook_sha: str
    mode: str
    priority: int
    target: str
    alert_id: int | None
    parent_id: int | None
    change_id: int | None
    state: str
    phase: str
    verdict: str | None
    reason: str
    pc: int
    due_at: datetime
    opened_at: datetime
    acted_at: datetime | None
    closed_at: datetime | None
    stop_reason: str | None


class StepOut(Out):
    """One attempt of one call: intent and outcome."""

    phase: str
    pc: int
    iteration: int
    call: str
    attempt: int
    action: str
    actuator: str
    verb: str
    args: dict[str, Any]
    why: str
    status: str
    result: dict[str, Any] | None
    error: str
    undone: bool
    idempotency_key: str
    fencing_token: int
    started_at: datetime
    ended_at: datetime | None


class MeasurementOut(Out):
    """One reading that the run kept."""

    pc: int
    role: str
    query: str
    at: datetime
    status: str
    value: float | None
    detail: str


class ChangeOut(Out):
    """What is set on a target and not given back yet, or was."""

    id: int
    target: str
    knob: str
    base: float
    value: float
    run_id: int
    playbook: str
    state: str
    reason: str
    lease_until: datetime
    renewals: int
    renewal_error: str
    created_at: datetime
    closed_at: datetime | None


class MessageOut(Out):
    """What a person was told."""

    key: str
    severity: str
    title: str
    body: str
    created_at: datetime
    sent_at: datetime | None
    attempts: int
    error: str


class DiagnosisOut(Out):
    """What the run saw when it looked."""

    pc: int = Field(description="The step that looked; -1 = before the first effect.")
    at: datetime
    seen: dict[str, Any] = Field(description="By role, query and log; an error has its words.")


class RunStory(RunOut):
    """One run with everything on record of it."""

    plan: dict[str, Any] = Field(description="The playbook with its templates filled in.")
    playbook_text: str | None = Field(description="The exact text the run pinned.")
    steps: list[StepOut]
    measurements: list[MeasurementOut]
    decisions: list[DecisionOut]
    changes: list[ChangeOut]
    messages: list[MessageOut]
    diagnoses: list[DiagnosisOut]
    approvals: list[ApprovalOut]


class AlertStory(AlertOut):
    """One alert with its decisions and runs."""

    decisions: list[DecisionOut]
    runs: list[RunOut]


class TargetOut(Out):
    """One target, with what is held on it and who acts."""

    name: str
    instance: str
    job: str
    pool: str
    actuators: dict[str, str]
    caps: dict[str, Mode] = Field(
        description="The boldest mode that the configuration allows here, by the setting."
    )
    acting: RunOut | None
    changes: list[ChangeOut]
    live: dict[str, Any] | None = Field(description="What the target says of itself just now.")
    live_error: str | None


class PlaybookOut(Out):
    """One playbook that is served."""

    name: str
    description: str
    mode: str
    priority: int
    sha256: str
    path: str
    status: str
    text: str


class PlaybookProblem(Out):
    """One problem in a playbook file."""

    path: str
    line: int
    column: int
    message: str
    hint: str


class Playbooks(Out):
    """What is served, and what is wrong."""

    playbooks: list[PlaybookOut]
    problems: list[PlaybookProblem]


class Wanted(BaseModel):
    """Base of what a person asks for: it names who and why, and says nothing we do not know."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Said, Field(max_length=500)]
    by: By


class PauseIn(Wanted):
    """A pause: a scope, a reason and an end are required."""

    scope: Literal["all", "playbook", "target", "pool", "action"] = "all"
    name: str = Field(default="", max_length=200)
    length_s: float = Field(ge=1, le=WEEK_S)


class ResumeIn(BaseModel):
    """Lifts the pauses of exactly this scope."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["all", "playbook", "target", "pool", "action"] = "all"
    name: str = Field(default="", max_length=200)
    by: By


class CancelIn(Wanted):
    """Stops a run at its next step boundary and takes back what can be."""


class StopIn(Wanted):
    """Rolls back now: every open run of the scope, and what is held in it."""

    scope: Literal["all", "playbook", "target", "pool"] = "all"
    name: str = Field(default="", max_length=200)


class KillIn(Wanted):
    """Pulls the kill switch; it stays on until somebody lifts it."""


class OverrideIn(Wanted):
    """A person's decision about guards; it always ends."""

    scope: Literal["playbook", "target", "pool"]
    name: str = Field(min_length=1, max_length=200)
    decision: Ruling
    guards: tuple[str, ...] = Field(default=(), description="Which guards, for waive.")
    length_s: float = Field(ge=1, le=WEEK_S)


class PinIn(Wanted):
    """No run moves this knob of this target."""

    target: str = Field(min_length=1, max_length=200)
    knob: str = Field(min_length=1, max_length=64)
    length_s: float | None = Field(default=None, ge=1, le=YEAR_S, description="Default: for good.")


class ModeIn(Wanted):
    """No bolder mode than this in a scope."""

    scope: Literal["all", "playbook", "target", "pool"]
    name: str = Field(default="", max_length=200)
    mode: Mode
    length_s: float | None = Field(default=None, ge=1, le=YEAR_S, description="Default: for good.")


class BreakerResetIn(Wanted):
    """What failed before now no longer counts for a playbook and a pool, or a target without."""

    playbook: str = Field(min_length=1, max_length=63)
    target: str = Field(min_length=1, max_length=200, description="A target; its pool counts.")


class DecideIn(BaseModel):
    """A person's yes, or no, to what a run asks."""

    model_config = ConfigDict(extra="forbid")

    by: By
    reason: str = Field(default="", max_length=500)


class ControlOut(Out):
    """One control in force."""

    id: int
    kind: str
    scope: str
    name: str
    value: dict[str, Any] | None
    reason: str
    by: str
    created_at: datetime
    until: datetime | None = Field(description="null = until it is lifted.")
    warning: str = Field(default="", description="What may be wrong with it, though it holds.")


class StoppedOut(Out):
    """What was asked to go back."""

    runs: list[int] = Field(description="Open runs that turn back at their next step boundary.")
    changes: list[int] = Field(description="What was held after its run, and is given back now.")


class Lifted(Out):
    """How many controls were lifted."""

    lifted: int


class ApprovalOut(Out):
    """One question to a person."""

    id: int
    run_id: int
    pc: int = Field(description="The step that asks; -1 = the run as a whole.")
    message: str
    asked_at: datetime
    expires_at: datetime
    decision: str | None
    decided_at: datetime | None
    by: str
    reason: str


class QuestionOut(ApprovalOut):
    """One question that is open, and whose it is."""

    playbook: str
    target: str
