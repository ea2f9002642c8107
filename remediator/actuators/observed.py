"""An actuator without hands, for playbooks in mode `observe`. Wired by `app` around a real one.

The surprise: reading stays real. An observe run sees what is true and only leaves out the effect,
so it walks the same code as a run that acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from remediator.model.effect import Call
from remediator.model.target import Target


class Readable(Protocol):
    """The part of an actuator that changes nothing."""

    async def read(self, target: Target) -> Mapping[str, Any]:
        """Return the present state of the target."""

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Say whether an earlier call was applied."""


class ObservedActuator:
    """Passes `read` and `probe` through; `send` only says what it would have done."""

    def __init__(self, inner: Readable) -> None:
        self.inner = inner

    async def read(self, target: Target) -> Mapping[str, Any]:
        """Return what the real actuator reads.

        Raises:
            TemporaryError, PermanentError: as the real one.
        """
        return await self.inner.read(target)

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - the port
        """Do nothing and return `{"observed": True, "would": verb, "args": args}`."""
        return {"observed": True, "would": call.verb, "args": dict(call.args)}

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        """Return what the real actuator finds."""
        return await self.inner.probe(target, call, before)
