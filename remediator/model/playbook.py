"""A playbook as a frozen model: what a valid playbook may say.

`language.loader` builds these from YAML and turns their complaints into file:line:column;
the engine reads them and never sees YAML. The surprise: one model serves both as written (strings
may hold `${{ }}`) and as pinned by a run (the same document with every template filled in), so
that a run can be read back years later without the alert that filled it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from remediator.model.duration import Duration
from remediator.model.guard import Guard
from remediator.model.labels import Matcher, match_all
from remediator.model.spec import (
    Condition,
    MatcherText,
    Name,
    Positive,
    Scalar,
    Spec,
    Whole,
    Words,
    YesNo,
)
from remediator.model.step import AnyStep, kind_of, knobs_of

# The alert name under which a schedule's findings enter the journal, before the playbook's name.
SCHEDULED = "schedule:"


class Lane(StrEnum):
    """What shares slots, cooldowns, budgets and breakers."""

    OBSERVE = "observe"  # touches nothing
    REAL = "real"  # may touch targets


class Mode(StrEnum):
    """How far a playbook may go by itself."""

    OBSERVE = "observe"  # walk the whole path, send nothing, record what would have been sent
    PROPOSE = "propose"  # ask a person first, then act
    AUTO = "auto"  # act

    @property
    def acts(self) -> bool:
        """Say whether a run of this mode may touch its target."""
        return self is not Mode.OBSERVE

    @property
    def lane(self) -> Lane:
        """The lane of its runs: a proposal and the act that comes of it are one story."""
        return Lane.REAL if self.acts else Lane.OBSERVE

    @property
    def lane_modes(self) -> tuple[Mode, ...]:
        """Every mode of the same lane."""
        return tuple(mode for mode in Mode if mode.lane is self.lane)

    def at_most(self, other: Mode) -> Mode:
        """Return the more careful of the two."""
        return min(self, other, key=BOLDNESS.index)


# From the most careful to the boldest: the more careful of two wins.
BOLDNESS = (Mode.OBSERVE, Mode.PROPOSE, Mode.AUTO)


class Schedule(Spec):
    """Look by ourselves, without an alert rule: every series that meets `when` is like an alert."""

    every: Positive | None = Field(default=None, description="How often to look.")
    cron: str | None = Field(
        default=None, description="Or when: minute hour day month weekday; one run a slot."
    )
    timezone: str = Field(default="UTC", description="An IANA name, for cron.")
    when: Condition = Field(
        description="PromQL that may give several series; the labels of each are alert.labels."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Schedule:
        if (self.every is None) == (self.cron is None):
            msg = "give exactly one of every, cron"
            raise ValueError(msg)
        return self


class Trigger(Spec):
    """When the playbook is considered: alerts that meet all these matchers, or a schedule."""

    alerts: tuple[MatcherText, ...] = Field(
        default=(),
        description='Alertmanager matchers, all of which must hold: alertname="X".',
    )
    schedule: Schedule | None = Field(default=None, description="Or look by ourselves.")

    @model_validator(mode="after")
    def _one_kind(self) -> Trigger:
        if bool(self.alerts) == (self.schedule is not None):
            msg = "give exactly one of alerts, schedule"
            raise ValueError(msg)
        return self


class Restore(Spec):
    """Give back what the playbook took, step by step, while it stays healthy."""

    every: Positive = Field(
        default=timedelta(seconds=60), description="Time between two steps back."
    )
    hold: Duration | None = Field(
        default=None, description="Healthy this long before the first step; default 2 x every."
    )
    step: Whole = Field(default=1, ge=1, description="How much a ceiling is raised at a time.")
    healthy: Condition | None = Field(
        default=None,
        description="What healthy means. Default: a throttle's signal below 85% of its objective, "
        "else the step's verify condition.",
    )
    demand: Condition | None = Field(
        default=None,
        description="Give a ceiling back only while there is demand that would use it (rule R4).",
    )


class OnResolve(Spec):
    """What happens when the alert is over."""

    restore: Restore


class OnFailure(Spec):
    """What happens when the run fails, besides what is half-done being taken back."""

    undo: YesNo = Field(
        default=False, description="Take back everything the run did, settings included."
    )
    notify: Words = Field(default="", description="Also tell a person this.")
    escalate_to: str | None = Field(
        default=None, description="The playbook that follows, or person; as the step of that name."
    )


class Approval(Spec):
    """How a proposal is decided (mode propose)."""

    within: Positive = Field(default=timedelta(minutes=30), description="How long it is open.")
    on_timeout: Literal["escalate", "stop"] = Field(
        default="escalate", description="What becomes of a proposal that nobody decides."
    )


def _on_resolve(value: Any) -> Any:
    return {"restore": {}} if value == "restore" else value


def _on_failure(value: Any) -> Any:
    return {"undo": True} if value == "undo" else value


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class Playbook(Spec):
    """One remediation: when, on what, under which guards, which steps, and how it is undone."""

    api_version: Literal["remediator/v1"] = Field(
        alias="apiVersion", description="The version of this language."
    )
    name: Name = Field(description="Unique among all playbooks: a-z, 0-9 and dashes.")
    description: Words = Field(default="", description="One sentence for people.")
    mode: Mode = Mode.OBSERVE
    priority: Whole = Field(
        default=20,
        ge=0,
        le=100,
        description="Higher pre-empts lower on the same target: dead 90, blind 80, memory 50, "
        "slow 20, under-used 5.",
    )
    on: Annotated[tuple[Trigger, ...], BeforeValidator(_one_or_many)] = Field(
        min_length=1, description="One trigger or several alternatives."
    )
    target: Words = Field(min_length=1, description="Template giving a name in the inventory.")
    vars: dict[str, Scalar] = Field(
        default_factory=dict, description="Texts used in several places; each sees those above it."
    )
    guards: tuple[Guard, ...] = Field(
        default=(), description="All must hold, or the run is denied and the reason recorded."
    )
    approval: Approval = Field(
        default_factory=Approval, description="How a proposal is decided (mode propose)."
    )
    steps: tuple[AnyStep, ...] = Field(min_length=1, description="Done in this order.")
    on_resolve: Annotated[OnResolve | None, BeforeValidator(_on_resolve)] = Field(
        default=None, description="What happens when the alert is over; nothing when left out."
    )
    on_failure: Annotated[OnFailure, BeforeValidator(_on_failure)] = Field(
        default_factory=OnFailure, description="What happens when the run fails."
    )

    @property
    def actions(self) -> tuple[str, ...]:
        """What its steps do, in order: one of `ACTION_KINDS` each."""
        return tuple(kind_of(step) for step in self.steps)

    @property
    def knobs(self) -> frozenset[str]:
        """The knobs that its steps would move."""
        return frozenset(knob for step in self.steps for knob in knobs_of(step))

    def matches(self, labels: dict[str, str], *, source: str = "webhook") -> bool:
        """Say whether an alert with these labels, from this source, triggers this playbook.

        What a schedule found triggers its own playbook only, and no alert from outside can pass
        for it.
        """
        if source == "schedule":
            return labels.get("alertname") == f"{SCHEDULED}{self.name}"
        return any(
            trigger.alerts and match_all((Matcher.parse(text) for text in trigger.alerts), labels)
            for trigger in self.on
        )


class Pinned(BaseModel):
    """A playbook together with the exact text it came from."""

    model_config = ConfigDict(frozen=True)

    playbook: Playbook
    text: str
    sha256: str
