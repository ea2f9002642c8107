"""Cron expressions and time zones: is it one, and does it ever come?

Called by the checks of schedules and windows. The surprise: cronsim, which reads the expressions
when they are used, also takes a sixth field for seconds; the language does not.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

FIELDS = 5
# Any moment will do: whether a time ever comes does not depend on when one begins to wait.
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def cron_problem(expression: str) -> tuple[str, str] | None:
    """Say what is wrong with a cron expression, as message and hint; None when nothing is."""
    hint = "minute hour day month weekday, such as 0 8 * * MON-FRI"
    if len(expression.split()) != FIELDS:
        return f"{expression!r} is not a cron expression", hint
    try:
        next(CronSim(expression, _SOME_DAY))
    except CronSimError as error:
        return f"{expression!r} is not a cron expression: {str(error).lower()}", hint
    except StopIteration:
        return f"{expression!r} never comes", hint
    return None


def always_within(expression: str, length: timedelta) -> bool:
    """Say whether windows of this length, begun whenever a cron expression says, leave no gap."""
    if cron_problem(expression):
        return False
    # Two years show every gap that a minute, hour, day, month or weekday can make.
    before: datetime | None = None
    end = _SOME_DAY + timedelta(days=730)
    for begin in CronSim(expression, _SOME_DAY):
        if before is not None and begin - before > length:
            return False
        if begin > end:
            return True
        before = begin
    return False


def zone_problem(name: str) -> tuple[str, str] | None:
    """Say what is wrong with a time zone's name, as message and hint; None when nothing is."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A name may also be a folder of the database, or lead out of it.
        return f"{name!r} is not a time zone", _nearest_zone(name)
    return None


def _nearest_zone(name: str) -> str:
    folded = {zone.casefold(): zone for zone in available_timezones()}
    close = get_close_matches(name.casefold(), sorted(folded), n=1)
    return f"did you mean {folded[close[0]]!r}?" if close else "an IANA name: Europe/Berlin"
