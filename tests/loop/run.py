"""The closed loop: the real engine in a `World`, a plant, and what it sees of it.

Used by the tests beside it and by `benchmarks/closed_loop.py`. The playbook is the shipped one;
only its queries have short names, which `Scrapes` answers, and its windows fit the stack. The
surprise: the controller does a round only when something is due, so what does nothing costs
nothing, and an hour of an incident takes a few seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from detector_service.limiter.adaptive import AdaptiveLimit
from remediator.engine import intake
from remediator.model.alert import Alert
from remediator.model.pace import Pace
from remediator.model.playbook import Pinned
from remediator.model.run import RunKind
from remediator.store import agenda
from tests.builders import GPU1, an_alert, pinned
from tests.fakes import NOON, Lease
from tests.loop.plants import (
    CEILING,
    OBJECTIVE_S,
    SERIAL,
    Device,
    Live,
    Plant,
    Shape,
    best_limit,
    wide_open,
)
from tests.loop.sight import SHIPPED, Alerting, Scrapes, Stack
from tests.world import World, a_world

KNOB = "max_concurrency"
PLAYBOOK = Path(__file__).parents[2] / "playbooks" / "throttle-slow-detector.yaml"
# How long a dead controller stays dead: a supervisor's restart.
DOWN_S = 20.0


def shipped(
    stack: Stack, *, alert: str = "DetectorSlow", guards: Sequence[dict[str, Any]] = ()
) -> Pinned:
    """Return the shipped playbook with short queries, the windows of this stack and more guards."""
    document = YAML(typ="safe").load(PLAYBOOK.read_text())
    document.pop("vars")
    document["on"] = {"alerts": [f'alertname="{alert}"']}
    require = [g for g in document["guards"] if "require" in g]
    require[0]["require"]["query"], require[1]["require"]["query"] = "p95", "up"
    replaced = {kind for guard in guards for kind in guard}
    kept = [guard for guard in document["guards"] if not replaced & set(guard)]
    document["guards"] = [*kept, *guards]
    step = document["steps"][0]
    step["throttle"] |= {"signal": "p95", "throughput": "useful", "window": f"{stack.window:g}s"}
    step["throttle"]["sampled_at"] = "sampled_at"
    step["verify"] |= {"query": "p95", "every": f"{stack.scrape:g}s"}
    # Two samples in a row must be good, however slow they come.
    step["verify"]["for"] = f"{max(30.0, stack.scrape):g}s"
    step["verify"]["within"] = f"{max(120.0, 3 * stack.scrape):g}s"
    return pinned(document)


def pace_of(stack: Stack) -> Pace:
    """Return the pace of a controller that knows its stack."""
    return Pace(
        scrape=timedelta(seconds=stack.scrape), evaluation=timedelta(seconds=stack.evaluation)
    )


@dataclass(frozen=True)
class Scenario:
    """One story.

    Attributes:
        shape: the trouble over time, from 0 to 1.
        length: how many seconds it goes on.
        fault: what else goes wrong, one of `stories.FAULTS`; at `fault_at` seconds.
        limited: the service has its own fast limit under the ceiling.
        utilisation: the alert that fires is one on utilisation.
        guards: of the playbook, in the place of its own of the same kind.
    """

    plant: Plant = SERIAL
    shape: Shape = lambda _at: 0.0
    stack: Stack = SHIPPED
    seed: int = 0
    length: int = 3600
    fault: str = ""
    fault_at: float = 700.0
    limited: bool = False
    utilisation: bool = False
    pace: Pace | None = None
    guards: tuple[dict[str, Any], ...] = ()

    @property
    def pace_in_force(self) -> Pace:
        """The controller's pace: its stack's, unless another is given."""
        return self.pace or pace_of(self.stack)

    def uncontrolled(self) -> Live:
        """Live it with nobody at the knob."""
        return self._alone(wide_open)

    def oracle(self) -> Live:
        """Live it with the best limit in every second, from the plant itself."""
        return self._alone(best_limit)

    def held(self, limit: int) -> Live:
        """Live it with this limit while there is trouble, and the ceiling otherwise."""
        live = self._live()
        troubled = [at for at in range(self.length) if self.shape(at) > 0]
        for at in range(self.length):
            inside = troubled and troubled[0] <= at <= troubled[-1]
            live.live(lambda _device, _offered, now=limit if inside else CEILING: now)
        return live

    def _alone(self, ceiling: Callable[[Device, float], int]) -> Live:
        live = self._live()
        for _ in range(self.length):
            live.live(ceiling)
        return live

    def _live(self) -> Live:
        limiter = AdaptiveLimit(OBJECTIVE_S, 0.0) if self.limited else None
        return Live(self.plant, self.shape, self.seed, limiter)


@dataclass(frozen=True)
class Set:
    """A ceiling that the controller set: when, to what, and whether as a remedy."""

    at: float
    value: float
    remedy: bool


@dataclass
class Told:
    """What came of a story: the plant's life and what the journal says.

    Attributes:
        ceilings: the ceiling in force in every second.
        sent: what the controller had the detector set, oldest first; renewals are left out.
        runs: state and verdict of every remedy.
        story: what a failing assertion shows.
    """

    live: Live
    ceilings: list[int]
    sent: list[Set]
    paged: list[str]
    runs: list[str]
    story: str


class Loop:
    """One scenario, going on."""

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.scenario, self.world = scenario, world
        stack, live = scenario.stack, scenario._live()
        self.live = live
        # Where scrapes and evaluations fall is chance: it is the seed's.
        phase = (scenario.seed * 0.618) % 1.0
        self.scrapes = Scrapes(live, stack, 1 + phase * stack.scrape)
        self.alerting = Alerting(
            stack,
            self.scrapes,
            1 + (3 * phase % 1.0) * stack.evaluation,
            utilisation=scenario.utilisation,
            lost=99 if scenario.fault == "webhooks lost" else 0,
            doubled=scenario.fault == "webhooks doubled and late",
        )
        name = "DetectorBusy" if scenario.utilisation else "DetectorSlow"
        self.alert = an_alert(name)
        self.ceilings: list[int] = []
        self._poll_at = stack.poll * phase
        self._due = self._back_at = math.inf
        self._struck = False
        self._see(name)

    def _see(self, alert: str) -> None:
        world, stack = self.world, self.scenario.stack
        world.library["throttle"] = shipped(stack, alert=alert, guards=self.scenario.guards)
        seen = self.scrapes
        for query, ask in {"p95": seen.p95, "useful": seen.useful, "up": seen.up}.items():
            world.metrics.answers[query] = lambda at, ask=ask: ask((at - NOON).total_seconds())

        def newest(at: Any) -> float | None:
            found = seen.newest((at - NOON).total_seconds())
            return None if found is None else NOON.timestamp() + found

        world.metrics.answers["sampled_at"] = newest

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return (self.world.clock() - NOON).total_seconds()

    async def go(self) -> Told:
        """Let it happen."""
        scenario, world = self.scenario, self.world
        if scenario.fault == "controller dies in the middle":
            # After the detector has applied it, before the journal knows.
            world.dying("one", before="_confirm", times=1)
        else:
            world.controller("one")
        end = float(scenario.length)
        while self.now < end:
            self._advance(min(end, self._next()))
            await self._round()
        return self._told()

    def _next(self) -> float:
        self._due = self._due_in_journal()
        arrivals = [notice.at for notice in self.alerting.post]
        # A round that was due and changed nothing comes again a tick later.
        wanted = max(self._due, self.now + 1)
        others = (self.scrapes.due, self.alerting.due, self._poll_at, self._back_at, *arrivals)
        return max(self.now + 0.05, min(wanted, *others))

    def _advance(self, until: float) -> None:
        ceiling = int(self.world.detector.value())
        while self.live.age < int(until):
            self.live.live(lambda _device, _offered: ceiling)
            self.ceilings.append(ceiling)
        self.world.clock.now = NOON + timedelta(seconds=until)

    async def _round(self) -> None:
        now, world = self.now, self.world
        self._strike(now)
        if now >= self.scrapes.due:
            self.scrapes.scrape(now)
        if now >= self.alerting.due:
            self.alerting.go_on(now)
        arrived = self.alerting.arrived(now)
        for notice in arrived:
            await world.fire(self._as_sent(firing=notice.firing, starts_at=notice.starts_at))
        if now >= self._poll_at:
            self._poll_at = now + self.scenario.stack.poll
            await self._poll()
            self._due = self._due_in_journal()
        if arrived or now >= self._due:
            await world.tick()
            self._revive(now)

    def _due_in_journal(self) -> float:
        due = self.world.db.transact(agenda.next_due, writing=False)
        return math.inf if due is None else (due - NOON).total_seconds()

    async def _poll(self) -> None:
        alerting = self.alerting
        firing = self._as_sent(firing=True, starts_at=alerting.starts_at)
        listing = intake.Listing(
            alerts=(firing,) if alerting.active else (),
            asked_at=self.world.clock(),
            heard_at=None,
            complete=True,
        )
        await intake.observe(self.world.db, listing, self.world.pace)

    def _as_sent(self, *, firing: bool, starts_at: float) -> Alert:
        began = NOON + timedelta(seconds=starts_at)
        ended = None if firing else self.world.clock()
        return replace(self.alert, firing=firing, starts_at=began, ends_at=ended)

    def _strike(self, now: float) -> None:
        scenario, detector = self.scenario, self.world.detector
        if self._struck or now < scenario.fault_at:
            return
        self._struck = True
        match scenario.fault:
            case "exporter frozen":
                self.scrapes.frozen = True
            case "target silent":
                self.scrapes.gone = True
            case "a person pins the knob":
                detector.pin(KNOB, "ann", 8)
            case "another writer leases the knob":
                self._lease_by_another()

    def _lease_by_another(self) -> None:
        detector = self.world.detector
        until = self.world.clock() + timedelta(hours=1)
        detector.leases[KNOB] = Lease("autoscaler", 8, until, 1, timedelta(seconds=60))
        detector.generation += 1

    def _revive(self, now: float) -> None:
        (one,) = self.world.controllers
        if one.dead and self._back_at == math.inf:
            self._back_at = now + DOWN_S
        elif one.dead and now >= self._back_at:
            self.world.controllers.remove(one)
            one.db.close()
            self.world.controller("two")
            self._back_at = math.inf

    def _told(self) -> Told:
        world = self.world
        remedies = world.runs(kind=RunKind.REMEDY)
        sent = list(self._sent({run.id for run in remedies}))
        lines = [f"{one.at:.0f}s -> {one.value:g}" for one in sent]
        return Told(
            live=self.live,
            ceilings=self.ceilings,
            sent=sent,
            paged=world.paged(),
            runs=[f"{run.state}/{run.verdict}" for run in remedies],
            story="\n".join([*lines, world.story()]),
        )

    def _sent(self, remedies: set[int]) -> Iterator[Set]:
        world = self.world
        keys = {row.idempotency_key: run.id for run in world.runs() for row in world.steps(run)}
        for one in world.detector.applied():
            if one.verb in {"set", "release"} and one.key in keys:
                values = one.args.get("values", world.detector.base)
                remedy = keys[one.key] in remedies and "/forward/" in one.key
                yield Set((one.at - NOON).total_seconds(), values[KNOB], remedy)


async def tell(scenario: Scenario, folder: Path) -> Told:
    """Let a scenario happen and return what came of it."""
    with a_world(folder, pace=scenario.pace_in_force, targets=(GPU1,)) as world:
        return await Loop(scenario, world).go()
