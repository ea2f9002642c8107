"""Series in promtool's notation, and how they change in the middle of a test.

Used by `promtool` and `facts`. The surprise: a text that nothing replaces is handed to promtool as
it was written, so that its meaning is promtool's; only a series that an action changes is written
out sample by sample.
Notation: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/#series
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

# What one sequence may hold: a day of samples at one second.
MOST_SAMPLES = 86_400
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[iI]nf|[nN]a[nN]"
_SEQUENCE = re.compile(
    rf"(?P<first>{_NUMBER})(?P<step>[-+](?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)?"
    r"(?:x(?P<times>[0-9]+))?"
)
_BLANK = re.compile(r"_(?:x(?P<times>[0-9]+))?")
_METRIC = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)?\s*(?:\{(?P<labels>.*)\})?\s*", flags=re.DOTALL
)
_LABEL = re.compile(
    r"\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?P<value>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"\s*(?:,|$)",
    flags=re.DOTALL,
)


def samples_of(values: str) -> list[str]:
    """Return one text a sample: a number, `_` for none, `stale` for the end of the series.

    Raises:
        ValueError: not promtool's notation; the message says which part.
    """
    found: list[str] = []
    for item in values.split():
        found += _expanded(item)
        if len(found) > MOST_SAMPLES:
            msg = f"more than {MOST_SAMPLES} samples"
            raise ValueError(msg)
    return found


def _expanded(item: str) -> list[str]:
    if item == "stale":
        return [item]
    if blank := _BLANK.fullmatch(item):
        return ["_"] * min(int(blank["times"] or 1), MOST_SAMPLES + 1)
    match = _SEQUENCE.fullmatch(item)
    if match is None or (match["step"] and not match["times"]):
        msg = f"{item!r} is not a sample; write 5, 5x10, 0+2x10, _, _x3 or stale"
        raise ValueError(msg)
    if match["times"] and match["first"][-1] in "fFnN":
        msg = f"{item!r} is not a sample; write {match['first']} as often as it is meant"
        raise ValueError(msg)
    # As promtool counts: `5x3` is the 5 and three more of them.
    times = min(int(match["times"] or 0), MOST_SAMPLES) + 1
    first, step = float(match["first"]), float(match["step"] or 0)
    return [_said(first + step * index) for index in range(times)]


def _said(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)


def metric_of(series: str) -> str:
    """Return a series' name and labels in one form, whatever their order and spacing.

    Raises:
        ValueError: not a series as PromQL writes it.
    """
    match = _METRIC.fullmatch(series.strip())
    labels: list[str] = []
    rest = (match["labels"] or "").strip() if match else ""
    while rest:
        label = _LABEL.match(rest)
        if label is None:
            match = None
            break
        labels.append(f"{label['name']}={label['value']}")
        rest = rest[label.end() :].strip()
    if match is None or not (match["name"] or labels):
        msg = f'{series!r} is not a series; write it like up{{instance="gpu-1"}}'
        raise ValueError(msg)
    return f"{match['name'] or ''}{{{', '.join(sorted(labels))}}}"


@dataclass(frozen=True)
class Series:
    """One series: its name and labels, and its samples from the test's first moment on."""

    series: str
    values: str

    def replaced(self, values: str, *, at: int) -> Series:
        """Return it with other samples from index `at` on."""
        kept = samples_of(self.values)[:at]
        gap = ["_"] * (at - len(kept))
        return Series(self.series, " ".join([*kept, *gap, *samples_of(values)]))


def replace(known: Iterable[Series], changed: Iterable[Series], *, at: int) -> tuple[Series, ...]:
    """Return the series with the changed ones replaced from index `at` on; new ones begin there.

    A counter that is replaced begins anew, as after a restart, which `rate()` knows.
    """
    found = {metric_of(one.series): one for one in known}
    for one in changed:
        metric = metric_of(one.series)
        before = found.get(metric, Series(one.series, ""))
        found[metric] = before.replaced(one.values, at=at)
    return tuple(found.values())
