"""What a file of playbook tests says: pydantic models of `remediator test`'s files.

Read by `reading`, played by `stage`, compared by `expectations`. The surprise: what is not expected
is not compared, but a list that is expected is the whole list: an action too many fails a test.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from remediator.model.decision import Reason
from remediator.model.duration import Duration
from remediator.model.playbook import Mode
from remediator.model.run import RunKind, RunState
from remediator.model.spec import MatcherText, Positive, Spec
from remediator.model.verdict import Verdict
from remediator.rehearsal.series import metric_of, samples_of

HALF_AN_HOUR = timedelta(minutes=30)
LONGEST = timedelta(hours=24)
# PromQL's own clock begins here in promtool, so `time()` and the controller agree.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _check_series(text: str) -> str:
    metric_of(text)
    return text


def _check_values(text: str) -> str:
    samples_of(text)
    return text


def _check_length(length: timedelta) -> timedelta:
    if length > LONGEST:
        msg = "is longer than a day"
        raise ValueError(msg)
    return length


At = Annotated[Duration, AfterValidator(_check_length)]
Text = Annotated[str, Field(min_length=1)]


class SeriesSpec(Spec):
    """One series, in promtool's notation."""

    series: Annotated[str, AfterValidator(_check_series)] = Field(
        description="Name and labels, as PromQL writes them."
    )
    values: Annotated[str, AfterValidator(_check_values)] = Field(
        description="One sample an interval: 0.2x8 0.6x40 _ stale."
    )


class TargetSpec(Spec):
    """One target of the inventory, and what it is like when a test begins."""

    instance: str = Field(default="", description="Its `instance` label; by default its name.")
    job: str = Field(default="", description="Its `job` label.")
    pool: str = Field(default="", description="Targets that can stand in for each other.")
    mode: Mode | None = Field(default=None, description="No playbook goes further here.")
    settings: dict[str, float | int] = Field(
        default={"max_concurrency": 10}, description="Its tunables and their base."
    )
    process: bool = Field(default=True, description="Whether a process manager runs it.")
    weight: int | None = Field(
        default=None, ge=0, description="Its weight at a balancer; without one it has none."
    )
    replicas: int | None = Field(
        default=None, ge=0, description="How many replicas serve; without one nothing scales it."
    )


