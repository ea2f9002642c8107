"""What the controller gets to see of a plant: scrapes, an alert, webhooks, each of them late.

Used by `tests.loop.run`. `Scrapes` answers the few queries of the playbook from its own samples,
as Prometheus computes them; `Alerting` evaluates one rule and groups as Alertmanager does. The
surprise: nothing here reads the plant at the moment of a query, only what was scraped before.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

from tests.loop.plants import GOOD, OBJECTIVE_S, Live, quantile

# Prometheus' default: a series is found for this long after its last sample.
LOOKBACK_S = 300.0


@dataclass(frozen=True)
class Stack:
    """How late the controller learns of things; seconds.

    Attributes:
        name: the delay from trouble to webhook that it stands for.
        window: the rate window of the queries.
        pending: the rule's `for`.
        keep: the rule's `keep_firing_for`.
        group_wait: until the first notification.
        group_interval: least time between two notifications.
        poll: how often the controller asks which alerts are active.
    """

    name: str
    scrape: float
    evaluation: float
    window: float
    pending: float
    keep: float
    group_wait: float
    group_interval: float = 30.0
    poll: float = 30.0


FAST = Stack("15 s", scrape=5, evaluation=5, window=20, pending=5, keep=20, group_wait=0)
# What rules/detector.yml and deploy/alertmanager have.
SHIPPED = Stack("45 s", scrape=15, evaluation=15, window=60, pending=30, keep=60, group_wait=0)
SLOW = Stack("150 s", scrape=60, evaluation=60, window=180, pending=60, keep=120, group_wait=30)


@dataclass
class Scrapes:
    """The samples of one target.

    Attributes:
        frozen: the exporter answers, with what it counted when it froze.
        gone: nothing answers.
        offset: seconds after the start at which the first scrape falls.
    """

    live: Live
    stack: Stack
    offset: float
    frozen: bool = False
    gone: bool = False
    times: list[float] = field(default_factory=list)
    samples: list[tuple[float, ...]] = field(default_factory=list)
    ups: list[tuple[float, float]] = field(default_factory=list)
    sampled_at: list[float] = field(default_factory=list)

    @property
    def due(self) -> float:
        """When the next scrape falls, in seconds since the start."""
        return self.offset + self.stack.scrape * len(self.ups)

    def scrape(self, now: float) -> None:
        """Take a sample."""
        self.ups.append((now, 0.0 if self.gone else 1.0))
        if self.gone:
            return
        stale = self.frozen and self.samples
        self.times.append(now)
        self.samples.append(self.samples[-1] if stale else tuple(self.live.totals))
        self.sampled_at.append(self.sampled_at[-1] if stale else now)

    def _growth(self, now: float) -> tuple[list[float], float] | None:
        last = bisect_right(self.times, now) - 1
        first = bisect_right(self.times, now - self.stack.window)
        if last - first < 1:
            return None
        grown = [b - a for a, b in zip(self.samples[first], self.samples[last], strict=True)]
        return grown, self.times[last] - self.times[first]

    def p95(self, now: float) -> float | None:
        """`histogram_quantile(0.95, rate(...[window]))`; None when there is no series."""
        found = self._growth(now)
        return None if found is None else quantile(0.95, found[0])

    def useful(self, now: float) -> float | None:
        """Answers within the objective a second."""
        found = self._growth(now)
        return None if found is None else found[0][GOOD] / found[1]

    def up(self, now: float) -> float | None:
        """Whether the newest scrape was answered."""
        seen = [value for at, value in self.ups[-2:] if now - LOOKBACK_S < at <= now]
        return seen[-1] if seen else None

    def newest(self, now: float) -> float | None:
        """When the exporter took its newest sample, in seconds since the start."""
        last = bisect_right(self.times, now) - 1
        recent = last >= 0 and now - self.times[last] < LOOKBACK_S
        return self.sampled_at[last] if recent else None


@dataclass(frozen=True)
class Notice:
    """One webhook: when it arrives and what it says."""

    at: float
    firing: bool
    starts_at: float


@dataclass
class Alerting:
    """One alert rule on p95 and one group of one alert.

    Attributes:
        utilisation: the rule is on utilisation instead, and that is high all the time.
        lost: so many webhooks never arrive.
        doubled: each arrives twice, and the second copy late, behind younger ones.
    """

    stack: Stack
    scrapes: Scrapes
    offset: float
    utilisation: bool = False
    lost: int = 0
    doubled: bool = False
    active: bool = False
    starts_at: float = 0.0
    post: list[Notice] = field(default_factory=list)
    _looked: int = 0
    _pending_since: float | None = None
    _last_true: float = -math.inf
    _flush_at: float | None = None
    _told: bool | None = None

    @property
    def due(self) -> float:
        """When the rule is evaluated next or a notification goes out."""
        evaluation = self.offset + self.stack.evaluation * self._looked
        return evaluation if self._flush_at is None else min(evaluation, self._flush_at)

    def go_on(self, now: float) -> None:
        """Evaluate and notify, as far as that is due."""
        if now >= self.offset + self.stack.evaluation * self._looked:
            self._looked += 1
            self._evaluate(now)
        if self._flush_at is not None and now >= self._flush_at:
            self._notify(now)

    def _evaluate(self, now: float) -> None:
        p95 = self.scrapes.p95(now)
        if self.utilisation or (p95 is not None and p95 > OBJECTIVE_S):
            self._last_true = now
            if self._pending_since is None:
                self._pending_since = now
            if not self.active and now - self._pending_since >= self.stack.pending:
                self.active, self.starts_at = True, now
                if self._flush_at is None:
                    self._flush_at = now + self.stack.group_wait
        else:
            self._pending_since = None
            if self.active and now - self._last_true >= self.stack.keep:
                self.active = False

    def _notify(self, now: float) -> None:
        if self._told != self.active:
            self._told = self.active
            self._send(Notice(now + 0.2, self.active, self.starts_at))
        # A group that has nothing firing any more goes away with its last notification.
        self._flush_at = now + self.stack.group_interval if self.active else None

    def _send(self, notice: Notice) -> None:
        if self.lost > 0:
            self.lost -= 1
            return
        self.post.append(notice)
        if self.doubled:
            late = notice.at + 2 * self.stack.group_interval + 1
            self.post.append(Notice(late, notice.firing, notice.starts_at))

    def arrived(self, now: float) -> list[Notice]:
        """Take the webhooks that have arrived."""
        found = [notice for notice in self.post if notice.at <= now]
        self.post = [notice for notice in self.post if notice.at > now]
        return found
