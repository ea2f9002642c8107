"""The real promtool answers; what it says is read strictly."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest

from remediator.errors import ConfigurationError
from remediator.rehearsal.promtool import Answer, Promtool, Question
from remediator.rehearsal.series import Series

QUARTER = timedelta(seconds=15)


def ask(promtool: Promtool, *asked: tuple[str, float], series: list[Series]) -> list[Answer]:
    questions = [Question(promql, timedelta(seconds=at)) for promql, at in asked]
    return promtool.evaluate(questions, series=series, interval=QUARTER)


@pytest.mark.real
def test_answers_come_in_the_order_of_the_questions_with_labels_and_full_precision(
    promtool: Promtool,
) -> None:
    series = [Series('a{i="1"}', "0.1 0.2"), Series('a{i="2"}', "123456789012345 1e-300")]
    first, second, third = ask(promtool, ("a", 15), ("a", 0), ("sum(a)", 14.999), series=series)
    assert first.samples == (
        ({"__name__": "a", "i": "1"}, 0.2),
        ({"__name__": "a", "i": "2"}, 1e-300),
    )
    assert [value for _, value in second.samples] == [0.1, 123456789012345.0]
    assert third.samples == (({}, 123456789012345.1),)


@pytest.mark.real
def test_a_label_may_hold_anything(promtool: Promtool) -> None:
    hostile = 'a"b\\c\nd{e}, f="g" 1E+00\u2028é'
    written = hostile.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (answer,) = ask(promtool, ("a", 0), series=[Series(f'a{{i="{written}"}}', "1")])
    assert answer.samples == (({"__name__": "a", "i": hostile}, 1.0),)


@pytest.mark.real
def test_nothing_nan_infinity_and_an_error_are_told_apart(promtool: Promtool) -> None:
    series = [Series("a", "NaN Inf -Inf stale")]
    found = ask(promtool, *(("a", at) for at in (0, 15, 30, 45)), ("sum(", 0), series=series)
    nan, up, down, gone, broken = found
    assert math.isnan(nan.samples[0][1])
    assert (up.samples[0][1], down.samples[0][1]) == (math.inf, -math.inf)
    assert gone == Answer()
    assert "unclosed left parenthesis" in broken.error


@pytest.mark.real
def test_no_series_at_all_is_no_data(promtool: Promtool) -> None:
    assert ask(promtool, ("up", 60), series=[]) == [Answer()]


@pytest.mark.real
def test_recording_rules_are_evaluated(promtool: Promtool, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: g, rules: [{record: double, expr: a * 2}]}]")
    (answer,) = promtool.evaluate(
        [Question("double", timedelta(seconds=15))],
        series=[Series("a", "1 3")],
        interval=QUARTER,
        rule_files=[rules],
    )
    assert answer.samples == (({"__name__": "double"}, 6.0),)


@pytest.mark.real
def test_broken_rules_end_the_rehearsal_with_promtools_own_words(
    promtool: Promtool, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: g, rules: [{record: double, expr: 'a *'}]}]")
    with pytest.raises(ConfigurationError, match="parse error"):
        promtool.evaluate([Question("a", QUARTER)], series=[], interval=QUARTER, rule_files=[rules])


def a_program(folder: Path, says: str) -> Promtool:
    (folder / "said").write_text(says)
    program = folder / "promtool"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "promtool, version 9.9" && exit\n'
        f'cat "{folder}/said"\nexit 1\n'
    )
    program.chmod(0o755)
    return Promtool(str(program))


ASKED = '    expr: "a", time: 15s,\n        exp: {x="1"} 1E+00\n'


@pytest.mark.parametrize(
    "says",
    [
        "",
        "  FAILED:\n" + ASKED,
        "  FAILED:\n" + ASKED + "        got: something new\n",
        "  FAILED:\n" + ASKED + '        got: {__name__="a"} 1E+00 @12\n',
        "  FAILED:\n" + ASKED + '        got: {__name__="a" 1E+00\n',
        "  FAILED:\n" + 2 * (ASKED + "        got: nil\n"),
    ],
)
def test_what_is_not_understood_ends_the_rehearsal_and_names_the_version(
    tmp_path: Path, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"promtool 9\.9"):
        ask(a_program(tmp_path, says), ("a", 15), series=[])


def test_a_line_that_a_newer_promtool_puts_before_its_answer_does_no_harm(tmp_path: Path) -> None:
    says = "  FAILED:\n    name: a group,\n" + ASKED + '        got: {__name__="a"} 2.5E+00\n'
    (answer,) = ask(a_program(tmp_path, says), ("a", 15), series=[])
    assert answer.samples == (({"__name__": "a"}, 2.5),)


def test_without_promtool_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="apt-get install prometheus"):
        Promtool.found()
