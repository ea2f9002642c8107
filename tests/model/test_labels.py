"""Matchers mean what Alertmanager means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.model.labels import Matcher, catches_all, is_regex, match_all

LABELS = {"alertname": "DetectorSlow", "severity": "warning", "empty": ""}


@pytest.mark.parametrize(
    "text",
    [
        'alertname="DetectorSlow"',
        "alertname=DetectorSlow",
        ' alertname = "DetectorSlow" ',
        'alertname!="Other"',
        'severity=~"warning|critical"',
        'severity!~"info"',
        'missing=""',
        'missing!="x"',
        'missing=~".*"',
        'missing!~".+"',
        'empty=""',
    ],
)
def test_these_match(text: str) -> None:
    assert Matcher.parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        'alertname="detectorslow"',
        'alertname!="DetectorSlow"',
        'severity=~"warn"',
        'severity=~"arning"',
        'severity!~"warn.*"',
        'missing!=""',
        'missing=~".+"',
    ],
)
def test_these_do_not(text: str) -> None:
    assert not Matcher.parse(text).matches(LABELS)


@pytest.mark.parametrize(
    "text",
    ["", "alertname", "=x", 'a=="b"', '1a="b"', 'a-b="c"', 'a="b', 'a=~"("', "a=b c", 'a="b"c'],
)
def test_what_is_no_matcher_is_refused_with_an_example_or_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        Matcher.parse(text)


def test_all_of_several_must_match_and_none_is_all() -> None:
    both = [Matcher.parse("severity=warning"), Matcher.parse("alertname=Other")]
    assert not match_all(both, LABELS)
    assert match_all(both[:1], LABELS)
    assert match_all([], LABELS)


NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


@given(name=NAMES, op=st.sampled_from(["=", "!="]), value=st.text(), other=st.text())
def test_a_matcher_reads_back_as_it_was_written_whatever_is_in_its_value(
    name: str, op: str, value: str, other: str
) -> None:
    matcher = Matcher(name=name, op=op, value=value)
    again = Matcher.parse(str(matcher))
    assert again == matcher
    assert again.matches({name: value}) is (op == "=")
    assert again.matches({name: other}) is ((op == "=") == (other == value))


HOSTILE = ["a{1001}", "(a*)*" * 9_000, "(?!x)", "(?i:x{500}){1000}"]


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_an_expression_that_re2_cannot_take_is_refused_in_one_short_line(expression: str) -> None:
    with pytest.raises(ValueError, match="regular expression of") as refused:
        Matcher.parse(f'a=~"{expression}"')
    assert len(str(refused.value)) < 300
    assert not is_regex(expression)


def test_an_expression_is_read_as_alertmanager_reads_it() -> None:
    assert Matcher.parse('a=~"[[:alpha:]]+"').matches({"a": "abc"})
    assert not Matcher.parse('a=~".*"').matches({"a": "a\nb"})
    assert Matcher.parse('a=~"(?s:.*)"').matches({"a": "a\nb"})
    assert Matcher.parse('a=~".*"').matches({"a": "ä\ud800"})


@pytest.mark.timeout(5)
@pytest.mark.parametrize("length", [40, 40_000])
def test_no_label_can_hold_up_an_expression(length: int) -> None:
    matcher = Matcher.parse('instance=~"([a-z0-9-]+.?)+:9400"')
    assert not matcher.matches({"instance": "a" * length})
    assert matcher.matches({"instance": "a" * length + ":9400"})


def test_what_says_only_what_a_label_is_not_catches_all() -> None:
    for text in ('a!="b"', 'a!~"b"', 'a=~".*"', 'a=~".+"', 'a=~"(?s).+"', 'a=~"[^x]+"', 'a=~"b|"'):
        assert catches_all([Matcher.parse(text)]), text
    for text in ('a="b"', 'a=~"b.*"', 'a=~"[[:lower:]]+"'):
        assert not catches_all([Matcher.parse(text)]), text