class AlertSpec(Spec):
    """An alert that Alertmanager sends."""

    at: At = Field(default=timedelta(), description="When it arrives.")
    labels: dict[str, str] = Field(min_length=1, description="All its labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="All its annotations.")
    until: At | None = Field(default=None, description="When it is resolved; never when left out.")

    @model_validator(mode="after")
    def _in_order(self) -> AlertSpec:
        if self.until is not None and self.until <= self.at:
            msg = "until must be later than at"
            raise ValueError(msg)
        return self


class Outcome(StrEnum):
    """What a call comes to."""

    OK = "ok"  # applied, and the caller is told so
    FAILS = "fails"  # not applied, and trying again will not help
    NOT_NOW = "not_now"  # not applied; may be tried again
    REFUSES = "refuses"  # the target says no, with a named reason
    HANGS = "hangs"  # no answer before the timeout; not applied
    UNKNOWN_APPLIED = "unknown_applied"  # no answer, but it was applied
    UNKNOWN_NOT_APPLIED = "unknown_not_applied"  # no answer, and it was not applied


APPLIED = frozenset({Outcome.OK, Outcome.UNKNOWN_APPLIED})


class Behaviour(Spec):
    """What calls of one kind come to; each answers as often as it says, in the order written."""

    call: Text = Field(description="The verb: set, release, stop, start, drain, canary, ...")
    target: str = Field(default="", description="Only on this target.")
    role: str = Field(default="", description="Only through this: settings, process, balancer, ...")
    times: int | None = Field(default=1, ge=1, description="So many calls; null = all of them.")
    outcome: Outcome = Field(default=Outcome.OK, description="What the call comes to.")
    reason: str = Field(default="invalid", description="Why the target refuses, such as pinned.")
    effect: tuple[SeriesSpec, ...] = Field(
        default=(), description="What is scraped from then on, when it was applied."
    )
    after: At = Field(default=timedelta(), description="So long after the call the effect begins.")

    @property
    def named(self) -> str:
        """The calls it is about."""
        role = f" ({self.role})" if self.role else ""
        return f"{self.call}{role} on {self.target or 'any target'}"


class Becomes(StrEnum):
    """What may happen to a target by itself."""

    RUNNING = "running"  # its process is started anew
    STOPPED = "stopped"  # its process is gone
    HUNG = "hung"  # its process runs and answers nobody
    UNREACHABLE = "unreachable"  # neither it nor its process manager answers
    REACHABLE = "reachable"  # they answer again
    BLIND = "blind"  # its canary does not see any more
    SEEING = "seeing"  # it does


class Event(Spec):
    """What happens to a target without us."""

    at: At = Field(default=timedelta(), description="When.")
    target: Text = Field(description="To which target.")
    becomes: Becomes | None = Field(default=None, description="What it becomes.")
    pin: str | None = Field(default=None, description="A person pins this tunable at the target.")
    effect: tuple[SeriesSpec, ...] = Field(default=(), description="What is scraped from then on.")

    @model_validator(mode="after")
    def _something(self) -> Event:
        if self.becomes is None and self.pin is None and not self.effect:
            msg = "says nothing that happens: give becomes, pin or effect"
            raise ValueError(msg)
        return self


class SilenceSpec(Spec):
    """A silence that a person makes in Alertmanager."""

    at: At = Field(default=timedelta(), description="When.")
    until: At | None = Field(default=None, description="When it ends; not when left out.")
    matchers: tuple[MatcherText, ...] = Field(min_length=1, description="What it silences.")
    by: Text = Field(default="ann", description="Who.")


VERBS = ("pause", "resume", "stop", "kill", "cancel", "approve", "reject")


class Control(Spec):
    """What a person does through the controller."""

    at: At = Field(default=timedelta(), description="When.")
    pause: str | None = Field(default=None, description="A scope: all, playbook:X, target:X, ...")
    resume: str | None = Field(default=None, description="A scope.")
    stop: str | None = Field(default=None, description="A scope: its runs roll back now.")
    kill: bool | None = Field(default=None, description="The kill switch, on or off.")
    cancel: str | None = Field(default=None, description="The open runs of this playbook.")
    approve: str | None = Field(default=None, description="What this playbook asks.")
    reject: str | None = Field(default=None, description="What this playbook asks.")
    length: Positive = Field(
        default=timedelta(hours=1), alias="for", description="How long a pause lasts."
    )
    by: Text = Field(default="ann", description="Who.")
    reason: Text = Field(default="a rehearsal", description="Why.")

    @model_validator(mode="after")
    def _one_verb(self) -> Control:
        if sum(getattr(self, verb) is not None for verb in VERBS) != 1:
            msg = f"give exactly one of {', '.join(VERBS)}"
            raise ValueError(msg)
        return self


Says = TypeVar("Says", bound=Spec)


def _says_something(expected: Says) -> Says:
    values = (getattr(expected, name) for name in type(expected).model_fields)
    # An empty list of actions expects that there are none; an empty mapping expects nothing.
    if all(value is None or value == {} for value in values):
        msg = f"expects nothing; give one of {', '.join(type(expected).model_fields)}"
        raise ValueError(msg)
    return expected


class ExpectedDecision(Spec):
    """A decision about an alert: a run, or why not."""

    decision: Reason = Field(description="admitted, or the reason of a denial.")
    playbook: str = Field(default="", description="Whose.")
    target: str | None = Field(default=None, description="About which target.")
    detail: str = Field(default="", description="What the sentence for people holds.")
    at: At | None = Field(default=None, description="When it was first decided so.")


class ExpectedRun(Spec):
    """A run: how it ended, and what it did."""

    playbook: Text = Field(description="Which playbook.")
    kind: RunKind = Field(default=RunKind.REMEDY, description="remedy, or restore.")
    target: str | None = Field(default=None, description="On which target.")
    mode: Mode | None = Field(default=None, description="observe, propose or auto.")
    state: RunState | None = Field(default=None, description="How it stands at the end.")
    verdict: Verdict | Literal["none"] | None = Field(default=None, description="What it did.")
    reason: str = Field(default="", description="What its reason holds.")
    at: At | None = Field(default=None, description="When it was opened.")


class ExpectedAction(Spec):
    """A call that arrived at a target; renewals of a lease are upkeep and not listed."""

    call: Text = Field(description="The verb.")
    target: str | None = Field(default=None, description="At which target.")
    role: str | None = Field(default=None, description="Through which role.")
    args: dict[str, Any] = Field(
        default_factory=dict, description="Arguments it had, among others."
    )
    outcome: Outcome | None = Field(default=None, description="What it came to.")
    at: At | None = Field(default=None, description="When.")


class ExpectedMessage(Spec):
    """What a person was told."""

    title: Text = Field(description="What the title holds.")
    severity: Literal["info", "warning", "critical"] | None = Field(
        default=None, description="How loud."
    )
    at: At | None = Field(default=None, description="When.")


class ExpectedTarget(Spec):
    """What a target is like at the end."""

    settings: dict[str, float | int] = Field(default_factory=dict, description="Tunables.")
    process: Literal["running", "stopped", "hung"] | None = Field(
        default=None, description="What its process is like."
    )
    draining: bool | None = Field(default=None, description="Whether it refuses new work.")
    weight: float | None = Field(default=None, description="Its weight at the balancer.")
    replicas: int | None = Field(default=None, description="How many replicas serve.")

    @model_validator(mode="after")
    def _something(self) -> ExpectedTarget:
        return _says_something(self)


class Expected(Spec):
    """What must have come of it; what is left out is not compared."""

    decisions: Annotated[tuple[ExpectedDecision, ...], Field(min_length=1)] | None = Field(
        default=None, description="These, in this order; others may lie between them."
    )
    runs: tuple[ExpectedRun, ...] | None = Field(
        default=None, description="Exactly these, in the order in which they were opened."
    )
    actions: tuple[ExpectedAction, ...] | None = Field(
        default=None, description="Exactly these, in this order."
    )
    would: tuple[ExpectedAction, ...] | None = Field(
        default=None, description="Exactly these a run in mode observe would have taken."
    )
    messages: tuple[ExpectedMessage, ...] | None = Field(
        default=None, description="Exactly these, in this order."
    )
    targets: dict[str, ExpectedTarget] = Field(
        default_factory=dict, description="What they are like at the end."
    )

    @model_validator(mode="after")
    def _something(self) -> Expected:
        return _says_something(self)


class Scene(Spec):
    """One test: what happens, and what must come of it."""

    name: Text = Field(description="The promise, as a sentence.")
    length: Annotated[Positive, AfterValidator(_check_length)] = Field(
        default=HALF_AN_HOUR, description="How long it is played."
    )
    input_series: tuple[SeriesSpec, ...] = Field(default=(), description="What is scraped.")
    alerts: tuple[AlertSpec, ...] = Field(default=(), description="What Alertmanager sends.")
    alerts_from_rules: bool = Field(
        default=False, description="Alertmanager sends what `rule_files` fire, too."
    )
    events: tuple[Event, ...] = Field(default=(), description="What happens to targets.")
    actuators: tuple[Behaviour, ...] = Field(
        default=(), description="What calls come to; all others are ok."
    )
    silences: tuple[SilenceSpec, ...] = Field(default=(), description="What people silence.")
    controls: tuple[Control, ...] = Field(default=(), description="What people do.")
    expect: Expected = Field(description="What must come of it.")


class Script(Spec):
    """A file of tests."""

    playbooks: tuple[Text, ...] = Field(
        min_length=1, description="Files or folders, seen from this file."
    )
    rule_files: tuple[Text, ...] = Field(
        default=(), description="Prometheus rules, seen from this file."
    )
    interval: Positive = Field(
        default=timedelta(seconds=15), description="Between two scrapes, and two evaluations."
    )
    series: dict[str, tuple[SeriesSpec, ...]] = Field(
        default_factory=dict,
        description="Named series: the name stands for them in `input_series` and `effect`.",
    )
    start: datetime = Field(
        default=EPOCH,
        description="The controller's time at the first sample; PromQL's own is 1970 always.",
    )
    modes: dict[str, Mode] = Field(
        default_factory=dict, description="Playbook: how far it goes here, instead of its own mode."
    )
    inventory: dict[str, TargetSpec] = Field(min_length=1, description="The known targets.")
    tests: tuple[Scene, ...] = Field(min_length=1, description="What is tested.")

    @model_validator(mode="after")
    def _aware(self) -> Script:
        if self.start.tzinfo is None:
            msg = "start needs a time zone, such as 2026-03-29T00:30:00Z"
            raise ValueError(msg)
        return self
