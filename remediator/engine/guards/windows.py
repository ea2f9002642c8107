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
    ahead = (now + CLOCK_CHANGE).astimezone(ZoneInfo(window.timezone)).replace(microsecond=0)
    for start in CronSim(window.cron, ahead, reverse=True):
        in_utc = start.astimezone(now.tzinfo)
        if in_utc <= now:
            # Later starts end later: no earlier one can hold what the last one does not.
            return in_utc if now < in_utc + window.length else None
    return None
