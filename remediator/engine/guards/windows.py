"""Windows: recurring stretches of time in a time zone, daylight saving and all.

Pure. The surprise: a window lasts as long as it says in real time. One that begins at a wall-clock
time which a change of the clocks skips begins right after the gap, and one whose time comes twice
begins the first time, as Debian's cron does it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from remediator.model.guard import WindowSpec

# Wall clocks have been changed by up to three hours: starts this far ahead of now, on the wall,
# may lie behind it in truth.
CLOCK_CHANGE = timedelta(hours=3)


def began(window: WindowSpec, now: datetime) -> datetime | None:
    """Return when the window that holds `now` began, in UTC; None outside of it.

    Raises:
        CronSimError, ZoneInfoNotFoundError: the window is none; the language refuses it at load
            time.
    """
    # Later starts end later: no earlier one can hold what the last one does not.
    start = last_start(window.cron, window.timezone, now)
    return start if start is not None and now < start + window.length else None


def last_start(cron: str, timezone: str, now: datetime) -> datetime | None:
    """Return the newest time of a cron that is not in the future, in UTC; None without any.

    Raises:
        CronSimError, ZoneInfoNotFoundError: as above.
    """
    ahead = (now + CLOCK_CHANGE).astimezone(ZoneInfo(timezone)).replace(microsecond=0)
    starts = (start.astimezone(now.tzinfo) for start in CronSim(cron, ahead, reverse=True))
    return next((start for start in starts if start <= now), None)
