"""Fakes of what is no part of a target: endpoints, programs, Alertmanager's silences, a log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from remediator.clock import Clock
from remediator.model.alert import SILENCER, Silence
from remediator.model.effect import Call
from remediator.model.labels import Matcher
from remediator.model.target import Target
from tests.fakes import FakeActuator, FakeSilences


class FakeOnce(FakeActuator):
    """Endpoints or programs: they do what they are told, and collapse repeats if they can."""

    def __init__(self, clock: Clock, *, collapses: bool = False) -> None:
        super().__init__(clock)
        self.collapses = collapses

    async def read(self, target: Target) -> Mapping[str, Any]:
        return {}

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        return None

    def _do(self, call: Call) -> Mapping[str, Any]:
        known = {one.key for one in self.applied()}
        replayed = self.collapses and call.idempotency_key in known
        self._record(call, applied=not replayed, replayed=replayed)
        return {"status": 200, "exit": 0}


class FakeSilencer(FakeActuator):
    """Makes silences in a `FakeSilences`, each known by its tag; nothing ends by itself."""

    def __init__(self, clock: Clock, source: FakeSilences) -> None:
        super().__init__(clock)
        self.source = source

    async def read(self, target: Target) -> Mapping[str, Any]:
        return {"silences": [{"id": one.id, "comment": one.id} for one in self.source.active]}

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        return self._is_there(call) is (call.verb == "silence")

    def _is_there(self, call: Call) -> bool:
        return any(one.id == call.args["tag"] for one in self.source.active)

    def _do(self, call: Call) -> Mapping[str, Any]:
        there = self._is_there(call)
        already = there is (call.verb == "silence")
        self._record(call, applied=not already, replayed=already)
        if call.verb == "expire":
            self.source.active = [one for one in self.source.active if one.id != call.args["tag"]]
        elif not there:
            self.source.active.append(self._made(call))
        return {"id": call.args["tag"], "already": already}

    def _made(self, call: Call) -> Silence:
        ops = {(False, True): "=", (True, True): "=~", (False, False): "!=", (True, False): "!~"}
        matchers = tuple(
            Matcher(one["name"], ops[one["isRegex"], one["isEqual"]], one["value"])
            for one in call.args["matchers"]
        )
        return Silence(
            id=call.args["tag"],
            matchers=matchers,
            created_by=SILENCER,
            comment=call.args["comment"],
            ends_at=datetime.fromisoformat(call.args["ends_at"]),
        )


class FakeLog:
    """The log that a process manager keeps."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self.error: Exception | None = None
        self.hangs = False

    async def look(self, target: Target, *, log_lines: int) -> Mapping[str, Any]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return {"stderr": list(self.lines)[-log_lines:]}
