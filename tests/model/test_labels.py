"""Matchers mean what Alertmanager means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.model.labels import Matcher, match_all

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
