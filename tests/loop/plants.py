"""Detectors in numbers, second by second: what a ceiling does to throughput and to latency.

Used by the closed loop (`tests.loop.run`) and by `benchmarks/closed_loop.py`. Within a second the
plant is in its steady state: it forgets in a few hundred milliseconds, and nobody sees it more
often than a scrape. That state is a birth-death chain in which n requests inside leave at the rate
X(n) of the closed network of slots and one serial device (flow-equivalent server, Chandy, Herzog
and Woo 1975); X(n) comes from mean-value analysis with Reiser's correction for service times
that hardly vary. `test_plants.py` holds it against the event-by-event plant of `tests.detector`.

The surprise: there is no queue before the slots. What the ceiling does not let in is refused at
once, and every answer's latency is the time inside.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from detector_service.limiter.adaptive import AdaptiveLimit
from detector_service.telemetry import REQUEST_BUCKETS

OBJECTIVE_S = 0.25
CEILING = 10
# Lognormal spread of one service time, as in tests/detector/plant.py.
SPREAD = 0.15
GOOD = REQUEST_BUCKETS.index(OBJECTIVE_S)
# A client's tries, and how long after a refusal it comes again: no jitter, on purpose.
TRIES = 3
RETRY_AFTER_S = 1


@dataclass(frozen=True)
class Device:
    """What one second of the detector is like.

    Attributes:
        decode_s: time in a slot beside the device; slots do not wait for each other there.
        pass_s: time on the device, which serves one at a time.
        cliff: with more inside than this, memory is short ...
        thrash: ... and everything takes this many times as long.
    """

    decode_s: float = 0.08
    pass_s: float = 0.02
    cliff: int = CEILING
    thrash: float = 4.0

    def speeds(self) -> tuple[float, ...]:
        """Return X(n), answers a second with n inside, for n = 1 to the highest ceiling."""
        return _speeds(self)


@lru_cache
def _speeds(device: Device) -> tuple[float, ...]:
    found: list[float] = []
    inside = busy = 0.0
    for n in range(1, CEILING + 1):
        # Reiser 1979: whom I find in service has half of its time left, when times hardly vary.
        left = busy * device.pass_s * (1 + SPREAD**2) / 2
        at_device = device.pass_s + (inside - busy) * device.pass_s + left
        speed = min(n / (device.decode_s + at_device), 1 / device.pass_s)
        inside, busy = speed * at_device, speed * device.pass_s
        found.append(speed)
    cliff = min(device.cliff, CEILING)
    return tuple(x if n <= cliff else x / device.thrash for n, x in enumerate(found, 1))


@dataclass(frozen=True)
class Second:
    """What came of one second: answers, refusals, mean number inside, share within each bucket."""

    answered: float
    refused: float
    inside: float
    within: tuple[float, ...]

    @property
    def good(self) -> float:
        """Answers within the objective."""
        return self.answered * self.within[GOOD]


@lru_cache(maxsize=100_000)
def second(device: Device, limit: int, offered: float) -> Second:
    """Return the steady state of a device with this limit under this many requests a second."""
    speeds = device.speeds()[:limit]
    weights = [1.0]
    for speed in speeds:
        weights.append(weights[-1] * offered / speed)
    total = sum(weights)
    shares = [w / total for w in weights]
    let_in = offered * (1 - shares[-1])
    within = [0.0] * len(REQUEST_BUCKETS)
    for n, share in enumerate(shares[:-1], 1):
        mean = n / speeds[n - 1]
        sd = (
            SPREAD
            * math.hypot(device.decode_s, device.pass_s * math.sqrt(n))
            * (device.thrash if n > device.cliff else 1)
        )
        found = share / (1 - shares[-1])
        for i, bound in enumerate(REQUEST_BUCKETS):
            within[i] += found * 0.5 * (1 + math.erf((bound - mean) / (sd * math.sqrt(2))))
    return Second(
        answered=let_in,
        refused=offered - let_in,
        inside=sum(n * share for n, share in enumerate(shares)),
        within=tuple(within),
    )


Shape = Callable[[float], float]


@dataclass(frozen=True)
class Plant:
    """A device, what trouble does to it, and who asks.

    Attributes:
        device: while all is well.
        troubled: with this much trouble, from 0 to 1.
        offered: requests a second.
        patience_s: a client that waits longer comes again, though its answer is computed; None =
            clients do not come again.
        helps: whether the ceiling can do anything about the trouble.
    """

    name: str
    device: Device
    troubled: Callable[[Device, float], Device]
    offered: float = 45.0
    patience_s: float | None = None
    helps: bool = True


def _co_tenant(device: Device, trouble: float) -> Device:
    return replace(device, pass_s=device.pass_s * (1 + trouble))


def _short_of_memory(device: Device, trouble: float) -> Device:
    return replace(device, cliff=CEILING - round(4 * trouble))


def _slow_decode(device: Device, trouble: float) -> Device:
    return replace(device, decode_s=device.decode_s + 0.3 * trouble)


SERIAL = Plant("serial device", Device(), _co_tenant)
CLIFF = Plant("memory cliff", Device(), _short_of_memory)
SLOW_DECODE = Plant("slow decode", Device(), _slow_decode, offered=20.0, helps=False)
RETRYING = Plant("retrying clients", Device(), _co_tenant, patience_s=0.35)
# Saturated and healthy: the device is busy 99% of the time, and every answer is in time.
SATURATED = Plant("busy and healthy", Device(), _co_tenant, offered=60.0)
PLANTS = (SERIAL, CLIFF, SLOW_DECODE, RETRYING)


@dataclass
class Live:
    """A plant that lives through its trouble, one second after the other.

    Attributes:
        shape: how much trouble there is, from 0 to 1, so many seconds after the start.
        limiter: the service's own fast limit under the ceiling, if it has one.
        totals: what its exporter counts: answers up to each bucket's bound; last, all of them.
        good, answered: answers within the objective, and all of them, in every second.
        limits: the limit in force in every second.
    """

    plant: Plant
    shape: Shape
    seed: int
    limiter: AdaptiveLimit | None = None
    totals: list[float] = field(default_factory=lambda: [0.0] * (len(REQUEST_BUCKETS) + 1))
    good: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._again = deque([[0.0] * (TRIES - 1) for _ in range(RETRY_AFTER_S)])
        self._lasting = 0.0

    @property
    def age(self) -> int:
        """Seconds lived."""
        return len(self.good)

    def live(self, ceiling: Callable[[Device, float], int]) -> Second:
        """Live one second under this ceiling (of the device and what is asked of it)."""
        device, offered, tries = self._conditions()
        limit = ceiling(device, offered)
        if self.limiter is not None:
            limit = min(limit, self.limiter.limit)
        came = second(device, limit, offered)
        self._count(came)
        self._come_again(came, offered, tries)
        self.limits.append(limit)
        self.good.append(came.good)
        self.answered.append(came.answered)
        if self.limiter is not None:
            self._feed(self.limiter, came, ceiling(device, offered))
        return came

    def _conditions(self) -> tuple[Device, float, list[float]]:
        # The same draws in every second whatever the ceiling: runs of one seed can be compared.
        self._lasting = 0.9 * self._lasting + 0.02 * self._random.gauss(0, 1)
        luck = 1 + round(self._lasting, 2)
        fresh = max(0.0, self.plant.offered + self._random.gauss(0, math.sqrt(self.plant.offered)))
        trouble = round(min(1.0, max(0.0, self.shape(self.age))), 2)
        device = self.plant.troubled(self.plant.device, trouble)
        device = replace(device, pass_s=device.pass_s * luck, decode_s=device.decode_s * luck)
        tries = [float(round(fresh)), *self._again.popleft()]
        return device, float(max(1, round(sum(tries)))), tries

    def _count(self, came: Second) -> None:
        for i, share in enumerate(came.within):
            self.totals[i] += came.answered * share
        self.totals[-1] += came.answered

    def _come_again(self, came: Second, offered: float, tries: list[float]) -> None:
        if self.plant.patience_s is None:
            self._again.append([0.0] * (TRIES - 1))
            return
        late = 1 - _share_within(came.within, self.plant.patience_s)
        share = min(1.0, (came.refused + came.answered * late) / offered)
        self._again.append([share * count for count in tries[:-1]])

    def _feed(self, limiter: AdaptiveLimit, came: Second, ceiling: int) -> None:
        now = float(self.age)
        for i in range(20):
            took = quantile((i + 0.5) / 20, [*came.within, 1.0])
            limiter.note(now - took, now)
        limiter.look(now, ceiling=ceiling, peak=math.ceil(came.inside))


def _share_within(within: tuple[float, ...], bound: float) -> float:
    place = bisect_left(REQUEST_BUCKETS, bound)
    return within[place]


def quantile(rank: float, counts: list[float]) -> float:
    """Return a quantile of cumulative bucket counts as `histogram_quantile` computes it.

    NaN with no observations; the highest bound when it lies beyond it.
    """
    total = counts[-1]
    if total <= 0:
        return math.nan
    wanted = rank * total
    place = next((i for i, c in enumerate(counts[:-1]) if c >= wanted), None)
    if place is None:
        return REQUEST_BUCKETS[-1]
    low, below = (REQUEST_BUCKETS[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    inside = counts[place] - below
    return low + (REQUEST_BUCKETS[place] - low) * ((wanted - below) / inside if inside else 1.0)


def best_limit(device: Device, offered: float) -> int:
    """Return the limit with the most answers within the objective: what the oracle sets.

    Of limits that are within half a percent of each other, the highest.
    """
    found = [second(device, limit, offered).good for limit in range(1, CEILING + 1)]
    return max(i for i, good in enumerate(found, 1) if good >= 0.995 * max(found))


def wide_open(_device: Device, _offered: float) -> int:
    """Return the ceiling of a detector that nobody controls."""
    return CEILING
