"""What the service does by itself when its controller is gone for good, and what it finds later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import playbooks
from tests.harness.nursery import Controller, Nursery
from tests.harness.waiting import until
from tests.harness.world import World, alert, world

pytestmark = pytest.mark.real

LEASE_S = 3


def _throttled(made: World) -> Controller:
    made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
    by = made.serving()
    assert made.post(alert("Slow"))
    run = made.closed()
    assert (run["verdict"], made.ceiling) == ("improved", 5), run["reason"]
    return by


def _lease(made: World) -> dict[str, Any]:
    settings = made.target("/v1/settings")
    return dict(settings["leases"].get("max_concurrency", {}))


def test_the_ceiling_is_given_back_in_steps_when_the_controller_was_killed_for_good(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(lease=f"{LEASE_S}s")) as made:
        by = _throttled(made)
        # As long as the controller lives, the lease is renewed and the ceiling stays down.
        first = _lease(made)["expires_at"]
        until(lambda: _lease(made)["expires_at"] > first, what="a renewal")
        by.kill()
        seen = [5]

        def given_back() -> bool:
            now = made.ceiling or 0
            if now != seen[-1]:
                seen.append(now)
            return now == 10

        until(given_back, within_s=LEASE_S + 15, what="the ramp")
        assert seen == [5, 8, 10], "in the playbook's steps, and never a jump"
        until(lambda: not _lease(made), what="the end of the lease")
        settings = made.target("/v1/settings")
        assert settings["base"]["max_concurrency"] == 10


def test_a_lease_that_lapsed_while_nobody_was_there_is_not_taken_up_again_unasked(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(lease=f"{LEASE_S}s")) as made:
        by = _throttled(made)
        by.kill()
        until(lambda: made.ceiling == 10 and not _lease(made), what="the ramp")
        made.facts.answer = lambda _query: 0.1
        generation = made.target("/v1/settings")["generation"]

        made.serving()
        until(lambda: made.changes()[0]["closed_at"], what="the end of the change")
        [change] = made.changes()
        assert (change["state"], made.ceiling) == ("expired", 10)
        # Nothing was set on evidence from before: the facts of today say that it is healthy.
        assert made.target("/v1/settings")["generation"] == generation
