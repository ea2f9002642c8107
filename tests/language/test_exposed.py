"""Where a label may stand in a query: between the double quotes of what it is compared with."""

from __future__ import annotations

import pytest

from remediator.language.loader import load_text
from remediator.model.spec import Escape
from remediator.model.template import TrustedText, render
from tests.language.texts import STEPS, playbook

X = "${{ alert.labels.x }}"
TARGET = "${{ target.name }}"


def told(query: str, variables: str = "") -> list[str]:
    indented = query.replace("\n", "\n        ")
    guards = f"guards:\n  - require:\n      above: 1\n      query: |-\n        {indented}\n"
    text = playbook(f"{variables}{guards}{STEPS}")
    return [str(problem) for problem in load_text(text, path="p").problems]


REGEX = {
    "close": f'up{{a=~"{X}"}}',
    "many blanks": f'up{{a=~{" " * 40}"{X}"}}',
    "a line": f'up{{a=~\n"{X}"}}',
    "a comment": f'up{{a=~ # "a comment"\n"{X}"}}',
    "comments between": f'up{{a=#x\n~"{X}"}}',
    "not": f'up{{a!~\t\t\t\t\t\t\t\t\t"{X}"}}',
}


@pytest.mark.parametrize("query", REGEX.values(), ids=REGEX)
def test_no_label_is_ever_a_regular_expression(query: str) -> None:
    (problem, *_) = told(query)
    assert "regular expression" in problem or "not PromQL" in problem


def test_a_label_chooses_no_metric_and_is_no_argument() -> None:
    assert "would choose the metric" in told(f'{{__name__="{X}"}}')[0]
    assert "would choose the metric" in told(f'{{a="b", __name__ != "{X}"}}')[0]
    for query in (
        f'label_replace(up, "a", "$1", "instance", "{X}")',
        f'label_replace(up, "instance", "{X}", "", "")',
        f'count_values("{X}", up)',
    ):
        assert "is not what a label is compared with" in told(query)[0]


def test_a_targets_name_is_the_configurations_and_may_stand_between_any_quotes() -> None:
    for query in (
        f'up{{a=~  "{TARGET}"}}',
        f'label_replace(up, "a", "{TARGET}", "", "")',
        f'up{{a="{X}", b!=   # why\n"{X}"}}',
    ):
        assert told(query) == []


INSIDE = [
    "alert.labels.y | default(vars.i)",
    'vars.i | default("q")',
    "vars.i | trim",
    'vars["i"]',
    "alert.labels.y | replace('a', vars.i)",
]


@pytest.mark.parametrize("expression", INSIDE)
def test_a_var_stands_by_itself_in_a_query(expression: str) -> None:
    variables = f"vars: {{i: 'up{{a=\"{X}\"}}'}}\n"
    (problem, *_) = told(f'up{{a="${{{{ {expression} }}}}"}}', variables)
    assert "in a query a var stands by itself, not as in" in problem


def test_a_var_that_a_filter_hands_through_is_escaped_all_the_same() -> None:
    values = {"vars": {"i": TrustedText('up{a="b"}')}, "alert": {"labels": {}}}
    for expression in ("vars.i | default('q')", "alert.labels.y | default(vars.i)"):
        filled = render(f'x{{a="${{{{ {expression} }}}}"}}', values, escape=Escape.PROMQL)
        assert filled == 'x{a="up{a=\\"b\\"}"}'
    assert render("sum(${{ vars.i }})", values, escape=Escape.PROMQL) == 'sum(up{a="b"})'
