"""The guards of the playbook language: what must hold before a run may begin.

Judged by `engine.guards`. The surprise: some guards need no line in a playbook. Pauses, the kill
switch, blindness, an override, a pin, a silence, the target's slot, the owner of a knob and the
ineffectiveness breaker bind every playbook (docs/playbook-language.md).
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from remediator.model.duration import Duration
from remediator.model.spec import Condition, Name, Number, Positive, PromQL, Spec, Whole


class BudgetScope(StrEnum):
    """Whose runs a budget counts."""

    PLAYBOOK = "playbook"  # runs of this playbook, on any target
    TARGET = "target"  # runs of any playbook on this target
    POOL = "pool"  # runs of any playbook on targets of this target's pool
    GLOBAL = "global"  # every run


class Budget(Spec):
    """At most `runs` runs in any window of length `per`."""

    runs: Whole = Field(ge=1, le=1000, description="How many runs may start.")
    per: Positive = Field(description="In any stretch of time this long.")
    scope: BudgetScope = BudgetScope.TARGET


class HealthyOthers(Spec):
    """A capacity floor: enough of the others must be well before this one is disturbed."""

    pool: str = Field(default="", description="The pool; by default the target's own.")
    at_least: Whole = Field(ge=1, description="So many others must be healthy and undisturbed.")
    healthy: PromQL = Field(
        default="min by (instance) (up)",
        description="PromQL giving one series an instance; above 0 is healthy. No data refuses.",
    )


class BlastRadius(Spec):
    """How many targets of a pool may be acted on at the same time, this one included."""

    pool: str = Field(default="", description="The pool; by default the target's own.")
    at_most: Whole | None = Field(default=None, ge=1, description="So many targets.")
    share: Number | None = Field(
        default=None, gt=0, le=1, description="This share of the pool, but never less than one."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> BlastRadius:
        if (self.at_most is None) == (self.share is None):
            msg = "give exactly one of at_most, share"
            raise ValueError(msg)
        return self


class Storm(Spec):
    """Too many targets in trouble at once: that is not ours to mend, and a person is told."""

    pool: str = Field(default="", description="Count in this pool; by default the target's own.")
    at_most: Whole = Field(ge=1, description="So many targets may have a firing alert at once.")


class WindowSpec(Spec):
    """Recurring stretches of time."""

    cron: str = Field(description="When it begins: minute hour day month weekday.")
    length: Positive = Field(alias="for", description="How long it lasts.")
    timezone: str = Field(default="UTC", description="An IANA name, such as Europe/Berlin.")


class NotWhile(Spec):
    """Not while another playbook runs on this target, nor shortly after."""

    playbook: Name = Field(description="The other playbook.")
    within: Duration = Field(
        default=timedelta(), description="Nor this long after its last run acted."
    )


class Breaker(Spec):
    """When a playbook keeps not helping a class of targets, it is held back."""

    failures: Whole = Field(default=3, ge=1, description="So many runs in a row that did not help.")
    reset: Positive = Field(
        default=timedelta(minutes=30),
        description="After this long one trial run is let through; doubled when that fails, too.",
    )


class RequireGuard(Spec):
    """Admit only while this PromQL condition holds; no data is a denial."""

    require: Condition


class CooldownAfter(Spec):
    """A cooldown that is longer after a run that did not help."""

    improved: Duration = Field(description="After a run that improved it.")
    otherwise: Duration = Field(description="After any other run.")


class CooldownGuard(Spec):
    """Admit only when this playbook's last run on the target ended this long ago."""

    cooldown: Duration | CooldownAfter = Field(
        description="At least this long since the last run ended, or how long by its verdict."
    )


class BudgetGuard(Spec):
    """Admit only while the budget has room."""

    budget: Budget


class HealthyOthersGuard(Spec):
    """Admit only while enough other targets are healthy; waived when this one is down already."""

    healthy_others: HealthyOthers


class BlastRadiusGuard(Spec):
    """Admit only while few enough targets of the pool are being acted on."""

    blast_radius: BlastRadius


class StormGuard(Spec):
    """Admit only while few enough targets are in trouble."""

    storm: Storm


class OnlyDuringGuard(Spec):
    """Admit only inside these windows."""

    only_during: WindowSpec


class NotDuringGuard(Spec):
    """Admit only outside these windows: somebody is at work there."""

    not_during: WindowSpec


class NotWhileGuard(Spec):
    """Admit only while that other playbook leaves the target alone."""

    not_while: NotWhile


class BreakerGuard(Spec):
    """Replace the breaker that every playbook has (3 failures, 30m) by this one."""

    breaker: Breaker


GUARDS: dict[str, type[Spec]] = {
    "require": RequireGuard,
    "cooldown": CooldownGuard,
    "budget": BudgetGuard,
    "healthy_others": HealthyOthersGuard,
    "blast_radius": BlastRadiusGuard,
    "storm": StormGuard,
    "only_during": OnlyDuringGuard,
    "not_during": NotDuringGuard,
    "not_while": NotWhileGuard,
    "breaker": BreakerGuard,
}
GUARD_KINDS = tuple(GUARDS)


def guard_kind(value: Any) -> str | None:
    """Return which guard a mapping or model is, or None."""
    if isinstance(value, dict):
        return next((kind for kind in GUARD_KINDS if kind in value), None)
    return next((kind for kind in GUARD_KINDS if hasattr(value, kind)), None)


Guard = Annotated[
    Annotated[RequireGuard, Tag("require")]
    | Annotated[CooldownGuard, Tag("cooldown")]
    | Annotated[BudgetGuard, Tag("budget")]
    | Annotated[HealthyOthersGuard, Tag("healthy_others")]
    | Annotated[BlastRadiusGuard, Tag("blast_radius")]
    | Annotated[StormGuard, Tag("storm")]
    | Annotated[OnlyDuringGuard, Tag("only_during")]
    | Annotated[NotDuringGuard, Tag("not_during")]
    | Annotated[NotWhileGuard, Tag("not_while")]
    | Annotated[BreakerGuard, Tag("breaker")],
    Discriminator(guard_kind),
]
