"""A detector in numbers: slots, decoders and one serial device that batches, on a virtual clock.

Used by the tests of the adaptive limit and by the comparison of candidates for it. Open-loop
Poisson arrivals come whether or not anything answers; closed-loop clients wait for their answer.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

TICK_S = 1.0
RETRY_S = 1.0  # a closed-loop client that was refused


class Chooser(Protocol):
    """What chooses the limit once a second."""

    limit: int

    def note(self, began_at: float, ended_at: float) -> None:
        """Take one answered request."""

    def look(self, now: float, *, ceiling: int, peak: int) -> None:
        """Choose anew; ``peak`` ran at once since the last look."""


class Fixed:
    """A limit that stays."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def note(self, began_at: float, ended_at: float) -> None:
        """Nothing is learned."""

    def look(self, now: float, *, ceiling: int, peak: int) -> None:
        """Nothing changes."""


@dataclass(frozen=True)
class Plant:
    """Costs in seconds: a pass over n frames takes ``fixed_s + frame_s * n``."""

    fixed_s: float
    frame_s: float
    decode_s: float
    decoders: int = 2
    batch: int = 8
    noise: float = 0.15
    queue_limit: int = 20

    @property
    def capacity(self) -> float:
        """Return the most answers a second: full batches, or all decoders busy."""
        device = self.batch / (self.fixed_s + self.frame_s * self.batch)
        return min(device, self.decoders / self.decode_s)


@dataclass(frozen=True)
class Load:
    """Requests a second as a function of time, or a number of closed-loop clients."""

    rate: Callable[[float], float] = lambda _at: 0.0
    most: float = 1.0
    clients: int = 0
    slowness: Callable[[float], float] = lambda _at: 1.0


@dataclass
class Trace:
    """What happened: (ended_at, latency) of every answer, and the limit at every second."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def within(self, objective_s: float, since: float, until: float) -> float:
        """Return answers within the objective per second of an interval."""
        good = sum(s <= objective_s for at, s in self.answers if since <= at < until)
        return good / (until - since)

    def answered(self, since: float, until: float) -> float:
        return sum(since <= at < until for at, _ in self.answers) / (until - since)


class Run:
    """One run of a plant under a load with a chooser."""

    def __init__(self, plant: Plant, load: Load, chooser: Chooser, *, ceiling: int, seed: int):
        self.plant, self.load, self.chooser, self.ceiling = plant, load, chooser, ceiling
        self.random = random.Random(seed)
        self.trace = Trace()
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._now = 0.0
        self._running = self._peak = 0
        self._waiting: deque[float] = deque()
        self._to_decode: deque[float] = deque()
        self._to_infer: deque[float] = deque()
        self._decoding = 0
        self._busy = False

    def until(self, end: float) -> Trace:
        self._at(TICK_S, self._tick, None)
        if self.load.clients:
            for _ in range(self.load.clients):
                self._at(self.random.random() * TICK_S, self._arrive, None)
        else:
            self._at(0.0, self._maybe_arrive, None)
        while self._events[0][0] < end:
            self._now, _, act, what = heapq.heappop(self._events)
            act(what)
        return self.trace

    @property
    def limit(self) -> int:
        return min(self.ceiling, self.chooser.limit)

    def _at(self, when: float, act: Callable[[Any], None], what: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), act, what))

    def _tick(self, _: None) -> None:
        self.chooser.look(self._now, ceiling=self.ceiling, peak=self._peak)
        self._peak = self._running
        self.trace.limits.append(self.limit)
        self._start()
        self._at(self._now + TICK_S, self._tick, None)

    def _maybe_arrive(self, _: None) -> None:
        """Thin a Poisson stream of the highest rate down to the rate of this moment."""
        if self.random.random() * self.load.most < self.load.rate(self._now):
            self._arrive(None)
        self._at(self._now + self.random.expovariate(self.load.most), self._maybe_arrive, None)

    def _arrive(self, _: None) -> None:
        room = min(self.plant.queue_limit, self.limit)
        if self._running + len(self._waiting) >= self.limit + room:
            self.trace.refused.append(self._now)
            if self.load.clients:
                self._at(self._now + RETRY_S, self._arrive, None)
            return
        self._waiting.append(self._now)
        self._start()

    def _start(self) -> None:
        while self._waiting and self._running < self.limit:
            self._running += 1
            self._peak = max(self._peak, self._running)
            self._to_decode.append(self._waiting.popleft())
        while self._to_decode and self._decoding < self.plant.decoders:
            self._decoding += 1
            seconds = self.plant.decode_s * self._luck()
            self._at(self._now + seconds, self._decoded, self._to_decode.popleft())

    def _decoded(self, began_at: float) -> None:
        self._decoding -= 1
        self._to_infer.append(began_at)
        self._start()
        self._infer()

    def _infer(self) -> None:
        if self._busy or not self._to_infer:
            return
        count = min(self.plant.batch, len(self._to_infer))
        batch = [self._to_infer.popleft() for _ in range(count)]
        seconds = (self.plant.fixed_s + self.plant.frame_s * count) * self._luck()
        self._busy = True
        self._at(self._now + seconds * self.load.slowness(self._now), self._answer, batch)

    def _answer(self, batch: list[float]) -> None:
        self._busy = False
        for began_at in batch:
            self._running -= 1
            self.trace.answers.append((self._now, self._now - began_at))
            self.chooser.note(began_at, self._now)
            if self.load.clients:
                self._at(self._now, self._arrive, None)
        self._start()
        self._infer()

    def _luck(self) -> float:
        return self.random.lognormvariate(0.0, self.plant.noise)
