"""The stage: the whole engine on a described world, and time that jumps to what is due next.

Called by `remediator test` for each test. Engine, journal and playbooks are the real ones, wired as
`app` wires them; only facts, targets, people and the clock are stand-ins. The surprise: nothing
sleeps. Half an hour takes about a second, most of it in promtool.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

from structlog.processors import format_exc_info
from structlog.testing import capture_logs

from remediator.actuators.observed import ObservedActuator
from remediator.engine import intake
from remediator.engine.admission import Admission
from remediator.engine.effects import Effects
from remediator.engine.reconcile import Reconciler
from remediator.engine.runner import Runner
from remediator.model.alert import Alert, Silence
from remediator.model.effect import Message
from remediator.model.labels import Matcher
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Pinned
from remediator.model.target import Inventory, Target
from remediator.rehearsal import people
from remediator.rehearsal.cast import a_cast, become, end_of
from remediator.rehearsal.facts import RehearsedFacts
from remediator.rehearsal.journal import a_journal
from remediator.rehearsal.promtool import Promtool
from remediator.rehearsal.props import Cue, Document, Props
from remediator.rehearsal.script import (
    LONGEST,
    AlertSpec,
    Behaviour,
    Control,
    Event,
    Scene,
    Script,
    SeriesSpec,
    SilenceSpec,
)
from remediator.rehearsal.series import Series
from remediator.rehearsal.story import Story, read_story
from remediator.rehearsal.vacuous import came_to_nothing
from remediator.store.agenda import next_due
from remediator.store.database import Database, Tx
from remediator.telemetry import Metrics

SECOND = timedelta(seconds=1)
FIRING = 'ALERTS{alertstate="firing"}'


class StageClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the present moment."""
        return self.now

    def advance(self, length: timedelta) -> None:
        """Let so much time pass."""
        self.now += length


@dataclass
class Audience:
    """Keeps what a person was told, and when."""

    clock: StageClock
    told: list[tuple[datetime, Message]] = field(default_factory=list)

    async def notify(self, message: Message) -> None:
        """Hear it."""
        self.told.append((self.clock(), message))


@dataclass
class Silenced:
    """Which silences people have made, for the engine's `SilenceSource`."""

    clock: StageClock
    made: list[Silence] = field(default_factory=list)

    async def silences(self) -> Sequence[Silence]:
        """Return those that have not ended."""
        return [silence for silence in self.made if silence.ends_at > self.clock()]


Happening = Callable[[], Awaitable[None]]


