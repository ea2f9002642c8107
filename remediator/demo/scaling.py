"""Divide every duration in a rule, playbook or Alertmanager file by one factor.

The stack calls it so that a demo takes minutes instead of hours and still runs the shipped files.
The surprise: it works on the text, not on parsed YAML, so that lines and comments stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from remediator.model.duration import parse_duration

KEPT = ("timeout", "drain_within", "ready_within")
"""Keys whose durations stay: how long a real process may take does not shrink with the story."""

_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
# A mapping value that is nothing but a duration (`for: 30s`, `{per: 10m}`); prose is left alone.
_VALUE = re.compile(
    rf"""(?P<key>\w*)(?P<before>["']?:[ \t]+)(?P<quote>["']?)(?P<length>{_DURATION})(?P=quote)"""
    r"""(?=[ \t]*(?:$|[,}\]#]))""",
    re.MULTILINE,
)
_RANGE = re.compile(rf"\[(?P<length>{_DURATION})(?P<colon>:(?P<step>{_DURATION})?)?\]")
_OFFSET = re.compile(rf"(?P<before>\boffset[ \t]+-?)(?P<length>{_DURATION})")


def scale_durations(
    text: str,
    factor: float,
    *,
    floor_s: int = 1,
    range_floor_s: int | None = None,
    keep: Collection[str] = KEPT,
) -> str:
    """The same YAML text with every duration divided by ``factor``, in whole seconds, rounded up.

    Args:
        text: rules, a playbook or an Alertmanager configuration.
        factor: 1 gives the text back unchanged; 10 makes ``5m`` into ``30s``.
        floor_s: nothing but a zero becomes shorter than this, in seconds.
        range_floor_s: the same for ranges in PromQL (``[1m]``), which see nothing at all when they
            are shorter than a few scrapes; ``floor_s`` when left out.
        keep: keys whose value is left as it is.

    Raises:
        ValueError: the factor is not positive.
    """
    if factor <= 0:
        raise ValueError(f"a factor of {factor} cannot divide a duration; it must be above 0")
    if factor == 1:
        return text
    range_floor = floor_s if range_floor_s is None else range_floor_s

    def shorter(duration: str, floor: int) -> str:
        length = parse_duration(duration).total_seconds()
        return f"{max(floor, math.ceil(length / factor))}s" if length else duration

    def value(match: re.Match[str]) -> str:
        if match["key"] in keep:
            return match[0]
        quote = match["quote"]
        return f"{match['key']}{match['before']}{quote}{shorter(match['length'], floor_s)}{quote}"

    def selector(match: re.Match[str]) -> str:
        step = shorter(match["step"], floor_s) if match["step"] else ""
        return f"[{shorter(match['length'], range_floor)}{':' if match['colon'] else ''}{step}]"

    def offset(match: re.Match[str]) -> str:
        return match["before"] + shorter(match["length"], floor_s)

    return _OFFSET.sub(offset, _RANGE.sub(selector, _VALUE.sub(value, text)))
