"""kill -9 of the controller at every step boundary, enumerated from a run that was left alone.

A recording run tells every commit that changes something about a run, and every call that reaches
the target. Then the same story is played once for each of them: the controller is killed there, a
new one is started, and the story must come to the same end.

Places: *after* every commit; *before* the commits that decide, begin, record or end something (with
the rows written and not committed, and with the effect already there); and *during* every call,
when the target has it and the controller has no answer. Any other "before" is the "after" of the
commit before it, since nothing but questions lies between.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import playbooks
from tests.harness import relay
from tests.harness.nursery import Controller, Nursery
from tests.harness.waiting import until
from tests.harness.world import OPEN, World, alert, world

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

# Worlds at a time: they mostly wait, for leases of the dead and for processes.
SIDE_BY_SIDE = 8
# How often these happen is a matter of time; the first two of them are places like any other.
REPEATED = ("runs.park", "runs.claim_due", "steps.measure")
WEIGHTY = ("_accept", "admit", "begin", "_confirm", "_close_done", "_begin_restores")


@dataclass
class Story:
    """What happens to one world, told so that it can be told again after a crash."""

    world: World
    fire: dict[str, Any]
    told: set[str] = field(default_factory=set)

    def tell(self, alert: dict[str, Any], by: Controller) -> None:
        """Post an alert until it is acknowledged, as Alertmanager would, once in the story."""
        if alert["status"] in self.told:
            return
        until(lambda: not by.alive or self.world.post(alert), what="an acknowledgement")
        if by.alive:
            self.told.add(alert["status"])

    def ended(self) -> bool:
        """Say whether there are runs and all have ended."""
        runs = self.world.ask("/api/v1/runs?limit=500")
        return bool(runs) and all(run["state"] not in OPEN for run in runs)


class Slow(Story):
    """It is slow, is throttled, the load goes away, and the capacity is given back."""

    def __init__(self, world: World) -> None:
        super().__init__(world, alert("Slow"))
        self.loaded = True
        self.first_generation = world.target("/v1/settings")["generation"]
        world.facts.answer = lambda _query: 0.5 if self.loaded and self._wide() else 0.1

    @classmethod
    def playbook(cls) -> str:
        """Return the playbook it is about."""
        return playbooks.throttle()

    def _wide(self) -> bool:
        return (self.world.ceiling or 10) > 5

    def play(self, by: Controller) -> None:
        """Play it to its end, or to the controller's."""
        self.tell(self.fire, by)
        until(lambda: not by.alive or self.ended(), within_s=60, what="the end of the remedy")
        if not by.alive:
            return
        self.loaded = False
        self.tell({**self.fire, "status": "resolved", "endsAt": self.fire["startsAt"]}, by)
        until(lambda: not by.alive or self.given_back(), within_s=60, what="the restore")

    def given_back(self) -> bool:
        """Say whether nothing is held any more."""
        changes = self.world.changes()
        return self.ended() and bool(changes) and all(c["closed_at"] for c in changes)

    def check(self) -> None:
        """Everything came to the end it comes to when nobody dies."""
        remedy, *restores = self.world.runs()
        assert (remedy["kind"], remedy["state"], remedy["verdict"]) == (
            "remedy",
            "succeeded",
            "improved",
        ), remedy["reason"]
        assert [(r["kind"], r["state"]) for r in restores] == [("restore", "succeeded")]
        assert_on_record(self.world, remedy)
        [change] = self.world.changes()
        assert (change["state"], change["value"], change["base"]) == ("restored", 10, 10)
        settings = self.world.target("/v1/settings")
        assert (settings["values"]["max_concurrency"], settings["leases"]) == (10, {})
        # 10 -> 5 -> 8 -> 10, and nothing applied twice: the detector counts its generations.
        assert settings["generation"] == self.first_generation + 3


class Dead(Story):
    """It is dead, is restarted, and lives."""

    on_unknown = "probe"

    def __init__(self, world: World) -> None:
        super().__init__(world, alert("Dead"))
        world.facts.answer = lambda _query: float(len(world.starts) > 1 and self.ready())

    @classmethod
    def playbook(cls) -> str:
        """Return the playbook it is about."""
        return playbooks.restart(cls.on_unknown)

    def ready(self) -> bool:
        """Say whether the target serves."""
        return bool((self.world.target("/readyz") or {}).get("ready"))

    def play(self, by: Controller) -> None:
        """Play it to its end, or to the controller's."""
        self.tell(self.fire, by)
        until(lambda: not by.alive or self.ended(), within_s=90, what="the end of the run")

    def check(self) -> None:
        """It was restarted once, serves, and is not drained."""
        [run] = self.world.runs()
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        assert_on_record(self.world, run)
        assert len(self.world.starts) == 2, "one start by supervisord, one by the run"
        until(self.ready, what="a target that serves and is not drained")


