"""The playbook language as frozen models: what a valid playbook may say.

`language.loader` builds these from YAML and turns their complaints into file:line:column;
the engine reads them and never sees YAML. The surprise: one model serves both as written (strings
may hold `${{ }}`) and as pinned by a run (the same document with every template filled in), so
that a run can be read back years later without the alert that filled it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from remediator.model.duration import Duration
from remediator.model.labels import Matcher, match_all

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"


class PromQLMark:
    """Marks a string field as PromQL: templates in it are escaped, and lint parses it."""


def _check_matcher(text: str) -> str:
    Matcher.parse(text)
    return text


def _check_positive(length: timedelta) -> timedelta:
    if length <= timedelta():
        msg = "must be longer than 0s"
        raise ValueError(msg)
    return length


Positive = Annotated[Duration, AfterValidator(_check_positive)]
PromQL = Annotated[str, PromQLMark(), Field(min_length=1)]
MatcherText = Annotated[str, AfterValidator(_check_matcher)]
Scalar = float | int | bool | str


class Spec(BaseModel):
    """Base of every model here: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mode(StrEnum):
    """How far a playbook may go by itself."""

    OBSERVE = "observe"  # walk the whole path, send nothing, record what would have been sent
    AUTO = "auto"  # act


class OnUnknown(StrEnum):
    """What to do when nobody can say whether a call was applied."""

    ESCALATE = "escalate"  # stop and wake a person
    PROBE = "probe"  # look; act again only if the look proves it was not applied


class BudgetScope(StrEnum):
    """Whose runs a budget counts."""

    PLAYBOOK = "playbook"  # runs of this playbook, on any target
    TARGET = "target"  # runs of any playbook on this target
    GLOBAL = "global"  # every run


class Condition(Spec):
    """A PromQL query and the comparison that we make ourselves.

    The comparison is ours so that an empty result and NaN are *unknown* and never just false.
    """

    query: PromQL = Field(description="PromQL giving one number.")
    above: float | None = Field(default=None, description="Holds when the value is greater.")
    below: float | None = Field(default=None, description="Holds when the value is smaller.")

    @model_validator(mode="after")
    def _one_bound(self) -> Condition:
        if (self.above is None) == (self.below is None):
            msg = "give exactly one of above, below"
            raise ValueError(msg)
        return self

    def holds(self, value: float) -> bool:
        """Say whether `value` meets the comparison. NaN never does."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    @property
    def comparison(self) -> str:
        """The comparison as a person would say it, such as `> 0.25`."""
        return f"> {self.above:g}" if self.above is not None else f"< {self.below:g}"


class Trigger(Spec):
    """When the playbook is considered: alerts that meet all these matchers."""

    alerts: tuple[MatcherText, ...] = Field(
        min_length=1, description='Alertmanager matchers, all of which must hold: alertname="X".'
    )


class Budget(Spec):
    """At most `runs` runs in any window of length `per`."""

    runs: int = Field(ge=1, le=1000, description="How many runs may start.")
    per: Positive = Field(description="In any stretch of time this long.")
    scope: BudgetScope = BudgetScope.TARGET


class RequireGuard(Spec):
    """Admit only while this PromQL condition holds; no data is a denial."""

    require: Condition


class CooldownGuard(Spec):
    """Admit only when this playbook's last run on the target ended this long ago."""

    cooldown: Duration = Field(description="At least this long since the last run ended.")


class BudgetGuard(Spec):
    """Admit only while the budget has room."""

    budget: Budget


GUARD_KINDS = ("require", "cooldown", "budget")


def _guard_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((kind for kind in GUARD_KINDS if kind in value), None)
    return next((kind for kind in GUARD_KINDS if hasattr(value, kind)), None)


Guard = Annotated[
    Annotated[RequireGuard, Tag("require")]
    | Annotated[CooldownGuard, Tag("cooldown")]
    | Annotated[BudgetGuard, Tag("budget")],
    Discriminator(_guard_kind),
]


class Verify(Condition):
    """How a step proves that it helped: the condition must hold for `for` within `within`."""

    within: Positive = Field(
        description="Give up after this long, counted from when a whole window of measurements "
        "lies after the action."
    )
    hold: Duration = Field(
        default=timedelta(seconds=30), alias="for", description="How long it must stay good."
    )
    every: Positive = Field(
        default=timedelta(seconds=15), description="How often to measure (about one scrape)."
    )
    window: Duration | None = Field(
        default=None,
        description="How far the query looks back. Read from the query when left out.",
    )

    @model_validator(mode="after")
    def _hold_fits(self) -> Verify:
        if self.hold >= self.within:
            msg = "for must be shorter than within, or it can never be met"
            raise ValueError(msg)
        return self


