"""How fast the controller moves: every interval and bound that is not a playbook's business.

Built by `app` from settings and passed on as a value. Defaults fit a stack that scrapes and
evaluates every 15 s; sources are named where a number is not simply a choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Pace:
    """Intervals and bounds.

    Attributes:
        scrape: how often Prometheus scrapes the targets.
        evaluation: how often it evaluates rules.
        hold_down: least time between two moves of one knob (rule R3: `max(2*scrape + eval, 60 s)`).
        lease: how long a process owns a run without renewing (takeover waits at most this).
        review: how often a firing alert without a run is looked at again.
        quiet_window: an alert that re-fires this soon continues its old episode.
        absent_for: an alert not heard of for this long, and not listed, is over.
        evidence_max_age: evidence older than this is not acted on.
        max_hold: no change is held longer than this (design, section 4: 4 h).
        actions, actions_per: forward actions on one target in a window (rule R10: 6 in 10 min).
        watchdog_within: silence of the Watchdog that makes us blind; None = not watched.
        retention: how long closed stories are kept.
    """

    scrape: timedelta = timedelta(seconds=15)
    evaluation: timedelta = timedelta(seconds=15)
    hold_down: timedelta = timedelta(seconds=60)
    lease: timedelta = timedelta(seconds=30)
    review: timedelta = timedelta(seconds=15)
    quiet_window: timedelta = timedelta(minutes=5)
    absent_for: timedelta = timedelta(minutes=2)
    evidence_max_age: timedelta = timedelta(seconds=30)
    max_hold: timedelta = timedelta(hours=4)
    actions: int = 6
    actions_per: timedelta = timedelta(minutes=10)
    watchdog_within: timedelta | None = None
    retention: timedelta = timedelta(days=30)

    @property
    def two_scrapes(self) -> timedelta:
        """Time in which two fresh scrapes have been evaluated."""
        return 2 * self.scrape + self.evaluation
