"""The ineffectiveness breaker: a playbook that keeps not helping is held back.

Pure. Called by admission with the runs of one playbook and class that ended, oldest first. The
surprise: nothing is stored. Where the breaker stands follows from the runs alone, so it is the same
on every replica and after every restart. It is asked before a new run and nowhere else: what is
held goes on being renewed, rolled back and restored while it is open. And a run whose alert has not
stopped firing when the next one is asked for did not help, whatever it proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from remediator.model.guard import Breaker, BreakerGuard
from remediator.model.playbook import Playbook
from remediator.model.run import Run
from remediator.model.verdict import Verdict

# A trial a day is let through, however often trials have failed.
LONGEST_RESET = timedelta(hours=24)
# From one second, doubling takes 17 failed trials to reach the longest reset.
TRIALS_SEEN = 20


@dataclass(frozen=True)
class Standing:
    """Where a breaker stands.

    Attributes:
        failures: runs in a row that did not help.
        opened_by: the run whose failure opened it; None while it is closed.
        until: it is open until then, and half-open from then on; None while it is closed.
        reset: how long it is open at a time; doubled by every trial that failed.
        failed_trial: the newest trial run that did not help, either.
    """

    failures: int
    opened_by: int | None
    until: datetime | None
    reset: timedelta
    failed_trial: int | None


def breaker_of(plan: Playbook) -> Breaker:
    """Return the breaker of a playbook: its own, or the one that every playbook has."""
    own = (guard.breaker for guard in plan.guards if isinstance(guard, BreakerGuard))
    return next(own, Breaker())


def standing(
    ended: Sequence[Run],
    spec: Breaker,
    *,
    alert_id: int | None = None,
    fires_since: datetime | None = None,
) -> Standing:
    """Say where the breaker stands after these runs, oldest first.

    Args:
        ended: the runs that say something about the playbook.
        spec: the breaker.
        alert_id: the alert for which one more run is asked for.
        fires_since: since when it has not stopped firing.
    """
    closed = Standing(0, None, None, min(spec.reset, LONGEST_RESET), None)
    now = closed
    for run in ended:
        fired_on = alert_id is not None and run.alert_id == alert_id and _by_then(run, fires_since)
        helped = run.verdict is Verdict.IMPROVED and not fired_on
        now = closed if helped else _failed(now, run, spec)
    return now


def _by_then(run: Run, fires_since: datetime | None) -> bool:
    """Say whether the alert fired already when the run ended."""
    return fires_since is not None and fires_since <= (run.closed_at or run.opened_at)


def _failed(before: Standing, run: Run, spec: Breaker) -> Standing:
    failures, ended = before.failures + 1, run.closed_at or run.opened_at
    if failures < spec.failures:
        return Standing(failures, None, None, before.reset, None)
    if before.until is None:
        return Standing(failures, run.id, ended + before.reset, before.reset, None)
    if run.opened_at < before.until:
        # It began before the breaker opened, or a person waived the breaker: no trial.
        until = max(before.until, ended + before.reset)
        return Standing(failures, before.opened_by, until, before.reset, before.failed_trial)
    doubled = min(2 * before.reset, LONGEST_RESET)
    return Standing(failures, before.opened_by, ended + doubled, doubled, run.id)
