"""promtool's notation: what is written out means what promtool reads."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remediator.rehearsal.promtool import Promtool, Question
from remediator.rehearsal.series import Series, metric_of, replace, samples_of

QUARTER = timedelta(seconds=15)
NOTATIONS = ["5", "5x3", "0+2x4", "10-2.5x4", "-1+1x3", "1 _ 3", "1 _x3 2x1", "1 stale 2", "1e2x1"]


@pytest.mark.real
@pytest.mark.parametrize("values", NOTATIONS)
def test_what_is_written_out_is_what_promtool_reads(promtool: Promtool, values: str) -> None:
    written = " ".join(samples_of(values))
    questions = [Question("last_over_time(x[15s])", QUARTER * index) for index in range(10)]
    questions += [Question("x", QUARTER * index) for index in range(10)]
    told = [
        promtool.evaluate(questions, series=[Series("x", text)], interval=QUARTER)
        for text in (values, written)
    ]
    assert told[0] == told[1]
    assert any(answer.samples for answer in told[0])


@pytest.mark.parametrize("values", ["foo", "5x", "x5", "1+2", "_x", "stalex3", "1 2 3z", "--1"])
def test_what_is_no_notation_is_refused_with_the_part(values: str) -> None:
    with pytest.raises(ValueError, match=r"is not a sample; write 5, 5x10"):
        samples_of(values)


def test_a_sequence_beyond_a_day_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="more than 86400 samples"):
        samples_of("0+1x99999999999")


def test_a_series_is_the_same_whatever_the_order_and_spacing_of_its_labels() -> None:
    assert metric_of('up{a="1", b="2"}') == metric_of('up{ b = "2",a="1" }')
    assert metric_of("up") == metric_of("up{}")
    assert metric_of('{__name__="up"}') != metric_of("up")


@pytest.mark.parametrize("series", ["", "up{", "up{a=1}", "up{a}", "1up", 'up{a="1"} 5', "a b"])
def test_what_is_no_series_is_refused(series: str) -> None:
    with pytest.raises(ValueError, match="is not a series"):
        metric_of(series)


def test_a_replaced_series_keeps_its_past_and_the_others_all_they_have() -> None:
    known = [Series("a", "1x5"), Series("b", "2x5")]
    after = replace(known, [Series("a", "9x1"), Series("c", "7")], at=3)
    assert {s.series: samples_of(s.values) for s in after} == {
        "a": ["1.0", "1.0", "1.0", "9.0", "9.0"],
        "b": ["2.0"] * 6,
        "c": ["_", "_", "_", "7.0"],
    }


def test_a_series_that_had_ended_begins_again_after_a_gap() -> None:
    (after,) = replace([Series("a", "1")], [Series("a", "9")], at=3)
    assert samples_of(after.values) == ["1.0", "_", "_", "9.0"]