class Throttle(Spec):
    """Closed loop on a concurrency ceiling (rules R1-R6, docs/architecture.md)."""

    signal: PromQL = Field(description="PromQL giving the measured value, such as p95 seconds.")
    objective: float = Field(gt=0, description="The signal must stay below this.")
    knob: str = Field(default="max_concurrency", description="The tunable that is moved.")
    min: int = Field(default=1, ge=1, description="Never below this.")
    max: int = Field(default=10, ge=1, description="Never above this.")
    throughput: PromQL | None = Field(
        default=None,
        description="PromQL giving useful work per second. A throttle that made things worse is "
        "only loosened when both this and the signal failed to improve.",
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

    set: dict[str, float | int] = Field(min_length=1, description="Tunable: value.")


class Restart(Spec):
    """Drain, stop, start, wait until ready, prove that it sees, undrain."""

    drain: bool = Field(default=True, description="Let work in flight finish first, if it can.")
    drain_within: Duration = Field(
        default=timedelta(seconds=30), description="Do not wait longer for work in flight."
    )
    ready_within: Duration = Field(
        default=timedelta(seconds=90), description="Give up when it is not ready by then."
    )


class Notify(Spec):
    """Tell a person."""

    message: str = Field(min_length=1, description="What they are told.")


class Step(Spec):
    """What every step has; each kind adds its action."""

    name: str = Field(default="", description="Shown in the run; defaults to the action.")
    timeout: Positive = Field(
        default=timedelta(seconds=10), description="Longest wait for the answer to one call."
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="Further tries of a call that was provably not applied."
    )
    on_unknown: OnUnknown = OnUnknown.ESCALATE
    verify: Verify | None = Field(
        default=None, description="The proof that it helped; not for notify and escalate_to."
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


class RestartStep(Step):
    """`restart:` restart the target through its process manager. It has no undo."""

    restart: Restart


class NotifyStep(Step):
    """`notify:` tell a person; always at least once, with a stable key."""

    notify: Notify


class EscalateStep(Step):
    """`escalate_to:` reached only when a step before it failed; a playbook's name or `person`."""

    escalate_to: str = Field(description="The playbook that follows, or person.")


ACTION_KINDS = ("throttle", "retune", "restart", "notify", "escalate_to")


def _action_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((kind for kind in ACTION_KINDS if kind in value), None)
    return next((kind for kind in ACTION_KINDS if hasattr(value, kind)), None)


AnyStep = Annotated[
    Annotated[ThrottleStep, Tag("throttle")]
    | Annotated[RetuneStep, Tag("retune")]
    | Annotated[RestartStep, Tag("restart")]
    | Annotated[NotifyStep, Tag("notify")]
    | Annotated[EscalateStep, Tag("escalate_to")],
    Discriminator(_action_kind),
]


def kind_of(step: AnyStep) -> str:
    """Return the action of a step: one of `ACTION_KINDS`."""
    return str(_action_kind(step))


class Restore(Spec):
    """Give back what the playbook took, step by step, while it stays healthy."""

    every: Positive = Field(
        default=timedelta(seconds=60), description="Time between two steps back."
    )
    hold: Duration | None = Field(
        default=None, description="Healthy this long before the first step; default 2 x every."
    )
    step: int = Field(default=1, ge=1, description="How much a ceiling is raised at a time.")
    healthy: Condition | None = Field(
        default=None,
        description="What healthy means. Default: a throttle's signal below 85% of its objective, "
        "else the step's verify condition.",
    )


class OnResolve(Spec):
    """What happens when the alert is over."""

    restore: Restore


def _on_resolve(value: Any) -> Any:
    return {"restore": {}} if value == "restore" else value


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class Playbook(Spec):
    """One remediation: when, on what, under which guards, which steps, and how it is undone."""

    api_version: Literal["remediator/v1"] = Field(
        alias="apiVersion", description="The version of this language."
    )
    name: str = Field(
        pattern=NAME_PATTERN, description="Unique among all playbooks: a-z, 0-9 and dashes."
    )
    description: str = Field(default="", description="One sentence for people.")
    mode: Mode = Mode.OBSERVE
    priority: int = Field(
        default=20,
        ge=0,
        le=100,
        description="Higher pre-empts lower on the same target: dead 90, blind 80, memory 50, "
        "slow 20, under-used 5.",
    )
    on: Annotated[tuple[Trigger, ...], BeforeValidator(_one_or_many)] = Field(
        min_length=1, description="One trigger or several alternatives."
    )
    target: str = Field(min_length=1, description="Template giving a name in the inventory.")
    vars: dict[str, Scalar] = Field(
        default_factory=dict, description="Texts used in several places; each sees those above it."
    )
    guards: tuple[Guard, ...] = Field(
        default=(), description="All must hold, or the run is denied and the reason recorded."
    )
    steps: tuple[AnyStep, ...] = Field(min_length=1, description="Done in this order.")
    on_resolve: Annotated[OnResolve | None, BeforeValidator(_on_resolve)] = Field(
        default=None, description="What happens when the alert is over; nothing when left out."
    )

    def matches(self, labels: dict[str, str]) -> bool:
        """Say whether an alert with these labels triggers this playbook."""
        return any(
            match_all((Matcher.parse(text) for text in trigger.alerts), labels)
            for trigger in self.on
        )


class Pinned(BaseModel):
    """A playbook together with the exact text it came from."""

    model_config = ConfigDict(frozen=True)

    playbook: Playbook
    text: str
    sha256: str
