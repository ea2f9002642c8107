"""No data is unknown, never fine and never bad: whatever Prometheus says that is no number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import playbooks
from tests.harness import facts
from tests.harness.nursery import Nursery
from tests.harness.waiting import free_port, until
from tests.harness.world import World, alert, world

pytestmark = pytest.mark.real

NO_NUMBER: list[tuple[str, Any, str]] = [
    ("empty", facts.EMPTY, "no data"),
    ("NaN", math.nan, "NaN"),
    ("a scalar NaN", facts.Scalar(math.nan), "NaN"),
    ("422", facts.broken(422, "execution", "query timed out in expression"), "422"),
    ("503", facts.broken(503, "unavailable", "starting up"), "503"),
    ("a bare 502", facts.Raw(502, b"<html>Bad Gateway</html>"), "502"),
    ("nonsense", facts.Raw(200, b"{}"), "not an answer of Prometheus"),
    ("hanging up", facts.CUT, "could not answer"),
    ("hanging", facts.HANG, "did not answer within"),
]


def _last(made: World) -> dict[str, Any]:
    decisions = made.decisions()
    return decisions[-1] if decisions else {"detail": "", "reason": ""}


def _denied_as_unknown(made: World, what: str, value: Any, words: str) -> None:
    made.facts.answer = lambda _query: value
    until(lambda: words in _last(made)["detail"], what=what)
    assert _last(made)["reason"] == "unknown", what
    assert 'p95{instance="detector-1:7860"}' in str(_last(made)["evidence"]), what


def test_a_prometheus_that_gives_no_number_starts_nothing_and_is_on_record(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        made.facts.answer = lambda _query: facts.EMPTY
        made.serving()
        assert made.post(alert("Slow"))
        for what, value, words in NO_NUMBER:
            _denied_as_unknown(made, what, value, words)
        assert made.runs() == []
        assert "set" not in made.target_wire.seen

        made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
        run = made.closed()
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]


def test_a_scalar_is_a_number_like_any_other(tmp_path: Path, nursery: Nursery) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        made.facts.answer = lambda _query: facts.Scalar(0.5 if (made.ceiling or 10) > 5 else 0.1)
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]


def test_a_prometheus_that_is_not_there_starts_nothing(tmp_path: Path, nursery: Nursery) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with world(tmp_path / "w", nursery, playbooks.throttle(), prometheus=nobody) as made:
        made.serving()
        assert made.post(alert("Slow"))
        until(lambda: "cannot reach" in _last(made)["detail"], what="a denial")
        assert _last(made)["reason"] == "unknown"
        assert made.runs() == []


def test_going_blind_after_the_action_is_told_to_a_person_and_loosens_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    text = playbooks.throttle().replace("within: 10s", "within: 2s")
    with world(tmp_path / "w", nursery, text) as made:
        made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else facts.EMPTY
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert (run["state"], run["verdict"]) == ("failed", "unknown"), run["reason"]
        assert made.ceiling == 5
        [change] = made.changes()
        assert change["state"] == "held"
        until(
            lambda: any(m["severity"] == "critical" and m["sent_at"] for m in _messages(made)),
            what="a person who was told",
        )


def _messages(made: World) -> list[dict[str, Any]]:
    return [message for run in made.runs() for message in run["messages"]]