class Stage:
    """One test while it is played.

    Attributes:
        cast: every stand-in, under `target/role`.
        noted: what happened from outside, and when.
        mistakes: what the test says that cannot be, and errors of the engine itself.
    """

    def __init__(
        self,
        script: Script,
        scene: Scene,
        *,
        db: Database,
        clock: StageClock,
        library: Mapping[str, Pinned],
        promtool: Promtool,
        rule_files: Sequence[Path] = (),
    ) -> None:
        self.script = script
        self.scene = scene
        self.db = db
        self.clock = clock
        self.start = clock()
        self.noted: list[tuple[datetime, str]] = []
        self.mistakes: list[str] = []
        self.facts = RehearsedFacts(
            promtool,
            clock=clock,
            series=_series(scene.input_series),
            interval=script.interval,
            rule_files=rule_files,
        )
        self.props = Props(
            clock=clock,
            cues=[Cue(behaviour) for behaviour in scene.actuators],
            wait=clock.advance,
            on_effect=self._on_effect,
        )
        self.cast = {
            f"{name}/{prop.role}": prop
            for name, spec in script.inventory.items()
            for prop in a_cast(self.props, name, spec)
        }
        self.audience = Audience(clock)
        self.silenced = Silenced(clock)
        self._firing: dict[str, Alert] = {}
        self._due: list[tuple[datetime, int, Happening]] = []
        self._number = itertools.count()
        # Behaviours that should have an effect, and whether any of them had it.
        self._effects: dict[Behaviour, bool] = {}
        self.pace = Pace(scrape=script.interval, evaluation=script.interval)
        self.reconciler = self._wire(library)
        self._plan()

    def _wire(self, library: Mapping[str, Pinned]) -> Reconciler:
        """Build the engine as `app` builds it."""
        inventory = Inventory(
            Target(
                name=name,
                instance=spec.instance or name,
                job=spec.job,
                pool=spec.pool,
                actuators={p.role: p.role for p in self.cast.values() if p.name == name},
                caps={f"inventory.{name}.mode": spec.mode} if spec.mode else {},
            )
            for name, spec in self.script.inventory.items()
        )
        admission = Admission(
            db=self.db,
            metrics=self.facts,
            silences=self.silenced,
            inventory=inventory,
            pace=self.pace,
        )
        observed = {key: ObservedActuator(prop) for key, prop in self.cast.items()}
        effects = Effects(
            db=self.db,
            metrics=self.facts,
            admission=admission,
            actuators={Mode.AUTO: self.cast, Mode.OBSERVE: observed},
            pace=self.pace,
        )
        runner = Runner(
            db=self.db,
            metrics=self.facts,
            effects=effects,
            inventory=inventory,
            admission=admission,
            pace=self.pace,
            owner="rehearsal",
        )
        return Reconciler(
            db=self.db,
            admission=admission,
            runner=runner,
            notifier=self.audience,
            metrics=Metrics(),
            library=lambda: library,
        )

    # -- what happens when ---------------------------------------------------------------------

    def _plan(self) -> None:
        """Put down everything that the test says will happen."""
        for event in self.scene.events:
            self._at(event.at, partial(self._happen, event))
        for alert in self.scene.alerts:
            self._at(alert.at, partial(self._receive, _alert(alert.labels, alert)))
            if alert.until is not None:
                self._at(alert.until, partial(self._resolve, _alert(alert.labels, alert)))
        for silence in self.scene.silences:
            self._at(silence.at, partial(self._silence, silence))
        for control in self.scene.controls:
            self._at(control.at, partial(self._obey, control))

    def _at(self, offset: timedelta, happening: Happening) -> None:
        heapq.heappush(self._due, (self.start + offset, next(self._number), happening))

    def _note(self, text: str) -> None:
        self.noted.append((self.clock(), text))

    async def _receive(self, alert: Alert) -> None:
        self._note(f"alert {_named(alert)} {'fires' if alert.firing else 'is resolved'}")
        delivery = intake.Delivery(
            body=b"{}", receiver="rehearsal", group_key=alert.name, truncated=0, alerts=(alert,)
        )
        await intake.accept(self.db, delivery, self.pace)

    async def _resolve(self, alert: Alert) -> None:
        await self._receive(replace(alert, firing=False, ends_at=self.clock()))

    async def _evaluate_rules(self) -> None:
        """Send what the rules fire now and what they no longer fire."""
        found = await self.facts.series(FIRING)
        firing = {}
        for labels, _ in found.values:
            own = {k: v for k, v in labels.items() if k not in {"__name__", "alertstate"}}
            alert = _alert(own)
            firing[alert.fingerprint] = alert
        for fingerprint, alert in self._firing.items():
            if fingerprint not in firing:
                await self._resolve(alert)
        for fingerprint, alert in firing.items():
            if fingerprint not in self._firing:
                await self._receive(alert)
        self._firing = firing

    async def _silence(self, wanted: SilenceSpec) -> None:
        matchers = tuple(Matcher.parse(text) for text in wanted.matchers)
        self._note(f"{wanted.by} silences {', '.join(wanted.matchers)}")
        made = Silence(
            id=f"silence-{len(self.silenced.made) + 1}",
            matchers=matchers,
            created_by=wanted.by,
            comment="made in a rehearsal",
            ends_at=self.start + (wanted.until or LONGEST),
        )
        self.silenced.made.append(made)

    async def _obey(self, control: Control) -> None:
        self._note(people.does(control))
        problem = await self.db.write(people.do, control)
        if problem:
            self.mistakes.append(f"{people.does(control)}: {problem}")

    async def _happen(self, event: Event) -> None:
        mine = [prop for prop in self.cast.values() if prop.name == event.target]
        if event.becomes is not None:
            self._note(f"{event.target} becomes {event.becomes}")
            for prop in mine:
                become(prop, event.becomes)
        if event.pin is not None:
            self._note(f"somebody pins {event.pin} at {event.target}")
            for prop in mine:
                if isinstance(prop, Document) and event.pin in prop.base:
                    prop.pin(event.pin, "somebody")
        if event.effect:
            await self._scrape_other(event.effect)

    def _on_effect(self, behaviour: Behaviour) -> None:
        at = self.clock() + behaviour.after - self.start
        self._effects.setdefault(behaviour, False)
        self._at(at, partial(self._take_effect, behaviour))

    async def _take_effect(self, behaviour: Behaviour) -> None:
        self._effects[behaviour] = True
        await self._scrape_other(behaviour.effect)

    async def _scrape_other(self, series: Sequence[SeriesSpec]) -> None:
        count = f"{len(series)} series" if len(series) > 1 else series[0].series
        self._note(f"the next scrape sees other values of {count}")
        self.facts.change(_series(series), after=self.clock())

    # -- time ----------------------------------------------------------------------------------

    async def play(self) -> Story:
        """Play it to its end.

        Raises:
            ConfigurationError: promtool cannot answer, so nothing can be said.
        """
        end = self.start + self.scene.length
        with capture_logs(processors=[format_exc_info]) as logs:
            await self._round()
            while self.clock() < end:
                self.clock.now = self._next(end)
                await self._round()
        for line in logs:
            if line["log_level"] in {"error", "critical"}:
                trace = str(line.get("exception", "")).strip().split("\n")
                self.mistakes.append(f"an error of the engine: {line['event']}: {trace[-1]}")
        return self.db.transact(self._told, writing=False)

    async def _round(self) -> None:
        """Let happen what is due, then do what the scheduler does in one round."""
        passed = self.clock() - self.start
        if self.scene.alerts_from_rules and not passed % self.script.interval:
            await self._evaluate_rules()
        ours = self.reconciler
        await self._let_happen()
        await ours.look_by_schedule()
        await ours.dispatch()
        await ours.idle()
        # An effect that begins at once is scraped before anybody looks again.
        await self._let_happen()
        await ours.renew_leases()
        await ours.look_after_changes()
        await ours.tell()
        if self.facts.failed is not None:
            raise self.facts.failed

    async def _let_happen(self) -> None:
        while self._due and self._due[0][0] <= self.clock():
            await heapq.heappop(self._due)[2]()

    def _next(self, end: datetime) -> datetime:
        """Return the next moment at which something is due: a whole second, later than now."""
        now = self.clock()
        interval = self.script.interval
        evaluation = self.start + ((now - self.start) // interval + 1) * interval
        waiting = self.db.transact(next_due, writing=False)
        happening = self._due[0][0] if self._due else end
        soonest = min(evaluation, happening, waiting or end)
        seconds = math.ceil(max(soonest - self.start, now - self.start + SECOND) / SECOND)
        return min(end, self.start + SECOND * seconds)

    def _told(self, tx: Tx) -> Story:
        self.mistakes += came_to_nothing(
            tx,
            self.scene,
            cues=self.props.cues,
            silences=self.silenced.made,
            waiting=[behaviour for behaviour, came in self._effects.items() if not came],
        )
        return read_story(
            tx,
            start=self.start,
            sent=self.props.sent,
            told=self.audience.told,
            noted=self.noted,
            mistakes=tuple(dict.fromkeys(self.mistakes)),
            targets={name: end_of(self.cast, name) for name in self.script.inventory},
        )


def _series(specs: Sequence[SeriesSpec]) -> tuple[Series, ...]:
    return tuple(Series(spec.series, spec.values) for spec in specs)


def _alert(labels: Mapping[str, str], spec: AlertSpec | None = None) -> Alert:
    said = repr(sorted(labels.items()))
    return Alert(
        fingerprint=sha256(said.encode()).hexdigest()[:16],
        firing=True,
        labels=dict(labels),
        annotations=dict(spec.annotations) if spec else {},
    )


def _named(alert: Alert) -> str:
    labels = ", ".join(f"{k}={v}" for k, v in sorted(alert.labels.items()) if k != "alertname")
    return f"{alert.name} ({labels})"


async def play(
    script: Script,
    scene: Scene,
    *,
    library: Mapping[str, Pinned],
    promtool: Promtool,
    rule_files: Sequence[Path] = (),
) -> Story:
    """Play one test on an empty journal.

    Raises:
        ConfigurationError: promtool cannot answer.
    """
    clock = StageClock(script.start)
    with a_journal(clock) as journal:
        stage = Stage(
            script,
            scene,
            db=journal,
            clock=clock,
            library=library,
            promtool=promtool,
            rule_files=rule_files,
        )
        return await stage.play()