class DeadAndCautious(Dead):
    """The same, and an outcome nobody knows is a person's business."""

    on_unknown = "escalate"

    def check(self) -> None:
        """It was restarted at most once, serves, and somebody knows when it could not be proved."""
        [run] = self.world.runs()
        assert_on_record(self.world, run)
        assert len(self.world.starts) <= 2
        until(self.ready, what="a target that serves and is not drained")
        if run["state"] != "succeeded":
            assert "nobody can say" in run["reason"]
            assert any(m["severity"] == "critical" for m in run["messages"])


def assert_on_record(world: World, run: dict[str, Any]) -> None:
    """The alert has its decision, and no attempt is left open."""
    admitted = [d["run_id"] for d in world.decisions() if d["admitted"]]
    assert admitted == [run["id"]]
    assert all(step["status"] != "started" for step in run["steps"])


@dataclass(frozen=True)
class Stage:
    """Where one kind of story is played, again and again."""

    folder: Path
    nursery: Nursery
    make: type[Slow | Dead]

    def set(self, name: str) -> AbstractContextManager[World]:
        """Return a fresh world, as a block."""
        dead = issubclass(self.make, Dead)
        return world(self.folder / name, self.nursery, self.make.playbook(), supervised=dead)

    def record(self) -> tuple[list[str], list[str]]:
        """Play it undisturbed; return the commits and the calls it consists of."""
        with self.set("record") as made:
            story = self.make(made)
            by = made.serving(record=self.folder / "commits")
            story.play(by)
            assert by.alive
            story.check()
            wires = [made.target_wire, *([made.process_wire] if made.process_wire else [])]
            calls = [verb for wire in wires for verb in wire.seen if " " not in verb]
        return (self.folder / "commits").read_text().splitlines(), calls

    def die(self, name: str, place: str) -> None:
        """Play it with a controller that dies at `place`, then with one that lives."""
        with self.set(name) as made:
            story = self.make(made)
            if place.startswith("during"):
                by = made.controller()
                _kill_during(made, by, place)
            else:
                by = made.controller(die=place)
            story.play(by)
            assert not by.alive or place.split()[1] in REPEATED, f"it did not die {place}"
            by.kill()
            after = made.serving()
            story.play(after)
            assert after.alive, after.log.read_text()[-2000:]
            story.check()

    def everywhere(self, places: Sequence[str]) -> None:
        """Die at every place, some side by side, and tell of all that went wrong."""

        def attempt(numbered: tuple[int, str]) -> str:
            number, place = numbered
            try:
                self.die(str(number), place)
            except BaseException:  # noqa: BLE001 - told below, with its place
                return f"--- killed {place} (world {number})\n{traceback.format_exc()}"
            return ""

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            failures = [told for told in pool.map(attempt, enumerate(places)) if told]
        assert not failures, f"{len(failures)} of {len(places)}\n" + "\n".join(failures)


def _kill_during(made: World, by: Controller, place: str) -> None:
    _, verb, number = place.split()
    left = [int(number)]

    def meddle(request: str) -> relay.Fate:
        if relay.changes(request) == verb:
            left[0] -= 1
            if left[0] == 0:
                os.kill(by.pid, signal.SIGKILL)
        return relay.Fate.PASS

    made.target_wire.meddle = meddle
    if made.process_wire is not None:
        made.process_wire.meddle = meddle


def places(commits: list[str], calls: list[str]) -> list[str]:
    """Return where to die, from a recording."""
    found = []
    for commit in commits:
        name, number = commit.split()[0], int(commit.split()[-1])
        if name in REPEATED and number > 2:
            continue
        if name.rpartition(".")[2] in WEIGHTY:
            found.append(f"before {commit}")
        found.append(f"after {commit}")
    return found + [
        f"during {verb} {calls[: place + 1].count(verb)}" for place, verb in enumerate(calls)
    ]


@pytest.mark.xdist_group("kill-throttle")
def test_a_throttle_and_its_restore_survive_kill_9_everywhere(
    tmp_path: Path, nursery: Nursery
) -> None:
    stage = Stage(tmp_path, nursery, Slow)
    wanted = places(*stage.record())
    assert len(wanted) > 30, wanted
    stage.everywhere(wanted)


@pytest.mark.xdist_group("kill-restart")
def test_a_restart_is_done_once_whenever_the_controller_is_killed(
    tmp_path: Path, nursery: Nursery
) -> None:
    stage = Stage(tmp_path, nursery, Dead)
    wanted = places(*stage.record())
    assert len(wanted) > 30, wanted
    stage.everywhere(wanted)


@pytest.mark.xdist_group("kill-throttle")
def test_a_restart_that_must_not_be_guessed_at_is_never_sent_twice(
    tmp_path: Path, nursery: Nursery
) -> None:
    stage = Stage(tmp_path, nursery, DeadAndCautious)
    wanted = [place for place in places(*stage.record()) if "stop" in place or "start" in place]
    assert len(wanted) >= 10, wanted
    stage.everywhere(wanted)
