"""A movable clock and small fakes of the engine's three ports; used by the tests of the engine.

They are no mocks: the fake detector keeps a settings document by the same rules as the real one
(leases over bases, pins, fencing, replies to keys), so a test asserts what a target would really
hold. The surprise: an outcome script says what the *caller* is told, and `applied` in the record
says what truly happened.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from remediator.clock import Clock
from remediator.errors import (
    EffectError,
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from remediator.model.alert import Silence
from remediator.model.effect import Call, Message
from remediator.model.target import Target
from remediator.model.verdict import Reading, ReadingStatus, Vector

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Outcome(StrEnum):
    """What the caller is told of one send."""

    OK = "ok"
    TEMPORARY = "temporary"  # not applied, try again
    PERMANENT = "permanent"  # not applied, do not try again
    UNKNOWN_APPLIED = "unknown, but applied"
    UNKNOWN_LOST = "unknown, and not applied"
    HANG = "hangs until it is released or cancelled; not applied"
    CRASH = "the adapter breaks after it was applied"


@dataclass(frozen=True)
class Refuse:
    """The target says no."""

    reason: str


@dataclass(frozen=True)
class Sent:
    """One send, and what truly came of it."""

    verb: str
    args: dict[str, Any]
    key: str
    token: int
    at: datetime
    applied: bool
    replayed: bool = False


Script = Outcome | Refuse
Witness = Callable[[Call], None]


class FakeActuator:
    """What both fakes share: the script, the record, the fence and the keys."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[Sent] = []
        self.scripts: dict[str, deque[Script]] = defaultdict(deque)
        self.witness: Witness | None = None
        self.reachable = True
        self.retry_after = 0.0
        self.released = asyncio.Event()

    def script(self, verb: str, *outcomes: Script) -> None:
        """Say what the next sends of `verb` come to; after them all is well again."""
        self.scripts[verb].extend(outcomes)

    def applied(self, verb: str | None = None) -> list[Sent]:
        """Return what really happened, oldest first."""
        return [s for s in self.sent if s.applied and verb in {None, s.verb}]

    def tried(self, verb: str) -> list[Sent]:
        """Return every send of `verb`, whatever came of it."""
        return [s for s in self.sent if s.verb == verb]

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:
        if self.witness is not None:
            self.witness(call)
        if not self.reachable:
            self._record(call, applied=False)
            raise TemporaryError(f"{target.name} does not answer")
        outcome = self.scripts[call.verb].popleft() if self.scripts[call.verb] else Outcome.OK
        if isinstance(outcome, Refuse):
            self._record(call, applied=False)
            raise RefusedError(f"refused: {outcome.reason}", reason=outcome.reason)
        if outcome is Outcome.HANG:
            self._record(call, applied=False)
            await self.released.wait()
            raise OutcomeUnknownError("the connection went away")
        if outcome in {Outcome.TEMPORARY, Outcome.PERMANENT, Outcome.UNKNOWN_LOST}:
            self._record(call, applied=False)
            raise self._error(outcome, f"{call.verb}: {outcome}")
        answer = self._do(call)
        if outcome is Outcome.UNKNOWN_APPLIED:
            raise OutcomeUnknownError(f"{call.verb}: no answer came")
        if outcome is Outcome.CRASH:
            raise ZeroDivisionError(f"{call.verb}: a bug in the adapter")
        return answer

    def _error(self, outcome: Outcome, words: str) -> EffectError:
        if outcome is Outcome.TEMPORARY:
            return TemporaryError(words, retry_after=self.retry_after)
        return PermanentError(words) if outcome is Outcome.PERMANENT else OutcomeUnknownError(words)

    async def read(self, target: Target) -> Mapping[str, Any]:
        raise NotImplementedError

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        raise NotImplementedError

    def _do(self, call: Call) -> Mapping[str, Any]:
        raise NotImplementedError

    def _record(self, call: Call, *, applied: bool, replayed: bool = False) -> None:
        self.sent.append(
            Sent(
                verb=call.verb,
                args=dict(call.args),
                key=call.idempotency_key,
                token=call.fencing_token,
                at=self.clock(),
                applied=applied,
                replayed=replayed,
            )
        )


@dataclass
class Lease:
    """A value over its base."""

    owner: str
    value: float
    expires_at: datetime
    step: float | None  # None = in one jump
    every: timedelta


