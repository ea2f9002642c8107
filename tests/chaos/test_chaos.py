"""Two storms that are short enough for every change; `python -m benchmarks.chaos` has long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness import Storm, weather
from tests.harness.nursery import Nursery

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def nursery(tmp_path: Path):
    started = Nursery(tmp_path / "nursery.log")
    yield started
    started.close()


@pytest.mark.xdist_group("chaos")
@pytest.mark.parametrize(
    ("controllers", "on_unknown"),
    [(1, "escalate"), (2, "probe")],
    ids=["one that escalates", "two that look"],
)
def test_in_a_storm_of_deaths_nothing_is_lost_or_doubled_or_stuck(
    tmp_path: Path, nursery: Nursery, controllers: int, on_unknown: str
) -> None:
    storm = Storm(runs=80, controllers=controllers, on_unknown=on_unknown, longest_s=20)
    left = weather(tmp_path / "w", nursery, storm)
    assert left.broken() == {}
    # A storm that did nothing proves nothing.
    assert left.kills >= 3
    assert left.runs >= 40, left.ends
    assert left.ends["remedy succeeded"] > 10, left.ends
