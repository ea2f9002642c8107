"""What the engine needs from the outside: three small protocols, declared by their consumer.

`actuators/`, `prometheus/` and `notifiers/` implement them; tests use small fakes of them. The
surprise is in the errors: an actuator answers "was it applied?" by the class it raises
(`TemporaryError`, `PermanentError`: no; `OutcomeUnknownError`: nobody can say), and anything else
that escapes it counts as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from remediator.model.target import Target
from remediator.model.verdict import Reading


@dataclass(frozen=True)
class Call:
    """One effect on one target, journaled before it is sent.

    Attributes:
        verb: what to do; each actuator documents its verbs.
        args: absolute values, never increments, so that a repeat is harmless.
        idempotency_key: the same for every attempt of this call, new for every iteration.
        fencing_token: grows with every claim on the target; the target may refuse an older one.
        timeout_s: longest wait for the answer, in seconds.
    """

    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
    fencing_token: int = 0
    timeout_s: float = 10.0


class Actuator(Protocol):
    """How one kind of change reaches one kind of target."""

    async def read(self, target: Target) -> Mapping[str, Any]:
        """Return the present state of the target, JSON-ready. Changes nothing.

        Raises:
            TemporaryError, PermanentError: it could not be read.
        """

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:
        """Do it, once, and return what was observed, JSON-ready.

        Raises:
            TemporaryError: definitely not applied, worth trying again.
            PermanentError: definitely not applied, not worth trying again.
            OutcomeUnknownError: it may have been applied.
        """

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Say whether an earlier send of `call` was applied; None when that cannot be told.

        Args:
            target: the target of the call.
            call: the call whose outcome is unknown.
            before: what `read` returned just before it was sent.
        """


class MetricSource(Protocol):
    """Where facts come from."""

    async def query(self, promql: str) -> Reading:
        """Evaluate a query now. Never raises for a bad answer: that is a reading, too."""

    async def history(
        self, promql: str, *, end: datetime, length: timedelta, step: timedelta
    ) -> Sequence[Reading]:
        """Evaluate a query over the past `length`, oldest first; empty when it cannot be told."""


@dataclass(frozen=True)
class Message:
    """What a person is told.

    Attributes:
        key: stable; the same event always has the same key, so a repeat can be recognised.
        severity: info, warning or critical.
        title: one line.
        body: what fired, what was done, what came of it, how to undo it.
    """

    key: str
    severity: str
    title: str
    body: str


class Notifier(Protocol):
    """How a person is told."""

    async def notify(self, message: Message) -> None:
        """Tell them.

        Raises:
            TemporaryError, PermanentError: they were not told.
        """
