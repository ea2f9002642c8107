"""Slips of the pen that look right: each is told at its place and in plain words."""

from __future__ import annotations

import pytest

from remediator.language.loader import load_text
from remediator.language.surroundings import Surroundings
from tests.language.texts import STEPS, playbook

PROOF = "verify: {query: 'up{instance=\"${{ target.instance }}\"}', above: 0, within: 2m}"


def told(rest: str, surroundings: Surroundings | None = None) -> list[str]:
    loaded = load_text(playbook(rest), path="p", surroundings=surroundings or Surroundings())
    return [str(problem).removeprefix("p:") for problem in loaded.problems]


LAX = {
    "priority: true": "priority: True is not a whole number",
    "priority: '5'": "priority: '5' is not a whole number",
    "on_failure: {undo: 'yes'}": "on_failure.undo: 'yes' is not true or false",
    "guards: [budget: {runs: true, per: 1m}]": "runs: True is not a whole number",
    "guards: [blast_radius: {share: '0.5'}]": "share: '0.5' is not a number",
    "guards: [require: {query: up, above: '1'}]": "above: '1' is not a number",
    "guards: [require: {query: up, above: true}]": "above: True is not a number",
    "guards: [cooldown: ' 30s ']": "cooldown: ' 30s ' is not a duration",
}


@pytest.mark.parametrize("line", LAX)
def test_a_text_or_a_truth_is_no_number(line: str) -> None:
    assert any(LAX[line] in problem for problem in told(f"{line}\n{STEPS}"))


def test_what_is_tuned_is_set_to_numbers() -> None:
    for value in ("true", "'480'"):
        assert told(f"steps: [{{retune: {{set: {{imgsz: {value}}}}}, {PROOF}}}]\n")
    assert told(f"steps: [{{retune: {{set: {{a: 480, b: 0.5}}}}, {PROOF}}}]\n") == []


def test_a_hint_about_matchers_is_given_about_matchers_only() -> None:
    assert told("steps: [{check: {query: up}}]\n") == [
        "5:17: steps[0].check: give exactly one of above, below"
    ]


def test_a_blank_query_is_an_empty_one() -> None:
    (problem,) = told("guards: [require: {query: ' ', above: 1}]\n" + STEPS)
    assert problem == "5:27: guards[0].require.query: must not be empty"


def test_what_is_empty_once_it_is_filled_in_is_told_at_its_place_and_in_plain_words() -> None:
    text = "vars: {a: ''}\nguards:\n  - require: {query: '${{ vars.a }}', above: 1}\n" + STEPS
    (problem,) = told(text)
    assert problem.startswith("7:22: filled in, guards[0].require.query: must not be empty")
    assert "pydantic" not in problem


def test_what_a_filter_may_leave_out_is_left_in_when_it_is_tried() -> None:
    path = '/a/${{ alert.labels.x | replace("x", "") }}'
    call = f"http: {{endpoint: q, path: '{path}'}}, undo: {{endpoint: q}}"
    assert told(f"steps: [{{{call}}}]\n") == []


@pytest.mark.parametrize("value", [".nan", ".inf", "1e999", "[{a: -.inf}]"])
def test_what_json_cannot_say_is_no_body(value: str) -> None:
    call = f"http: {{endpoint: q, body: {{a: {value}}}}}, undo: {{endpoint: q}}"
    (problem,) = told(f"steps: [{{{call}}}]\n")
    assert "steps[0].http.body: a number in it is not finite" in problem


def test_a_template_with_one_brace_is_told_so() -> None:
    (problem,) = told("steps: [{notify: {message: 'on ${alert.labels.x}'}}]\n")
    assert problem == "5:32: a template has two braces (write ${{ }})"
    assert told("steps: [{notify: {message: 'costs $5 {or alert} ${HOME}'}}]\n") == []


NO_GAP = [
    "cron: '0 * * * *', for: 1h",
    "cron: '0 0 * * *', for: 24h",
    "cron: '*/30 * * * *', for: 45m",
]
A_GAP = ["cron: '0 * * * *', for: 59m", "cron: '0 0 * * MON-SAT', for: 24h"]


def test_windows_that_leave_no_time_are_refused() -> None:
    for window in NO_GAP:
        (problem,) = told(f"guards: [not_during: {{{window}}}]\n{STEPS}")
        assert "these windows leave no time in which it may run" in problem
    for window in A_GAP:
        assert told(f"guards: [not_during: {{{window}}}]\n{STEPS}") == []


def test_an_action_through_a_role_that_no_target_has_is_refused() -> None:
    shift = f"steps: [{{shift_load: {{weight: 50}}, {PROOF}}}]\n"
    scale = f"steps: [{{scale: {{add: 1}}, {PROOF}}}]\n"
    configured = Surroundings(roles=frozenset({"process"}))
    (problem,) = told(shift, configured)
    assert "no target of the configuration has a balancer, which shift_load needs" in problem
    assert "has a scaler, which scale needs" in told(scale, configured)[0]
    assert told(shift) == told(scale) == []
    assert told(shift, Surroundings(roles=frozenset({"balancer"}))) == []


def test_a_duration_of_a_thousand_digits_is_refused_in_one_short_line() -> None:
    problem, *_ = told(f"guards: [cooldown: {'9' * 5000}s]\n{STEPS}")
    assert "is longer than any time there is" in problem
    assert len(problem) < 200
