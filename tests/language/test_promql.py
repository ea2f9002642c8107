"""How far a query looks back, and what is said of one that gives no number."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remediator.language import promql
from remediator.language.loader import load_text
from remediator.model.step import ThrottleStep
from tests.language.texts import playbook


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("up", 0),
        ("vector(1)", 0),
        ("rate(x[5m])", 300),
        ("rate(x[1m]) / rate(y[10m])", 600),
        ("x offset 5m", 300),
        ("x offset -5m", 0),
        ("rate(x[1m] offset 5m)", 360),
        ("max_over_time(rate(x[1m])[10m:30s])", 660),
        ("max_over_time(rate(x[1m] offset 2m)[10m:30s] offset 1m)", 840),
        ("histogram_quantile(0.95, sum by (le) (rate(x[1m])))", 60),
        ("topk(scalar(max_over_time(n[7m])), x)", 420),
        ("-(avg_over_time(x[90s]))", 90),
        ("x and on (instance) rate(y[2m]) > 0", 120),
    ],
)
def test_a_query_looks_back_over_its_ranges_subqueries_and_offsets(
    query: str, seconds: int
) -> None:
    assert promql.window_of(query) == timedelta(seconds=seconds)


def test_the_window_of_what_is_not_promql_is_an_error() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        promql.window_of("sum(rate(x[1m])")


@pytest.mark.parametrize(
    "query",
    [
        "(" * 3000 + "up" + ")" * 3000,
        "-" * 3900 + "1",
        "+".join(["a"] * 1900),
        " or ".join(["a"] * 700),
        "abs(" * 700 + "a" + ")" * 700,
        "x" * 5000,
        "# '\n" + "(" * 3000 + "# '",
    ],
    ids=["brackets", "signs", "sums", "ors", "calls", "length", "hidden in a comment"],
)
def test_a_query_that_would_overflow_the_parsers_stack_never_reaches_it(query: str) -> None:
    ((message, _),) = promql.problems(query)
    assert "a query" in message


@pytest.mark.parametrize(
    "query", ["up", "sum(a > 1)", "1", "a and b > 1", "scalar(up)", "rate(x[1m]) unless y"]
)
def test_one_number_is_fine(query: str) -> None:
    assert promql.problems(query) == []


def test_windows_left_out_are_read_from_the_queries_and_pinned() -> None:
    loaded = load_text(
        playbook(
            """
            vars:
              range: 1m
              p95: 'max(rate(x{instance="${{ target.instance }}"}[${{ vars.range }}] offset 10s))'
            steps:
              - throttle: {signal: '${{ vars.p95 }}', objective: 1}
                verify: {query: '${{ vars.p95 }}', below: 1, within: 2m}
            """
        ),
        path="p.yaml",
    )
    assert loaded.problems == ()
    assert loaded.playbook is not None
    (step,) = loaded.playbook.steps
    assert isinstance(step, ThrottleStep)
    assert step.verify is not None
    assert step.throttle.window == step.verify.window == timedelta(seconds=70)


def test_a_window_that_was_given_is_kept() -> None:
    loaded = load_text(
        playbook(
            """
            steps:
              - restart: {}
                on_unknown: escalate
                verify: {query: 'up{job="${{ target.job }}"}', above: 0, within: 2m, window: 30s}
            """
        ),
        path="p.yaml",
    )
    assert loaded.playbook is not None
    verify = loaded.playbook.steps[0].verify
    assert verify is not None
    assert verify.window == timedelta(seconds=30)


@pytest.mark.parametrize(
    "query",
    [
        "rate(x[1e30])",
        "x[5m:1e30]",
        f"up[{'9' * 200}]",
        "up offset 1e30",
        "up[5m] offset -1e30",
        "up offset - 1e30",
    ],
)
def test_a_query_on_which_the_parser_panics_is_a_problem_like_any_other(query: str) -> None:
    ((message, _),) = promql.problems(query)
    assert message.startswith("not PromQL: ")
    with pytest.raises(ValueError, match=r"beyond all calendars|the parser fails"):
        promql.window_of(query)


def test_large_numbers_that_are_no_lengths_of_time_stand_as_they_are() -> None:
    for query in ("up * 1e30", 'up{a="x[1]"} offset 5m', "x @ 1700000000", "rate(x[1e3])"):
        assert promql.parse(query)
