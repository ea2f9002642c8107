"""Two controllers on one journal: both serve, each alert is acted on once, one replaces one."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance import playbooks
from tests.harness import relay
from tests.harness.nursery import Nursery
from tests.harness.waiting import until
from tests.harness.world import INSTANCE, World, alert, world

pytestmark = pytest.mark.real

TELL = """
apiVersion: remediator/v1
name: tell
mode: auto
on: {alerts: ['alertname="Told"']}
target: ${{ alert.labels.instance }}
guards:
  - cooldown: 10m
steps:
  - notify: {message: 'it fires'}
"""


def _slow_until_throttled(made: World) -> None:
    made.facts.answer = lambda _query: 0.5 if (made.ceiling or 10) > 5 else 0.1


def _owner(made: World) -> int:
    """Return the process that owns the only run."""
    with closing(sqlite3.connect(made.folder / "journal.db")) as journal:
        [(owner,)] = journal.execute("SELECT owner FROM runs").fetchall()
    return int(owner.split("/")[1])


def test_two_that_start_at_once_on_a_new_journal_both_serve(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        both = [made.controller(1), made.controller(2)]
        until(
            lambda: all(made.ask("/readyz", n) for n in (1, 2)) or not all(c.alive for c in both),
            what="both",
        )
        assert [c.log.read_text()[-2000:] for c in both if not c.alive] == []


def test_alerts_posted_to_both_are_each_acted_on_once(tmp_path: Path, nursery: Nursery) -> None:
    with world(tmp_path / "w", nursery, TELL) as made:
        target = made.settings["targets"]["detector-1"]
        names = [f"detector-{n}" for n in range(12)]
        made.settings["targets"] = {n: {**target, "instance": f"{n}:1"} for n in names}
        made.serving(1)
        made.serving(2)
        told = [
            alert("Told", number=n, instance=f"{name}:1") for n, name in enumerate(names, start=1)
        ]
        posts = [
            threading.Thread(target=made.post, args=told, kwargs={"number": number})
            for number in (1, 2)
        ]
        for post in posts:
            post.start()
        for post in posts:
            post.join()

        until(lambda: len(made.runs(2)) == len(names), what="a run for each")
        made.closed(1)
        runs = made.runs(1)
        assert sorted(r["target"] for r in runs) == sorted(names)
        assert all(r["state"] == "succeeded" for r in runs)
        expected = {f"run/{r['id']}/0/notify" for r in runs}

        def keys() -> list[str]:
            file = made.folder / "told.jsonl"
            lines = file.read_text().splitlines() if file.exists() else []
            return [k for k in (json.loads(line)["key"] for line in lines) if "notify" in k]

        until(lambda: set(keys()) == expected, what="the messages")
        assert len(keys()) == len(expected), "each of them once"


def test_one_takes_over_the_run_of_one_that_was_killed_in_the_middle_of_a_call(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle()) as made:
        _slow_until_throttled(made)
        generation = made.target("/v1/settings")["generation"]
        both = [made.serving(1), made.serving(2)]
        died: list[float] = []

        def meddle(request: str) -> relay.Fate:
            if relay.changes(request) == "set" and not died:
                [dying] = [by for by in both if by.pid == _owner(made)]
                dying.send(signal.SIGKILL)
                died.append(time.monotonic())
                return relay.Fate.CUT_ANSWER
            return relay.Fate.PASS

        made.target_wire.meddle = meddle
        assert made.post(alert("Slow"), number=1)
        until(lambda: died, what="a death")
        survivor = next(n for n, by in enumerate(both, start=1) if by.alive)
        run = made.closed(survivor)
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        sets = [s for s in run["steps"] if s["call"] == "set"]
        assert [s["status"] for s in sets] == ["unknown", "ok"]
        assert len({s["idempotency_key"] for s in sets}) == 1
        assert sets[1]["fencing_token"] > sets[0]["fencing_token"]
        # The call's own limit of 2 s, twice its margin of 2 s, and some ticks.
        first, second = (s["started_at"] for s in sets)
        assert _seconds(second) - _seconds(first) < 2 + 4 + 3
        assert made.target("/v1/settings")["generation"] == generation + 1, "applied once"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def test_one_that_is_told_to_end_records_its_call_and_lets_go_at_once(
    tmp_path: Path, nursery: Nursery
) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), lease_s=60) as made:
        _slow_until_throttled(made)
        first = made.serving(1)
        made.serving(2)
        arrived, answer = threading.Event(), threading.Event()

        def meddle(request: str) -> relay.Fate:
            if relay.changes(request) == "set" and not arrived.is_set():
                arrived.set()
                answer.wait(1.5)
            return relay.Fate.PASS

        made.target_wire.meddle = meddle
        # Only the first hears of it, and it has the lease when it is told to end.
        assert made.post(alert("Slow"), number=1)
        until(arrived.is_set, what="the call")
        [by] = [c for c in made.controllers if c.pid == _owner(made)]
        by.send(signal.SIGTERM)
        began = time.monotonic()
        by.gone(within_s=20)
        survivor = 1 if by is not first else 2
        run = made.closed(survivor, within_s=20)
        assert time.monotonic() - began < 20, "the lease would have lasted for a minute"
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        sets = [s for s in run["steps"] if s["call"] == "set"]
        assert [s["status"] for s in sets] == ["ok"], "recorded by the one that sent it"
        assert made.target_wire.seen.count("set") == 1


def test_the_next_process_goes_on_at_once_after_sigterm(tmp_path: Path, nursery: Nursery) -> None:
    with world(tmp_path / "w", nursery, playbooks.throttle(), lease_s=60) as made:
        good = threading.Event()
        made.facts.answer = lambda _query: 0.1 if good.is_set() else 0.26
        by = made.serving()
        assert made.post(alert("Slow"))
        until(lambda: "set" in made.target_wire.seen, what="the call")
        by.send(signal.SIGTERM)
        by.gone(within_s=20)
        good.set()
        made.serving()
        run = made.closed(within_s=15)
        assert (run["state"], run["verdict"]) == ("succeeded", "improved"), run["reason"]
        assert run["target"] == "detector-1"
        assert INSTANCE in run["plan"]["target"]