class FakeDetector(FakeActuator):
    """A detector's settings document, drain and canary (design, section 6)."""

    def __init__(self, clock: Clock, process: FakeProcess | None = None) -> None:
        super().__init__(clock)
        self.base: dict[str, float] = {"max_concurrency": 10, "batch_size": 8}
        self.effective: dict[str, bool] = {}
        self.leases: dict[str, Lease] = {}
        self.pins: dict[str, str] = {}
        self.generation = 1
        self.highest_token = 0
        self.replies: dict[str, tuple[str, dict[str, Any]]] = {}
        self.draining = False
        self.inflight = 0
        self.sees = True
        self.process = process
        # How long after its start the process is loaded and warm; None = never.
        self.warm_after: float | None = 0.0

    def value(self, knob: str = "max_concurrency") -> float:
        """Return what is in force now."""
        self._lapse()
        lease = self.leases.get(knob)
        return self.base[knob] if lease is None else lease.value

    def pin(self, knob: str, owner: str = "ann", value: float | None = None) -> None:
        """Do what a person does: take the knob, whatever holds it."""
        self.base[knob] = self.value(knob) if value is None else value
        self.leases.pop(knob, None)
        self.pins[knob] = owner
        self.generation += 1

    @property
    def alive(self) -> bool:
        """Say whether there is a process that answers."""
        return self.reachable and (self.process is None or self.process.responds)

    async def read(self, target: Target) -> Mapping[str, Any]:
        if not self.alive:
            raise TemporaryError(f"{target.name} does not answer")
        self._lapse()
        warm = self._warm()
        return {
            "settings": {
                "generation": self.generation,
                "values": {knob: self.value(knob) for knob in self.base},
                "base": dict(self.base),
                "leases": {
                    knob: {"owner": lease.owner, "value": lease.value, "base": self.base[knob]}
                    for knob, lease in self.leases.items()
                },
                "pins": {
                    knob: {"owner": owner, "reason": "x"} for knob, owner in self.pins.items()
                },
                "effective": dict(self.effective),
            },
            "ready": {"loaded": warm, "warm": warm, "inflight": self.inflight, "queued": 0},
        }

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:
        if not self.alive:
            self.reachable, before = False, self.reachable
            try:
                return await super().send(target, call)
            finally:
                self.reachable = before
        return await super().send(target, call)

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        if not self.alive:
            return None
        return call.idempotency_key in self.replies

    def _warm(self) -> bool:
        if self.warm_after is None:
            return False
        started = self.process.started_at if self.process else None
        return started is None or self.clock() >= started + timedelta(seconds=self.warm_after)

    def _do(self, call: Call) -> Mapping[str, Any]:
        self._lapse()
        said = repr((call.verb, {k: v for k, v in call.args.items() if k != "if_generation"}))
        if call.idempotency_key in self.replies:
            first, answer = self.replies[call.idempotency_key]
            if first != said:
                self._refuse(call, "idempotency_key_reused")
            self._record(call, applied=False, replayed=True)
            return answer
        if call.fencing_token < self.highest_token:
            self._refuse(call, "fencing")
        match call.verb:
            case "set":
                self._set(call)
            case "release":
                self.leases.pop(call.args["knob"], None)
                self.generation += 1
            case "drain" | "undrain":
                self.draining = call.verb == "drain"
        self._record(call, applied=True)
        self.highest_token = max(self.highest_token, call.fencing_token)
        answer = {"ok": self.sees} if call.verb == "canary" else {"generation": self.generation}
        self.replies[call.idempotency_key] = (said, answer)
        return answer

    def _set(self, call: Call) -> None:
        wanted = call.args.get("if_generation")
        if wanted is not None and wanted != self.generation:
            self._refuse(call, "generation")
        for knob in call.args["values"]:
            if self.pins.get(knob, call.args["owner"]) != call.args["owner"]:
                self._refuse(call, "pinned")
            if knob in self.leases and self.leases[knob].owner != call.args["owner"]:
                self._refuse(call, "leased")
        for knob, value in call.args["values"].items():
            self.leases[knob] = Lease(
                owner=call.args["owner"],
                value=value,
                expires_at=self.clock() + timedelta(seconds=call.args["lease_s"]),
                step=call.args.get("revert_step", 1),
                every=timedelta(seconds=call.args.get("revert_every_s", 60)),
            )
        self.generation += 1

    def _refuse(self, call: Call, reason: str) -> None:
        self._record(call, applied=False)
        raise RefusedError(f"the detector refuses: {reason}", reason=reason)

    def _lapse(self) -> None:
        for knob, lease in list(self.leases.items()):
            while knob in self.leases and self.clock() >= lease.expires_at:
                distance = self.base[knob] - lease.value
                if lease.step is None or abs(distance) <= lease.step:
                    del self.leases[knob]
                else:
                    lease.value += math.copysign(lease.step, distance)
                    lease.expires_at += lease.every
                self.generation += 1


