"""What was acknowledged is not lost, however soon after it the controller dies."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.acceptance import playbooks
from tests.harness.nursery import Nursery
from tests.harness.waiting import until
from tests.harness.world import World, alert, world

pytestmark = pytest.mark.real


def _post_until_dead(made: World, posts: int, acknowledged: set[str]) -> None:
    for number in range(posts):
        told = [alert("Unknown", number=number * 3 + k) for k in range(3)]
        if made.post(*told):
            acknowledged.update(a["fingerprint"] for a in told)


@pytest.mark.parametrize("wanted", [1, 20, 90])
def test_an_alert_that_was_acknowledged_before_kill_9_is_decided_about(
    tmp_path: Path, nursery: Nursery, wanted: int
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        by = made.serving()
        acknowledged: set[str] = set()
        posting = threading.Thread(target=_post_until_dead, args=(made, 60, acknowledged))
        posting.start()
        until(lambda: len(acknowledged) >= wanted, what="acknowledgements")
        by.kill()
        posting.join()

        made.serving()
        known = {a["fingerprint"] for a in made.ask("/api/v1/alerts?limit=500")}
        assert acknowledged <= known

        def undecided() -> set[int]:
            decided = {d["alert_id"] for d in made.decisions()}
            alerts = made.ask("/api/v1/alerts?limit=500")
            return {a["id"] for a in alerts if a["fingerprint"] in acknowledged} - decided

        until(lambda: not undecided(), what="a decision about each of them")


def test_an_alert_that_was_acknowledged_right_before_kill_9_still_starts_its_run(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), tick_s=30) as made:
        made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
        by = made.serving()
        assert made.post(alert("Slow"))
        by.kill()
        made.settings["tick_s"] = 0.1
        made.serving(2)
        run = made.closed(2)
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        assert made.ceiling == 5
