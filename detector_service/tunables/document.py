"""The settings document as frozen values: bases, leases, pins, drain, recent keys and changes.

Made and changed (by copy) by ``changes``, kept by ``statefile``, served by ``store``. Times are
seconds since the epoch, because an expiry has to mean the same after a restart.
Surprise: ``values`` is not stored. A knob's value is its lease's value, or else its base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, FiniteFloat

from detector_service.tunables.knobs import Number, Values

INITIAL_OWNER = "initial"


@dataclass(frozen=True)
class Lease:
    """A value held over a knob's base until ``expires_at``, then taken back step by step.

    Attributes:
        next_step_at: None while held; while reverting, when the next step is due.
        revert_step: distance of one step; None: one jump.
        revert_every_s: seconds between steps.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    owner: str
    reason: str
    value: Number
    expires_at: float
    revert_step: Number | None
    revert_every_s: float
    next_step_at: float | None = None

    @property
    def state(self) -> Literal["held", "reverting"]:
        """Say whether somebody still holds it."""
        return "held" if self.next_step_at is None else "reverting"

    @property
    def due_at(self) -> float:
        """Return when it next changes by itself."""
        return self.expires_at if self.next_step_at is None else self.next_step_at


@dataclass(frozen=True)
class Pin:
    """A human's word on a knob: nobody else writes it until removed or expired."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    owner: str
    reason: str
    expires_at: float | None


@dataclass(frozen=True)
class Drain:
    """No new work until ``expires_at``; the expiry frees a service whose controller died."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    owner: str
    reason: str
    expires_at: float


@dataclass(frozen=True)
class KeptReply:
    """The answer given to one Idempotency-Key, so that a retry gets the same."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    fingerprint: str
    generation: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One entry of the history: a value that moved, or a pin that was set or removed.

    Attributes:
        at: seconds since the epoch.
        generation: of the document from then on.
        kind: ``lease``, ``direct``, ``pin``, ``legacy`` or ``expiry``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    at: FiniteFloat
    generation: int
    knob: str
    before: int | FiniteFloat
    after: int | FiniteFloat
    owner: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Document:
    """Everything that survives a restart."""

    # What a later version adds is dropped (with a warning), so that going back to this one starts.
    __pydantic_config__ = ConfigDict(extra="ignore")

    base: Values
    generation: int = 1
    leases: Mapping[str, Lease] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    fencing_token: int = 0
    drain: Drain | None = None
    replies: Mapping[str, KeptReply] = field(default_factory=dict)
    history: tuple[Change, ...] = ()
    version: Literal[1] = 1

    @property
    def values(self) -> dict[str, Number]:
        """Return what is in force now: leased values over bases."""
        return {
            **self.base,
            **{name: lease.value for name, lease in self.leases.items()},
        }

    @property
    def due_at(self) -> float | None:
        """Return when the first lease, pin or drain changes by itself, or None."""
        times = [lease.due_at for lease in self.leases.values()]
        times += [pin.expires_at for pin in self.pins.values() if pin.expires_at is not None]
        times += [self.drain.expires_at] if self.drain else []
        return min(times, default=None)
