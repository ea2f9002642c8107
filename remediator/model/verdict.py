"""Measurements and the four-valued verdict: did the action help?

Pure. Called by the engine's verification, by throttle and by restore. The surprise: `unknown` is a
verdict of its own and never counts as success (design, section 4, "Verdicts in numbers").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median

from remediator.model.spec import Condition

# Design, section 4: worse = moved against the objective by more than max(10%, 2 x the MAD).
WORSE_RATIO = 0.10
WORSE_MADS = 2.0
# "at least two such samples"
ENOUGH_SAMPLES = 2


class ReadingStatus(StrEnum):
    """What a query gave."""

    OK = "ok"  # one finite number
    EMPTY = "empty"  # no series: no data, or a target that is gone
    NAN = "nan"  # not a number, as histogram_quantile gives on an idle service, or infinite
    MANY = "many"  # several series where one number was asked for
    ERROR = "error"  # the query could not be answered


@dataclass(frozen=True)
class Reading:
    """One answer of Prometheus to one query.

    Attributes:
        query: the PromQL as sent.
        at: when it was evaluated.
        status: what kind of answer it was.
        value: the number; None unless `status` is ok.
        detail: the error, or how many series there were.
    """

    query: str
    at: datetime
    status: ReadingStatus
    value: float | None = None
    detail: str = ""

    @classmethod
    def of(cls, query: str, at: datetime, value: float) -> Reading:
        """Make a reading from one number, which may be NaN or infinite."""
        if not math.isfinite(value):
            # x / 0 is infinite: it says that something is missing, not how bad it is.
            detail = "infinite" if math.isinf(value) else ""
            return cls(query=query, at=at, status=ReadingStatus.NAN, detail=detail)
        return cls(query=query, at=at, status=ReadingStatus.OK, value=value)

    def describe(self) -> str:
        """Say the answer as a person would."""
        if self.status is ReadingStatus.OK:
            return f"{self.value:.4g}"
        nan = "no finite number" if self.detail else "NaN (no samples to compute from)"
        words = {
            ReadingStatus.EMPTY: "no data",
            ReadingStatus.NAN: nan,
            ReadingStatus.MANY: "several series, one number was asked for",
            ReadingStatus.ERROR: "Prometheus could not answer",
        }
        return words[self.status] + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Vector:
    """One answer of Prometheus with a number for each of several series.

    Attributes:
        query: the PromQL as sent.
        at: when it was evaluated.
        values: (labels, value) of each series; NaN where it has no finite number.
        error: why there is no answer; empty when there is one, be it without a series.
    """

    query: str
    at: datetime
    values: tuple[tuple[dict[str, str], float], ...] = ()
    error: str = ""

    @property
    def finite(self) -> tuple[tuple[dict[str, str], float], ...]:
        """The series with a number that can be compared."""
        return tuple(one for one in self.values if math.isfinite(one[1]))

    def by(self, label: str) -> dict[str, float | None]:
        """Return the values by one label; of several series with the same one, the smallest.

        None where any of them has no finite number: nobody can say, and that is not fine.
        """
        found: dict[str, float | None] = {}
        for labels, value in self.values:
            name = labels.get(label, "")
            known = found.get(name, value)
            found[name] = min(value, known) if known is not None and math.isfinite(value) else None
        return found


class Verdict(StrEnum):
    """What an action did."""

    IMPROVED = "improved"  # the condition held for `for`
    UNCHANGED = "unchanged"  # measured well enough, and it did not come to hold
    WORSE = "worse"  # it moved against the objective
    UNKNOWN = "unknown"  # too few usable measurements to say


@dataclass(frozen=True)
class Baseline:
    """What the signal was before the action.

    Attributes:
        level: median of the samples, in the signal's unit.
        spread: median absolute deviation, same unit.
    """

    level: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Baseline | None:
        """Return the baseline of the finite values, or None when there is none."""
        finite = [value for value in values if math.isfinite(value)]
        if not finite:
            return None
        level = median(finite)
        return cls(level=level, spread=median(abs(value - level) for value in finite))


def fresh(
    readings: Sequence[Reading], *, acted_at: datetime, window: timedelta
) -> tuple[Reading, ...]:
    """Return the readings whose whole look-back window lies after the action."""
    return tuple(r for r in readings if r.at - window >= acted_at)


def where_sampled(
    readings: Sequence[Reading], sampled_at: Sequence[Reading], *, scrape: timedelta
) -> tuple[Reading, ...]:
    """Return the readings, with no data in the place of those that rest on an old sample (R8).

    Args:
        readings: what was measured, oldest first.
        sampled_at: when the newest sample was taken (seconds since 1970), measured beside them.
        scrape: a sample older than two of these is too old; so is one that has not moved for one,
            whatever time it claims.
    """
    return tuple(_where_sampled(reading, sampled_at, scrape) for reading in readings)


def _where_sampled(reading: Reading, sampled_at: Sequence[Reading], scrape: timedelta) -> Reading:
    beside = next((s for s in sampled_at if s.at >= reading.at), None)
    if beside is None or beside.value is None:
        told = "not asked" if beside is None else beside.describe()
        return _no_data(reading, f"when it was sampled: {told}")
    age = timedelta(seconds=beside.at.timestamp() - beside.value)
    earlier = [s.value for s in sampled_at if s.at <= beside.at - scrape and s.value is not None]
    if age > 2 * scrape:
        return _no_data(reading, f"the newest sample is {age.total_seconds():.0f} s old")
    if earlier and earlier[-1] >= beside.value:
        return _no_data(reading, "the newest sample stands still")
    return reading


def _no_data(reading: Reading, why: str) -> Reading:
    return replace(reading, status=ReadingStatus.EMPTY, value=None, detail=why)


def held_for(readings: Sequence[Reading], condition: Condition) -> timedelta:
    """Return how long the condition has held without a break, ending at the newest reading.

    A reading that is not a number breaks the streak: no data is not good news.
    """
    newest = oldest = None
    for reading in reversed(readings):
        if reading.value is None or not condition.holds(reading.value):
            break
        newest = newest or reading.at
        oldest = reading.at
    return newest - oldest if newest and oldest else timedelta()


def has_held(readings: Sequence[Reading], condition: Condition, hold: timedelta) -> bool:
    """Say whether the condition holds at the newest reading and has for `hold` without a break.

    With a `hold` of zero it still has to hold now.
    """
    newest = readings[-1].value if readings else None
    if newest is None or not condition.holds(newest):
        return False
    return held_for(readings, condition) >= hold


def is_worse(readings: Sequence[Reading], condition: Condition, baseline: Baseline | None) -> bool:
    """Say whether the newest two usable readings both moved against the objective.

    The bound is `max(10% of the level, 2 x MAD)` beyond the baseline (design, section 4).
    """
    usable = [r.value for r in readings if r.value is not None]
    if baseline is None or len(usable) < ENOUGH_SAMPLES:
        return False
    margin = max(WORSE_RATIO * abs(baseline.level), WORSE_MADS * baseline.spread)
    sign = 1.0 if condition.below is not None else -1.0
    return all(
        not condition.holds(value) and sign * (value - baseline.level) > margin
        for value in usable[-ENOUGH_SAMPLES:]
    )


def judge(
    readings: Sequence[Reading],
    *,
    condition: Condition,
    hold: timedelta,
    baseline: Baseline | None,
    out_of_time: bool,
) -> Verdict | None:
    """Return the verdict, or None while it is too early to say.

    Args:
        readings: fresh readings only, oldest first (see `fresh`).
        condition: what must come to hold.
        hold: how long it must hold without a break.
        baseline: the signal before the action, if it was measured.
        out_of_time: no more measurements will come.
    """
    usable = [r for r in readings if r.value is not None]
    newest_is_number = bool(readings) and readings[-1].value is not None
    if len(usable) >= ENOUGH_SAMPLES and newest_is_number:
        if has_held(readings, condition, hold):
            return Verdict.IMPROVED
        if is_worse(readings, condition, baseline):
            return Verdict.WORSE
    if not out_of_time:
        return None
    # The share that could not be read must not outvote what was read.
    if len(usable) < ENOUGH_SAMPLES or not newest_is_number:
        return Verdict.UNKNOWN
    return Verdict.UNCHANGED
