"""Durations at the edge are Prometheus strings (`5m`, `1h30m`); inside they are `timedelta`.

Used by the playbook models and by whoever prints a duration back to a person.
Grammar: https://prometheus.io/docs/prometheus/latest/querying/basics/#float-literals-and-time-durations
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS_MS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_PATTERN = "".join(rf"(?:(?P<{unit}>[0-9]+){unit})?" for unit in _UNITS_MS)
DURATION = re.compile(_PATTERN)
# The same for editors; more digits than these are longer than `LONGEST` in any unit.
WRITTEN = f"^(?=.){''.join(f'([0-9]{{1,11}}{unit})?' for unit in _UNITS_MS)}$"
# Characters of what is no duration that fit into a sentence.
_FITS = 40
# A longer one is a slip of the pen, and added to a date it could leave the calendar.
LONGEST = timedelta(days=365)


def parse_duration(text: str) -> timedelta:
    """Return the length of a Prometheus duration such as `90s` or `1h30m`.

    Raises:
        ValueError: not a duration; the message shows the accepted form.
    """
    match = DURATION.fullmatch(text)
    shown = repr(text if len(text) <= _FITS else text[:_FITS] + "...")
    if not text or match is None:
        msg = f"{shown} is not a duration; write it like 30s, 5m or 1h30m"
        raise ValueError(msg)
    parts = match.groupdict(default="0")
    try:
        return timedelta(milliseconds=sum(int(parts[unit]) * ms for unit, ms in _UNITS_MS.items()))
    except (OverflowError, ValueError) as error:
        # Python neither counts so far nor reads more than 4,300 digits.
        msg = f"{shown} is longer than any time there is"
        raise ValueError(msg) from error


def format_duration(value: timedelta) -> str:
    """Return the shortest Prometheus duration for `value`, down to milliseconds."""
    left = round(value.total_seconds() * 1000)
    if left <= 0:
        return "0s"
    parts = []
    for unit, ms in _UNITS_MS.items():
        if unit in {"y", "w"}:
            continue
        count, left = divmod(left, ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _coerce(value: Any) -> Any:
    length = parse_duration(value) if isinstance(value, str) else value
    if not isinstance(length, timedelta):
        msg = f"{value!r} is not a duration; write it with a unit, like 30s or 5m"
        raise ValueError(msg)  # noqa: TRY004 - pydantic wants ValueError
    if length > LONGEST:
        shown = repr(value) if isinstance(value, str) else format_duration(length)
        msg = f"{shown} is longer than {format_duration(LONGEST)}"
        raise ValueError(msg)
    return length


Duration = Annotated[
    timedelta,
    BeforeValidator(_coerce),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "description": "A Prometheus duration: 30s, 5m, 1h30m.",
            "pattern": WRITTEN,
        }
    ),
]
