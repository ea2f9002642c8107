"""How far and how fast; and that no path is ever made of what is no job id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detector_service.jobs.pace import Pace, backlog_s, view
from detector_service.jobs.shelf import Shelf
from detector_service.jobs.video import State
from tests.detector.jobs.test_journal import FILM, fresh
from tests.detector.toys import Clock


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    clock = Clock(0)
    pace = Pace(100, clock)
    assert pace.fps is None
    for frames in range(110, 310, 10):  # ten a second
        clock.forward(1)
        pace.note(frames)
    for frames in range(320, 520, 20):  # then twenty
        clock.forward(1)
        pace.note(frames)
    assert pace.fps == pytest.approx(20)


def test_what_is_left_is_told_as_far_as_the_header_knows() -> None:
    clock = Clock(0)
    pace = Pace(0, clock)
    clock.forward(10)
    pace.note(50)
    running = fresh(state=State.RUNNING, film=replace(FILM, frames=200, duration_s=8.0))
    seen = view(running, pace)
    assert (seen.frames_done, seen.frames_total, seen.fps, seen.eta_s) == (50, 200, 5, 30)
    assert backlog_s(seen) == 6
    pace.note(250)
    assert view(running, pace).frames_total == 250, "the film goes on behind what its header says"
    blind = view(replace(running, film=FILM), pace)
    assert (blind.frames_total, blind.eta_s, backlog_s(blind)) == (None, None, 0)


@pytest.mark.parametrize("name", ["..", "", "a/b", "/etc", "d." + "a" * 25 + "/", "d.\x00"])
def test_a_shelf_makes_no_path_of_what_is_no_id(tmp_path: Path, name: str) -> None:
    shelf = Shelf(tmp_path)
    for ask in (shelf.source, shelf.annotated, shelf.make):
        with pytest.raises(ValueError, match="no job id"):
            ask(name)
