"""A storm: real controllers on a real journal, killed every few seconds while targets need them.

`weather(...)` sets it up and lets it rage until there are enough runs, lets it end, and returns
what it left behind. Used by the tests beside it and by `python -m benchmarks.chaos`. Times are real
and so is the dying: the same seed gives the same kind of storm, never the same storm.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.judge import OPEN, OPEN_STATES, Journal
from tests.chaos.plant import Fate, Plant, plant, storm
from tests.chaos.stories import Sender, Storyteller
from tests.harness.facts import Facts, Raw, facts
from tests.harness.nursery import Controller, Nursery
from tests.harness.waiting import free_port

PLAYBOOKS = """
apiVersion: remediator/v1
name: throttle-slow
mode: auto
priority: 20
on: {alerts: ['alertname="Slow"']}
target: ${{ alert.labels.instance }}
guards:
  - require: {query: 'p95{instance="${{ target.instance }}"}', above: 0.25}
  - cooldown: 1s
  - breaker: {failures: 100000}
steps:
  - throttle:
      {signal: 'p95{instance="${{ target.instance }}"}', objective: 0.25, min: 1, max: 10}
    timeout: 1s
    lease: 1m
    verify:
      query: 'p95{instance="${{ target.instance }}"}'
      below: 0.25
      within: 8s
      for: 200ms
      every: 100ms
  - escalate_to: person
on_resolve: {restore: {every: 300ms, hold: 200ms, step: 3}}
---
apiVersion: remediator/v1
name: restart-dead
mode: auto
priority: 90
on: {alerts: ['alertname="Dead"']}
target: ${{ alert.labels.instance }}
guards:
  - require: {query: 'up{instance="${{ target.instance }}"}', below: 1}
  - cooldown: 1s
  - breaker: {failures: 100000}
steps:
  - restart: {drain_within: 1s, ready_within: 8s}
    timeout: 1s
    on_unknown: ON_UNKNOWN
    verify:
      query: 'up{instance="${{ target.instance }}"}'
      above: 0
      within: 8s
      for: 200ms
      every: 100ms
  - escalate_to: person
"""


@dataclass(frozen=True)
class Storm:
    """How bad it gets.

    Attributes:
        runs: so many are wanted; after `longest_s` seconds it ends with fewer.
        controllers: processes on the one journal.
        on_unknown: what the restart playbook says.
    """

    runs: int = 100
    controllers: int = 1
    on_unknown: str = "escalate"
    targets: int = 30
    longest_s: float = 60.0
    quiet_within_s: float = 60.0
    seed: int = 1


@dataclass
class Outcome:
    """What it left behind; every list is empty when the promises held."""

    storm: Storm
    runs: int
    kills: int
    alerts: int
    polled: int
    posts: int
    seconds: float
    lost: list[str]
    doubled: list[str]
    stuck: list[Any]
    without_outcome: list[Any]
    held: list[Any]
    undone_twice: list[Any]
    two_at_once: list[Any]
    half_done: list[str]
    refused: list[str]
    died_by_itself: list[str]
    unsure: int
    by_hand: int
    ends: Counter[str]
    fates: Counter[Fate]
    serving_s: list[float]
    taken_over_s: list[float]

    def broken(self) -> dict[str, Any]:
        """Return the promises that did not hold, with what shows it."""
        found = {
            "lost": self.lost,
            "doubled": self.doubled,
            "stuck": self.stuck,
            "without outcome": self.without_outcome,
            "held": self.held,
            "undone twice": self.undone_twice,
            "two at once": self.two_at_once,
            "half-done": self.half_done,
            "refused": self.refused,
            "died by itself": self.died_by_itself,
        }
        return {name: wrong[:5] for name, wrong in found.items() if wrong}


@dataclass
class Harness:
    """The parts of one storm, while it rages."""

    wanted: Storm
    folder: Path
    nursery: Nursery
    plant: Plant
    facts: Facts
    rng: random.Random
    ports: list[int]
    living: list[Controller] = field(default_factory=list)
    kills: int = 0
    serving_s: list[float] = field(default_factory=list)
    taken_over_s: list[float] = field(default_factory=list)
    died_by_itself: list[str] = field(default_factory=list)
    orphans: dict[int, tuple[int, float]] = field(default_factory=dict)
    watching: threading.Lock = field(default_factory=threading.Lock)

    @property
    def journal(self) -> Journal:
        """The journal, for reading."""
        return Journal(self.folder / "journal.db")

    def urls(self) -> list[str]:
        """Return where controllers listen."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def configure(self) -> None:
        """Write playbooks and configurations."""
        (self.folder / "playbooks").mkdir(parents=True)
        text = PLAYBOOKS.replace("ON_UNKNOWN", self.wanted.on_unknown)
        for number, playbook in enumerate(text.split("---\n")):
            (self.folder / "playbooks" / f"{number}.yaml").write_text(playbook)
        targets = {
            name: {
                "url": f"{self.plant.url}/d/{name}",
                "instance": name,
                "pool": "emulated",
                "supervisor": {"url": self.plant.url, "program": name},
            }
            for name in self.plant.targets
        }
        settings = {
            "database": f"sqlite:///{self.folder}/journal.db",
            "prometheus": self.facts.url,
            "alertmanager": [self.facts.url],
            "playbooks": str(self.folder / "playbooks"),
            "targets": targets,
            "notify_file": str(self.folder / "told.jsonl"),
            "tick_s": 0.1,
            "reconcile_s": 1.0,
            "reload_s": 60,
            "scrape_s": 0.2,
            "evaluation_s": 0.1,
            "hold_down_s": 0.2,
            "lease_s": 1.5,
            "review_s": 0.5,
            "absent_for_s": 3,
            "actions": 1000,
            "watchdog_within_s": None,
        }
        for number, port in enumerate(self.ports):
            listen = {"listen": f"127.0.0.1:{port}"}
            (self.folder / f"{number}.yaml").write_text(json.dumps(settings | listen))

    def start(self, number: int) -> Controller:
        """Start one controller."""
        config = self.folder / f"{number}.yaml"
        return self.nursery.start(config, log=self.folder / f"{number}.log")

    def rage(self, enough: threading.Event) -> None:
        """Kill and start again until there are enough runs."""
        began = time.monotonic()
        self.living = [self.start(number) for number in range(self.wanted.controllers)]
        self._serves(0, began)
        while self.journal.runs() < self.wanted.runs:
            if time.monotonic() - began > self.wanted.longest_s:
                break
            time.sleep(self.rng.uniform(1.0, 4.0))
            number = self.rng.randrange(len(self.living))
            self._kill(number)
        enough.set()

    def _kill(self, number: int) -> None:
        dying = self.living[number]
        if not dying.alive:
            self.died_by_itself.append(dying.log.read_text()[-2000:])
        dying.kill()
        died = time.monotonic()
        self.kills += 1
        owned = self.journal.rows(
            f"SELECT id, epoch FROM runs WHERE state IN {OPEN} AND owner LIKE ?",
            f"%/{dying.pid}/%",
        )
        with self.watching:
            self.orphans |= {run: (epoch, died) for run, epoch in owned}
        self.living[number] = self.start(number)
        self._serves(number, died)

    def _serves(self, number: int, since: float) -> None:
        with httpx.Client(timeout=1.0, trust_env=False) as web:
            while self.living[number].alive:
                try:
                    if web.get(f"{self.urls()[number]}/readyz").is_success:
                        self.serving_s.append(time.monotonic() - since)
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)

    def watch(self, over: threading.Event) -> None:
        """Note when somebody has taken over the runs of the dead, until it is over."""
        while not over.wait(0.1):
            with self.watching:
                if self.orphans:
                    self._look_for_orphans()

    def _look_for_orphans(self) -> None:
        places = ",".join(str(run) for run in self.orphans)
        now = time.monotonic()
        for run, epoch, state in self.journal.rows(
            f"SELECT id, epoch, state FROM runs WHERE id IN ({places})"
        ):
            before, died = self.orphans[run]
            if epoch > before or state not in OPEN_STATES:
                self.taken_over_s.append(now - died)
                del self.orphans[run]

    def calm(self) -> None:
        """Let everything that was begun end."""
        self.plant.meddle = lambda _verb: Fate.PASS
        for target in self.plant.targets.values():
            target.loaded = False
        deadline = time.monotonic() + self.wanted.quiet_within_s
        still = 0
        while still < 5 and time.monotonic() < deadline:
            still = still + 1 if self.journal.quiet() else 0
            time.sleep(0.2)


