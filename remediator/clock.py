"""The only place that reads the wall clock. Everything else takes `now` as an argument.

`Clock` is a plain callable, so a test passes a function that returns a value it moves by hand.
Leases do not use it: they use the clock of the database (see `store.database`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)