class FakeKnobs(FakeActuator):
    """A balancer or a scaler: absolute values that stay as they are set, since nothing lapses."""

    def __init__(self, clock: Clock, **values: float) -> None:
        super().__init__(clock)
        self.values = dict(values)
        self.pins: dict[str, str] = {}
        self.generation = 1
        self.seen: set[str] = set()

    async def read(self, target: Target) -> Mapping[str, Any]:
        if not self.reachable:
            raise TemporaryError(f"nobody answers for {target.name}")
        pins = {knob: {"owner": owner, "reason": "x"} for knob, owner in self.pins.items()}
        return {
            "settings": {
                "values": dict(self.values),
                "pins": pins,
                "leases": {},
                "generation": self.generation,
                "leasing": False,
            }
        }

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        return call.idempotency_key in self.seen if self.reachable else None

    def _do(self, call: Call) -> Mapping[str, Any]:
        assert call.verb == "set", f"a target that leases nothing cannot {call.verb}"
        replayed = call.idempotency_key in self.seen
        wanted = call.args.get("if_generation")
        moved = not replayed and wanted is not None and wanted != self.generation
        self._record(call, applied=not replayed and not moved, replayed=replayed)
        if moved:
            raise RefusedError("it has moved since", reason="generation")
        if not replayed:
            self.values |= call.args["values"]
            self.generation += 1
            self.seen.add(call.idempotency_key)
        return {"generation": self.generation}


class FakeProcess(FakeActuator):
    """A program under a process manager: it has a pid and a start, and can be stopped."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.running = True
        self.hung = False
        self.pid = 100
        self.started_at = clock() - timedelta(hours=1)
        self.probe_answers: deque[bool | None] = deque()

    @property
    def responds(self) -> bool:
        """Say whether what runs answers."""
        return self.running and not self.hung

    def restart_by_hand(self) -> None:
        """Do what a person does who is faster than we are."""
        self.running, self.hung = True, False
        self.pid += 1
        self.started_at = self.clock()

    async def read(self, target: Target) -> Mapping[str, Any]:
        if not self.reachable:
            raise TemporaryError("the process manager does not answer")
        return {
            "state": "RUNNING" if self.running else "STOPPED",
            "pid": self.pid if self.running else 0,
            "started_at": self.started_at.isoformat(),
        }

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:
        if self.probe_answers:
            return self.probe_answers.popleft()
        if not self.reachable:
            return None
        if call.verb == "stop" and not self.running:
            return True
        if "pid" not in before:
            return None
        now = await self.read(target)
        if now["started_at"] > before["started_at"]:
            return True
        replaced = bool(now["pid"] != before["pid"])
        if call.verb == "stop":
            return replaced
        return (replaced or None) if now["pid"] else False

    def _do(self, call: Call) -> Mapping[str, Any]:
        if call.verb == "stop":
            self.running = False
        elif not self.running:
            self.restart_by_hand()
        self._record(call, applied=True)
        return {"pid": self.pid if self.running else 0}


Value = float | int | ReadingStatus | None
Answer = Value | Callable[[datetime], Value]


class FakeMetrics:
    """Prometheus as a function of the query and the time; a query nobody set has no data."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.answers: dict[str, Answer] = {}
        # Query -> value by instance, for queries that give several series.
        self.vectors: dict[
            str, Mapping[str, float] | Callable[[datetime], Mapping[str, float]]
        ] = {}
        self.label = "instance"
        self.asked: list[str] = []
        self.takes = 0.0
        self.down = False

    async def query(self, promql: str) -> Reading:
        self.asked.append(promql)
        reading = self._reading(promql, self.clock())
        self.clock.advance(self.takes)
        return reading

    async def history(
        self, promql: str, *, end: datetime, length: timedelta, step: timedelta
    ) -> Sequence[Reading]:
        count = int(length / step)
        times = [end - step * back for back in range(count - 1, -1, -1)]
        readings = [self._reading(promql, at) for at in times]
        return [r for r in readings if r.status in {ReadingStatus.OK, ReadingStatus.NAN}]

    async def series(self, promql: str) -> Vector:
        self.asked.append(promql)
        if self.down:
            return Vector(query=promql, at=self.clock(), error="scripted")
        scripted = self.vectors.get(promql, {})
        found = scripted(self.clock()) if callable(scripted) else scripted
        values = tuple(({self.label: name}, float(value)) for name, value in found.items())
        return Vector(query=promql, at=self.clock(), values=values)

    def _reading(self, promql: str, at: datetime) -> Reading:
        scripted = ReadingStatus.ERROR if self.down else self.answers.get(promql)
        answer = scripted(at) if callable(scripted) else scripted
        if isinstance(answer, ReadingStatus):
            return Reading(query=promql, at=at, status=answer, detail="scripted")
        if answer is None:
            return Reading(query=promql, at=at, status=ReadingStatus.EMPTY)
        return Reading.of(promql, at, float(answer))


class FakeSilences:
    """The silences that Alertmanager has."""

    def __init__(self) -> None:
        self.active: list[Silence] = []
        self.down = False

    async def silences(self) -> Sequence[Silence]:
        if self.down:
            raise TemporaryError("no Alertmanager answers")
        return list(self.active)


class FakeNotifier:
    """Keeps what a person was told."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.script: deque[Exception] = deque()

    async def notify(self, message: Message) -> None:
        if self.script:
            raise self.script.popleft()
        self.told.append(message)
