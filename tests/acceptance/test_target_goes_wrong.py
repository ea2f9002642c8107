"""A target that refuses, hangs, hangs up or restarts in the middle of a call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import playbooks
from tests.harness.nursery import Nursery
from tests.harness.relay import Fate, changes
from tests.harness.world import World, alert, world

pytestmark = pytest.mark.real


def _once(made: World, fate: Fate, also: Callable[[], object] = lambda: None) -> None:
    """Let the first `set` meet this fate, and pass everything else."""
    left = [True]

    def meddle(request: str) -> Fate:
        if changes(request) != "set" or not left.pop():
            return Fate.PASS
        left.append(False)
        also()
        return fate

    made.target_wire.meddle = meddle


def _slow(made: World) -> None:
    made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1


def _statuses(run: dict[str, Any]) -> list[str]:
    return [step["status"] for step in run["steps"] if step["call"] == "set"]


def test_a_pin_of_a_person_wins_and_is_told(tmp_path: Path, nursery: Nursery) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _slow(made)
        pin = {"owner": "ada", "reason": "load test"}
        assert made.target("/v1/pins/max_concurrency", "PUT", json=pin) is not None
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert run["state"] == "failed"
        assert "pinned by ada" in run["reason"]
        assert any(m["severity"] == "critical" for m in run["messages"])
        assert (made.ceiling, made.changes()) == (10, [])


def test_a_pin_set_between_the_look_and_the_call_wins_too(tmp_path: Path, nursery: Nursery) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _slow(made)
        pin = {"owner": "ada", "reason": "load test"}
        _once(made, Fate.PASS, lambda: made.target("/v1/pins/max_concurrency", "PUT", json=pin))
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert run["state"] == "failed"
        assert "pinned" in run["reason"]
        assert (made.ceiling, made.changes()) == (10, [])


@pytest.mark.parametrize(
    "fate",
    [Fate.HANG, Fate.CUT, Fate.CUT_ANSWER],
    ids=["hangs", "hangs up", "hangs up after it was done"],
)
def test_a_call_without_an_answer_is_repeated_with_its_key_and_applied_once(
    tmp_path: Path, nursery: Nursery, fate: Fate
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _slow(made)
        before = made.target("/v1/settings")["generation"]
        _once(made, fate)
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        assert _statuses(run) == ["unknown", "ok"]
        assert len({s["idempotency_key"] for s in run["steps"]}) == 1
        assert made.target("/v1/settings")["generation"] == before + 1
        [change] = made.changes()
        assert (change["base"], change["value"]) == (10, 5)


@pytest.mark.parametrize("fate", [Fate.CUT, Fate.CUT_ANSWER], ids=["before", "after"])
def test_a_target_that_restarts_in_the_middle_of_the_call_is_throttled_all_the_same(
    tmp_path: Path, nursery: Nursery, fate: Fate
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), supervised=True) as made:
        _slow(made)
        before = made.target("/v1/settings")["generation"]

        def dies() -> None:
            os.kill(made.starts[-1], signal.SIGKILL)

        _once(made, fate, dies) if fate is Fate.CUT else _answer_lost_then(made, dies)
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        assert len(made.starts) == 2
        settings = made.target("/v1/settings")
        assert settings["values"]["max_concurrency"] == 5
        assert settings["generation"] == before + 1, "applied once"


def _answer_lost_then(made: World, dies: Callable[[], None]) -> None:
    """Lose the first answer, and let the target die before it hears the repeat."""
    sets: list[str] = []

    def meddle(request: str) -> Fate:
        if changes(request) != "set":
            return Fate.PASS
        sets.append(request)
        if len(sets) == 2:
            dies()
        return Fate.CUT_ANSWER if len(sets) == 1 else Fate.PASS

    made.target_wire.meddle = meddle


def test_a_target_that_answers_nobody_ends_in_a_person_and_not_in_a_loop(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _slow(made)
        made.target_wire.meddle = lambda _request: Fate.CUT
        made.serving()
        assert made.post(alert("Slow"))
        run = made.closed()
        assert run["state"] == "failed"
        assert "cannot be read" in run["reason"]
        assert any(m["severity"] == "critical" for m in run["messages"])
        assert made.ceiling == 10
