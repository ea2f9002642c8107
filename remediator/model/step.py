"""The steps of the playbook language: one action each, and what every step can say.

Planned by `engine.actions`, one file an action. To add an action: its model here with one line in
`STEPS`, its planner there. The surprise: an action that has no undo must say what happens when
nobody can tell whether it was applied (`on_unknown`); the language's checks insist on it.
"""

from __future__ import annotations

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from remediator.model.duration import Duration
from remediator.model.spec import (
    Condition,
    Escape,
    Filled,
    MatcherText,
    Name,
    Number,
    Positive,
    PromQL,
    Spec,
    Verify,
    Whole,
    Words,
    YesNo,
)

NO_UNDO: Literal["none"] = "none"
# The name that `escalate_to` has for a human.
PERSON = "person"
HOUR = timedelta(hours=1)


class OnUnknown(StrEnum):
    """What to do when nobody can say whether a call was applied."""

    ESCALATE = "escalate"  # stop and wake a person
    PROBE = "probe"  # look; act again only if the look proves it was not applied


class Throttle(Spec):
    """Closed loop on a concurrency ceiling (rules R1-R11, docs/architecture.md)."""

    signal: PromQL = Field(description="PromQL giving the measured value, such as p95 seconds.")
    objective: Number = Field(gt=0, description="The signal must stay below this.")
    knob: str = Field(default="max_concurrency", description="The tunable that is moved.")
    min: Whole = Field(default=1, ge=1, description="Never below this.")
    max: Whole = Field(default=10, ge=1, description="Never above this.")
    throughput: PromQL | None = Field(
        default=None,
        description="PromQL giving useful work per second. A throttle that made things worse is "
        "only loosened when both this and the signal failed to improve.",
    )
    hard: Condition | None = Field(
        default=None,
        description="While this holds (memory, temperature) the ceiling is halved at once.",
    )
    sampled_at: PromQL | None = Field(
        default=None,
        description="PromQL giving when the newest sample was taken, in seconds since 1970. An "
        "older one than two scrapes, or one that stands still, moves nothing.",
    )
    window: Duration | None = Field(
        default=None,
        description="How far the signal looks back. Read from the query when left out.",
    )

    @model_validator(mode="after")
    def _bounds(self) -> Throttle:
        if self.min > self.max:
            msg = f"min {self.min} is greater than max {self.max}"
            raise ValueError(msg)
        return self


class Retune(Spec):
    """Set tunables of the target to these values, as leases."""

    set: dict[str, Number | Whole] = Field(min_length=1, description="Tunable: value.")


class Restart(Spec):
    """Drain, stop, start, wait until ready, prove that it sees, undrain."""

    drain: YesNo = Field(default=True, description="Let work in flight finish first, if it can.")
    drain_within: Duration = Field(
        default=timedelta(seconds=30), description="Do not wait longer for work in flight."
    )
    ready_within: Duration = Field(
        default=timedelta(seconds=90), description="Give up when it is not ready by then."
    )


class ShiftLoad(Spec):
    """Lower the share of traffic that a balancer gives to the target."""

    weight: Whole = Field(ge=0, le=100, description="Percent of its base weight; 0 takes it out.")
    headroom: Condition | None = Field(
        default=None,
        description="What must hold for the others before load is moved onto them (rule R10: 20% "
        "headroom). No data refuses.",
    )


class Scale(Spec):
    """Set how many replicas serve."""

    to: Whole | None = Field(default=None, ge=0, description="This many replicas.")
    add: Whole | None = Field(default=None, description="So many more, or fewer when negative.")
    min: Whole = Field(default=1, ge=0, description="Never fewer than this.")
    max: Whole = Field(default=10, ge=1, description="Never more than this.")

    @model_validator(mode="after")
    def _one_way(self) -> Scale:
        if (self.to is None) == (self.add is None):
            msg = "give exactly one of to, add"
            raise ValueError(msg)
        if self.min > self.max:
            msg = f"min {self.min} is greater than max {self.max}"
            raise ValueError(msg)
        if self.to is not None and not self.min <= self.to <= self.max:
            msg = f"to {self.to} is not between min {self.min} and max {self.max}"
            raise ValueError(msg)
        return self


class ClearCache(Spec):
    """Give back memory that the target only keeps for speed."""


