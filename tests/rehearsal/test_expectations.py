"""Expected and seen: what agrees, what does not, and how it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from remediator.model.effect import Message
from remediator.rehearsal.expectations import differences
from remediator.rehearsal.props import Sent
from remediator.rehearsal.script import EPOCH, Expected, Outcome
from remediator.rehearsal.story import Story, TargetEnd

QUARTER = timedelta(seconds=15)


def at(seconds: float) -> Any:
    return EPOCH + timedelta(seconds=seconds)


def a_sent(verb: str = "set", seconds: float = 60, **args: Any) -> Sent:
    return Sent(at(seconds), "gpu-1", "settings", verb, args, "R1/0", Outcome.OK, applied=True)


def a_story(**parts: Any) -> Story:
    empty: dict[str, Any] = dict.fromkeys(
        ("decisions", "runs", "sent", "told", "noted", "mistakes"), ()
    )
    return Story(**{"start": EPOCH, "targets": {}, **empty, **parts})


def told(expected: dict[str, Any], **parts: Any) -> list[str]:
    return differences(Expected.model_validate(expected), a_story(**parts), interval=QUARTER)


def test_an_action_too_many_is_a_difference_that_shows_both_lists() -> None:
    sent = (a_sent(values={"a": 1}), a_sent("release", 90))
    assert told({"actions": [{"call": "set"}]}, sent=sent) == [
        "actions: expected 1, seen 2",
        '    = 1m set on gpu-1 (settings) {"values": {"a": 1}}: ok',
        "    + seen     1m30s release on gpu-1 (settings) {}: ok",
    ]


def test_an_action_that_is_missing_is_shown_as_it_was_written() -> None:
    assert told({"actions": [{"call": "set", "args": {"values": {"a": 1}}, "at": "1m"}]}) == [
        "actions: expected 1, seen 0",
        '    - expected call: set, args: {"values": {"a": 1}}, at: 1m',
    ]


def test_arguments_may_be_more_than_expected_and_none_may_differ() -> None:
    sent = (a_sent(values={"a": 1, "b": 2}, lease_s=900),)
    assert told({"actions": [{"call": "set", "args": {"values": {"b": 2.0}}}]}, sent=sent) == []
    assert told({"actions": [{"call": "set", "args": {"values": {"b": 3}}}]}, sent=sent)


def test_a_time_agrees_within_one_interval() -> None:
    sent = (a_sent(seconds=60),)
    for moment, agrees in (("45s", True), ("1m15s", True), ("44s", False), ("1m16s", False)):
        found = told({"actions": [{"call": "set", "at": moment}]}, sent=sent)
        assert (found == []) is agrees, moment


def test_the_renewal_of_a_lease_is_upkeep_and_no_action() -> None:
    sent = (Sent(at(60), "gpu-1", "settings", "set", {}, "change-1/renew/1", Outcome.OK, True),)  # noqa: FBT003
    assert told({"actions": []}, sent=sent) == []


def a_decision(reason: str, seconds: float = 0, **parts: Any) -> dict[str, Any]:
    row = {"playbook": "p", "target": "gpu-1", "admitted": reason == "admitted", "detail": "words"}
    return {**row, "reason": reason, "first_at": at(seconds), **parts}


def test_decisions_are_found_in_their_order_with_others_between() -> None:
    seen = (a_decision("require"), a_decision("cooldown"), a_decision("admitted"))
    wanted = [{"decision": "require"}, {"decision": "admitted", "playbook": "p"}]
    assert told({"decisions": wanted}, decisions=seen) == []
    assert told({"decisions": wanted[::-1]}, decisions=seen) == [
        "decisions: expected decision: require; seen from there on:",
        "    + nothing",
    ]


def test_messages_agree_by_severity_and_a_part_of_their_title() -> None:
    seen = (
        (at(60), Message(key="k", severity="critical", title="p on x: needs a person", body="")),
    )
    assert (
        told({"messages": [{"title": "needs a person", "severity": "critical"}]}, told=seen) == []
    )
    assert told({"messages": []}, told=seen) == [
        "messages: expected 0, seen 1",
        "    + seen     1m [critical] p on x: needs a person",
    ]


def test_a_target_at_the_end_is_compared_by_what_is_expected_of_it() -> None:
    targets = {"gpu-1": TargetEnd(values={"a": 5.0, "weight": 50.0}, process="hung", draining=True)}
    same = {"settings": {"a": 5}, "weight": 50, "process": "hung", "draining": True}
    other = {"settings": {"a": 6, "b": 1}, "process": "running", "draining": False, "replicas": 2}
    assert told({"targets": {"gpu-1": same}}, targets=targets) == []
    assert told({"targets": {"gpu-1": other}}, targets=targets) == [
        "gpu-1 at the end: expected a 6, seen 5",
        "gpu-1 at the end: expected b 1, seen none",
        "gpu-1 at the end: expected replicas 2, seen none",
        "gpu-1 at the end: expected a process running, seen hung",
        "gpu-1 at the end: expected draining False, seen True",
    ]


def test_a_mistake_fails_a_test_whatever_it_expects() -> None:
    assert told({"actions": []}, mistakes=("ann: approve p: p asks nothing",)) == [
        "the test cannot be played as written: ann: approve p: p asks nothing"
    ]
