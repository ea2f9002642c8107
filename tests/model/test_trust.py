"""The trust ladder: what a record of runs supports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.model.playbook import Mode
from remediator.model.trust import Record, Share, advise


def record(mode: Mode, improved: int = 0, unchanged: int = 0, **more: int) -> Record:
    return Record("p", mode, {"improved": improved, "unchanged": unchanged}, **more)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    # From the tables of R. G. Newcombe, Two-sided confidence intervals for the single proportion
    # (Statistics in Medicine 17, 1998), method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    assert Share(count, of).interval == pytest.approx((low, high), abs=5e-5)


@given(of=st.integers(1, 500), data=st.data())
def test_the_interval_holds_the_share_and_narrows_with_more_of_the_same(
    of: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, of))
    low, high = Share(count, of).interval
    assert 0 <= low <= count / of <= high <= 1
    tenfold = Share(10 * count, 10 * of).interval
    assert tenfold[1] - tenfold[0] < high - low


def test_without_a_run_nothing_is_known() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0, 1)
    for mode in Mode:
        assert advise(record(mode)).mode is mode


def test_a_few_good_runs_do_not_promote_and_enough_of_them_do() -> None:
    assert advise(record(Mode.PROPOSE, 5)).mode is Mode.PROPOSE
    assert advise(record(Mode.PROPOSE, 9)).mode is Mode.AUTO
    assert advise(record(Mode.PROPOSE, 9, 3)).mode is Mode.PROPOSE


def test_as_long_as_people_say_no_it_goes_on_asking() -> None:
    advice = advise(record(Mode.PROPOSE, 30, rejected=1))
    assert advice.mode is Mode.PROPOSE
    assert advice.reason.startswith("people said no once; what was approved helped 30 of 30 (")


def test_advice_before_any_run_is_a_sentence() -> None:
    told = "no run of it has ended yet"
    assert advise(record(Mode.AUTO)).reason == told
    assert advise(record(Mode.PROPOSE)).reason == f"too early to say: {told}"
    assert advise(record(Mode.OBSERVE)).reason == f"too early to say: {told}"
    no = advise(record(Mode.PROPOSE, rejected=2)).reason
    assert no == f"people said no 2 times; {told}"


def test_what_keeps_not_helping_is_advised_one_step_down() -> None:
    assert advise(record(Mode.AUTO, 1, 9)).mode is Mode.PROPOSE
    assert advise(record(Mode.PROPOSE, 1, 9)).mode is Mode.OBSERVE


def test_trouble_that_ends_by_itself_promotes_nothing() -> None:
    heals = record(Mode.OBSERVE, observed=20, healed=19)
    stays = record(Mode.OBSERVE, observed=20, healed=2)
    assert advise(heals).mode is Mode.OBSERVE
    assert "by itself" in advise(heals).reason
    assert advise(stays).mode is Mode.PROPOSE
