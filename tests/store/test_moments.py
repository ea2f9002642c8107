"""Times in the journal: whatever was stored can be read back, and order is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from remediator.store.tables import Moment

DIALECT = sqlite.dialect()
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
TIMES = st.builds(lambda at, zone: at.replace(tzinfo=zone), st.datetimes(), ZONES)


def through(at: datetime) -> datetime:
    back = Moment().process_result_value(Moment().process_bind_param(at, DIALECT), DIALECT)
    assert back is not None
    return back


@given(TIMES)
def test_any_time_that_anybody_can_send_is_read_back_as_utc(at: datetime) -> None:
    back = through(at)
    assert back.tzinfo is UTC
    at_an_end = at.year in {1, 9999}
    assert at_an_end or abs(back - at) < timedelta(milliseconds=1)


@pytest.mark.slow
@given(TIMES, TIMES)
def test_the_order_of_two_times_is_kept(one: datetime, two: datetime) -> None:
    assert (one <= two) <= (through(one) <= through(two))


def test_no_time_stays_no_time() -> None:
    assert Moment().process_bind_param(None, DIALECT) is None
    assert Moment().process_result_value(None, DIALECT) is None
