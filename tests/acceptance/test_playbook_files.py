"""Playbook files while it serves: one broken file, a fixed one, a good one that is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import playbooks
from tests.harness.nursery import Nursery
from tests.harness.waiting import until
from tests.harness.world import World, alert, world

pytestmark = pytest.mark.real


def _served(made: World) -> dict[str, Any]:
    return {p["name"]: p for p in made.ask("/api/v1/playbooks")["playbooks"]}


def _problems(made: World) -> list[dict[str, Any]]:
    return list(made.ask("/api/v1/playbooks")["problems"])


def test_a_broken_file_stops_no_other_and_serves_as_soon_as_it_is_fixed(
    tmp_path: Path, nursery: Nursery
) -> None:
    broken = playbooks.throttle().replace("objective:", "objectve:")
    with world(tmp_path / "w", nursery, playbooks.restart(), broken) as made:
        made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
        made.serving()
        assert set(_served(made)) == {"restart-dead"}
        problem = _problems(made)[0]
        assert problem["path"].endswith("1.yaml")
        assert problem["line"] > 1
        assert "objectve" in problem["message"]
        assert made.post(alert("Slow"))
        until(lambda: [d["reason"] for d in made.decisions()] == ["no_playbook"], what="a denial")

        (made.folder / "playbooks" / "1.yaml").write_text(playbooks.throttle())
        until(lambda: "throttle-slow" in _served(made), what="the fixed file")
        assert _problems(made) == []
        # The alert still fires, so the new playbook is for it, too.
        run = made.closed()
        assert (run["playbook"], run["verdict"]) == ("throttle-slow", "improved"), run["reason"]


def test_a_broken_edit_leaves_the_last_good_version_serving(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1
        made.serving()
        good = _served(made)["throttle-slow"]["sha256"]
        (made.folder / "playbooks" / "0.yaml").write_text("steps: [\n")
        until(lambda: _problems(made), what="the problem")
        served = _served(made)["throttle-slow"]
        assert served["sha256"] == good
        assert served["status"].startswith("stale")
        assert made.post(alert("Slow"))
        run = made.closed()
        assert (run["verdict"], run["playbook_sha"]) == ("improved", good)
