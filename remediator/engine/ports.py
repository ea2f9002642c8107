"""What the engine needs from the outside: small protocols, declared by their consumer.

`actuators/`, `prometheus/` and `notifiers/` implement them; tests use small fakes of them. The
surprise is in the errors: an actuator answers "was it applied?" by the class it raises
(`TemporaryError`, `PermanentError`: no; `OutcomeUnknownError`: nobody can say), and anything else
that escapes it counts as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from remediator.model.alert import Silence
from remediator.model.effect import Call, Message
from remediator.model.target import Target
from remediator.model.verdict import Reading, Vector


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


class Looker(Protocol):
    """What can be seen of a target beside its state: a step `diagnose` asks for it."""

    async def look(self, target: Target, *, log_lines: int) -> Mapping[str, Any]:
        """Return it, JSON-ready. Changes nothing.

        Raises:
            TemporaryError, PermanentError: nothing could be seen.
        """


class MetricSource(Protocol):
    """Where facts come from."""

    async def query(self, promql: str) -> Reading:
        """Evaluate a query now. Never raises for a bad answer: that is a reading, too."""

    async def series(self, promql: str) -> Vector:
        """Evaluate a query that may give several series. Never raises: an error is a value."""

    async def history(
        self, promql: str, *, end: datetime, length: timedelta, step: timedelta
    ) -> Sequence[Reading]:
        """Evaluate a query over the past `length`, oldest first; empty when it cannot be told."""


class SilenceSource(Protocol):
    """Which silences are in force."""

    async def silences(self) -> Sequence[Silence]:
        """Return the active silences.

        Raises:
            TemporaryError: nobody could say.
        """


class Notifier(Protocol):
    """How a person is told."""

    async def notify(self, message: Message) -> None:
        """Tell them.

        Raises:
            TemporaryError, PermanentError: they were not told.
        """