class Silence(Spec):
    """Silence the alert in Alertmanager for a short while, tagged with the run."""

    length: Positive = Field(
        default=timedelta(minutes=30), alias="for", description="At most 4h; it ends by itself."
    )
    matchers: tuple[MatcherText, ...] = Field(
        default=(),
        description="What is silenced; by default exactly this alert's alertname and instance.",
    )
    comment: Words = Field(default="", description="Shown in Alertmanager beside the run.")


def _check_json(body: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        json.dumps(body, allow_nan=False)
    except ValueError as error:
        msg = "a number in it is not finite"
        raise ValueError(msg) from error
    return body


class HttpCall(Spec):
    """One call of a named endpoint; its host, headers and secrets stand in the configuration."""

    endpoint: Name = Field(description="A name under `endpoints` in the configuration.")
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(
        default="POST", description="How it is called."
    )
    path: Annotated[str, Filled(Escape.URL)] = Field(
        default="", description="Appended to the endpoint's URL; values are percent-encoded."
    )
    body: Annotated[dict[str, Any] | None, Filled(Escape.PLAIN), AfterValidator(_check_json)] = (
        Field(default=None, description="Sent as JSON.")
    )
    idempotent: YesNo = Field(
        default=False, description="The endpoint collapses repeats of one Idempotency-Key."
    )


class Command(Spec):
    """One program of the controller's own allowlist; never a shell."""

    run: Name = Field(description="A name under `commands` in the configuration.")
    arguments: Annotated[dict[str, str], Filled(Escape.PLAIN)] = Field(
        default_factory=dict,
        description="Values for the `{placeholders}` of its argv, each one argument.",
    )
    idempotent: YesNo = Field(default=False, description="Running it twice does no harm.")


class Check(Condition):
    """Go on only when this holds; no data fails the step."""

    within: Duration = Field(default=timedelta(), description="Wait this long for it to hold.")
    hold: Duration = Field(
        default=timedelta(), alias="for", description="How long it must stay good."
    )
    every: Positive = Field(default=timedelta(seconds=15), description="How often to measure.")


class Approve(Spec):
    """Ask a person, and wait without holding the target's slot."""

    message: Words = Field(min_length=1, description="What they are asked.")
    within: Positive = Field(default=timedelta(minutes=30), description="How long it is open.")
    on_timeout: str = Field(
        default="escalate", description="escalate, stop, continue, or the name of a later step."
    )
    on_reject: str = Field(
        default="stop", description="escalate, stop, continue, or the name of a later step."
    )


class Notify(Spec):
    """Tell a person."""

    message: Words = Field(min_length=1, description="What they are told.")
    severity: Literal["info", "warning", "critical"] = Field(
        default="info", description="How loudly."
    )


class Diagnose(Spec):
    """Look, change nothing, and keep what was seen with the run."""

    queries: dict[str, PromQL] = Field(
        default_factory=dict, description="Name: PromQL, measured and kept."
    )
    log_lines: Whole = Field(
        default=50, ge=0, le=500, description="Last lines of the target's log."
    )


class Step(Spec):
    """What every step has; each kind adds its action."""

    name: Words = Field(default="", description="Shown in the run; defaults to the action.")
    when: Condition | None = Field(
        default=None,
        alias="if",
        description="Do the step only while this holds, else skip it; no data fails it.",
    )
    timeout: Positive = Field(
        default=timedelta(seconds=10), description="Longest wait for the answer to one call."
    )
    retries: Whole = Field(
        default=2, ge=0, le=10, description="Further tries of a call that was provably not applied."
    )
    on_unknown: OnUnknown = OnUnknown.ESCALATE
    verify: Verify | None = Field(
        default=None,
        description="The proof that it helped; only for a step that changes something.",
    )


class ChangeStep(Step):
    """A step whose change is a lease on the target."""

    lease: Duration = Field(
        default=timedelta(minutes=15),
        description="The target takes the value back by itself unless we renew.",
    )


class ThrottleStep(ChangeStep):
    """`throttle:` lower a ceiling by measured ratio until the objective is met."""

    throttle: Throttle


class RetuneStep(ChangeStep):
    """`retune:` set tunables, leased."""

    retune: Retune


class ShiftLoadStep(ChangeStep):
    """`shift_load:` give the target less traffic, leased."""

    shift_load: ShiftLoad


class ScaleStep(ChangeStep):
    """`scale:` change how many replicas serve, leased."""

    scale: Scale


class RestartStep(Step):
    """`restart:` restart the target through its process manager. It has no undo."""

    restart: Restart
    undo: Literal["none"] = Field(default=NO_UNDO, description="A restart cannot be undone.")


class ClearCacheStep(Step):
    """`clear_cache:` drop caches. It has no undo."""

    clear_cache: ClearCache
    undo: Literal["none"] = Field(default=NO_UNDO, description="What was cached is gone.")


class SilenceStep(Step):
    """`silence:` silence the alert; undone by ending the silence."""

    silence: Silence


class HttpStep(Step):
    """`http:` call a named endpoint."""

    http: HttpCall
    undo: HttpCall | Literal["none"] = Field(description="The call that takes it back, or none.")


class CommandStep(Step):
    """`command:` run a program of the allowlist."""

    command: Command
    undo: Command | Literal["none"] = Field(description="What takes it back, or none.")


class CheckStep(Step):
    """`check:` go on only when a condition holds."""

    check: Check


class WaitStep(Step):
    """`wait:` let time pass; never shorter, also across a restart of the controller."""

    wait: Positive


class ApproveStep(Step):
    """`approve:` a person decides whether the run goes on."""

    approve: Approve


class NotifyStep(Step):
    """`notify:` tell a person; always at least once, with a stable key."""

    notify: Notify


class DiagnoseStep(Step):
    """`diagnose:` look and keep what was seen; changes nothing."""

    diagnose: Diagnose


class EscalateStep(Step):
    """`escalate_to:` reached only when a step before it failed; a playbook's name or `person`."""

    escalate_to: str = Field(description="The playbook that follows, or person.")


STEPS: dict[str, type[Step]] = {
    "throttle": ThrottleStep,
    "retune": RetuneStep,
    "restart": RestartStep,
    "shift_load": ShiftLoadStep,
    "scale": ScaleStep,
    "clear_cache": ClearCacheStep,
    "silence": SilenceStep,
    "http": HttpStep,
    "command": CommandStep,
    "check": CheckStep,
    "wait": WaitStep,
    "approve": ApproveStep,
    "notify": NotifyStep,
    "diagnose": DiagnoseStep,
    "escalate_to": EscalateStep,
}
ACTION_KINDS = tuple(STEPS)


def action_kind(value: Any) -> str | None:
    """Return which action a mapping or model is, or None."""
    if isinstance(value, dict):
        return next((kind for kind in ACTION_KINDS if kind in value), None)
    return next((kind for kind in ACTION_KINDS if hasattr(value, kind)), None)


AnyStep = Annotated[
    Annotated[ThrottleStep, Tag("throttle")]
    | Annotated[RetuneStep, Tag("retune")]
    | Annotated[RestartStep, Tag("restart")]
    | Annotated[ShiftLoadStep, Tag("shift_load")]
    | Annotated[ScaleStep, Tag("scale")]
    | Annotated[ClearCacheStep, Tag("clear_cache")]
    | Annotated[SilenceStep, Tag("silence")]
    | Annotated[HttpStep, Tag("http")]
    | Annotated[CommandStep, Tag("command")]
    | Annotated[CheckStep, Tag("check")]
    | Annotated[WaitStep, Tag("wait")]
    | Annotated[ApproveStep, Tag("approve")]
    | Annotated[NotifyStep, Tag("notify")]
    | Annotated[DiagnoseStep, Tag("diagnose")]
    | Annotated[EscalateStep, Tag("escalate_to")],
    Discriminator(action_kind),
]


def kind_of(step: AnyStep) -> str:
    """Return the action of a step: one of `ACTION_KINDS`."""
    return str(action_kind(step))


def knobs_of(step: AnyStep) -> frozenset[str]:
    """Return the knobs that a step moves; a balancer's is `weight`, a scaler's `replicas`."""
    match step:
        case ThrottleStep():
            return frozenset({step.throttle.knob})
        case RetuneStep():
            return frozenset(step.retune.set)
        case ShiftLoadStep():
            return frozenset({"weight"})
        case ScaleStep():
            return frozenset({"replicas"})
        case _:
            return frozenset()