def weather(folder: Path, nursery: Nursery, wanted: Storm) -> Outcome:
    """Let a storm rage over a new journal in `folder`, and return what it left behind."""
    names = [f"t{number}" for number in range(wanted.targets)]
    with plant(names) as served, facts() as told:
        rng = random.Random(wanted.seed)
        ports = [free_port() for _ in range(wanted.controllers)]
        made = Harness(wanted, folder, nursery, served, told, rng, ports)
        made.configure()
        served.meddle = storm(wanted.seed, late_restarts=wanted.on_unknown == "escalate")
        told.answer = _sometimes_broken(served, random.Random(wanted.seed + 1))
        stopping, enough = threading.Event(), threading.Event()
        sender = Sender(made.urls, stopping)
        tellers = [
            Storyteller(target, told, sender, enough, random.Random(wanted.seed * 1000 + number))
            for number, target in enumerate(served.targets.values())
        ]
        lives = [threading.Thread(target=teller.live) for teller in tellers]
        lives.append(threading.Thread(target=made.watch, args=(stopping,)))
        began = time.monotonic()
        for life in lives:
            life.start()
        try:
            made.rage(enough)
            for life in lives[:-1]:
                life.join()
            told.answer = served.value
            made.calm()
        finally:
            enough.set()
            stopping.set()
            for life in lives:
                life.join()
            for controller in made.living:
                controller.kill()
        return _judge(made, sender, tellers, time.monotonic() - began)


def _sometimes_broken(served: Plant, rng: random.Random) -> Any:
    def answer(query: str) -> Any:
        if rng.random() < 0.02:
            return Raw(503, b"not ready")
        return served.value(query)

    return answer


def _judge(made: Harness, sender: Sender, tellers: list[Storyteller], seconds: float) -> Outcome:
    journal, targets = made.journal, made.plant.targets
    told = {name for name, status in sender.acknowledged if status == "firing"}
    over = {name for teller in tellers for name in teller.over}
    undecided = [f"{name} has no decision" for _, name in journal.undecided()]
    return Outcome(
        storm=made.wanted,
        runs=journal.runs(),
        kills=made.kills,
        alerts=len(told),
        polled=journal.polled(),
        posts=sender.tries,
        seconds=seconds,
        lost=journal.lost(told, over) + undecided,
        doubled=journal.doubled(targets),
        stuck=journal.stuck(),
        without_outcome=journal.open_steps(),
        held=journal.held(),
        undone_twice=journal.undone_twice(),
        two_at_once=journal.two_at_once(),
        half_done=journal.half_done(targets),
        refused=sender.refused,
        died_by_itself=made.died_by_itself,
        unsure=journal.gave_up_unsure(),
        by_hand=sum(teller.by_hand for teller in tellers),
        ends=journal.ends(),
        fates=made.plant.fates,
        serving_s=made.serving_s,
        taken_over_s=made.taken_over_s,
    )
