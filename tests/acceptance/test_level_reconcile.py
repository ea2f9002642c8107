"""The level is read as well: a webhook or a resolve that never arrived costs time, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance import playbooks
from tests.harness.nursery import Nursery
from tests.harness.waiting import until
from tests.harness.world import World, alert, listed, world

pytestmark = pytest.mark.real


def _firing_and_throttled(made: World) -> None:
    """Let Alertmanager list an alert that no webhook tells of."""
    made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
    made.facts.active = [listed(alert("Slow"))]
    made.serving()
    run = made.closed()
    assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
    assert made.ceiling == 5


def test_an_alert_whose_webhook_was_lost_is_found_and_acted_on(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _firing_and_throttled(made)
        [told] = made.ask("/api/v1/alerts")
        assert told["source"] == "reconcile"
        # The webhook that comes late changes nothing.
        assert made.post({**alert("Slow"), "fingerprint": told["fingerprint"]})
        polls = made.facts.polls
        until(lambda: made.facts.polls > polls + 3, what="some polls")
        assert len(made.runs()) == 1


def test_an_alert_whose_resolve_was_lost_is_over_and_the_capacity_is_given_back(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), absent_for_s=1) as made:
        _firing_and_throttled(made)
        made.facts.answer = lambda _query: 0.1
        made.facts.active = []
        until(lambda: made.ceiling == 10, what="the restore")
        made.closed()
        assert [c["state"] for c in made.changes()] == ["restored"]


def test_an_alertmanager_that_does_not_answer_resolves_nothing(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), absent_for_s=0.1) as made:
        _firing_and_throttled(made)
        told = made.facts.active
        made.facts.answer = lambda _query: 0.1
        made.facts.active = None
        polls = made.facts.polls
        until(lambda: made.facts.polls > polls + 4, what="some polls")
        [kept] = made.ask("/api/v1/alerts")
        assert kept["firing"]
        assert (made.ceiling, [r["kind"] for r in made.runs()]) == (5, ["remedy"])
        made.facts.active = told
        polls = made.facts.polls
        until(lambda: made.facts.polls > polls + 2, what="polls that are answered")
        assert made.ceiling == 5
