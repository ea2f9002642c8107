"""The actuator without hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from remediator.actuators.observed import ObservedActuator
from remediator.errors import TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target

TARGET = Target(name="detector-1")
CALL = Call("set", {"values": {"max_concurrency": 4}})


class Away:
    async def read(self, target: Target) -> Mapping[str, Any]:
        raise TemporaryError("away")

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        return None


class Here(Away):
    async def read(self, target: Target) -> Mapping[str, Any]:
        return {"name": target.name}

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        return before == {"seen": call.verb}


async def test_observing_says_what_it_would_do_and_needs_nobody_for_it() -> None:
    said = await ObservedActuator(Away()).send(TARGET, CALL)
    assert said == {"observed": True, "would": "set", "args": CALL.args}


async def test_observing_reads_and_probes_what_is_really_there() -> None:
    observed = ObservedActuator(Here())
    assert await observed.read(TARGET) == {"name": "detector-1"}
    assert await observed.probe(TARGET, CALL, {"seen": "set"}) is True
    with pytest.raises(TemporaryError):
        await ObservedActuator(Away()).read(TARGET)
