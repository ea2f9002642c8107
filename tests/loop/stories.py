"""The stories of the closed loop: how trouble comes, and what goes wrong beside it.

Used by the tests beside it and by `benchmarks/closed_loop.py`. Trouble begins at ten minutes.
"""

from __future__ import annotations

import math
from functools import partial

from tests.loop.plants import Shape

START_S, END_S = 600, 1500
DAY_S = 24 * 3600


def step(at: float) -> float:
    """All of it at once, for a quarter of an hour."""
    return float(START_S <= at < END_S)


def ramp(at: float) -> float:
    """More and more for ten minutes, all of it for five, then none."""
    return min(1.0, (at - START_S) / 600) if START_S <= at < END_S else 0.0


def pulse(at: float) -> float:
    """Half a minute of it: over before anybody can do something about it."""
    return float(START_S <= at < START_S + 30)


def square(period_s: float) -> Shape:
    """Half of every period, for half an hour."""
    return partial(_wave, period_s)


def _wave(period_s: float, at: float) -> float:
    inside = START_S <= at < START_S + 1800
    return float(inside and (at - START_S) % period_s < period_s / 2)


def daily(at: float) -> float:
    """A day in four hours: none at night, all of it at noon."""
    return max(0.0, -math.cos(2 * math.pi * at / (4 * 3600)))


def calm(_at: float) -> float:
    """Nothing."""
    return 0.0


FAULTS = (
    "exporter frozen",
    "target silent",
    "webhooks lost",
    "webhooks doubled and late",
    "controller dies in the middle",
    "a person pins the knob",
    "another writer leases the knob",
)
