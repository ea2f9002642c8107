"""A `World`: the controller wired as `app.build` does it, on fake ports and a real journal.

`World.settle()` moves the clock from one moment at which something is due to the next, so that
hours of a story pass in a second and nothing sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from remediator.actuators.observed import ObservedActuator
from remediator.engine import intake
from remediator.engine.admission import Admission
from remediator.engine.effects import Effects
from remediator.engine.moves import (
    BALANCER,
    COMMANDS,
    ENDPOINTS,
    PROCESS,
    SCALER,
    SETTINGS,
    SILENCES,
)
from remediator.engine.ports import Actuator
from remediator.engine.reconcile import Reconciler
from remediator.engine.runner import Runner
from remediator.model.alert import Alert
from remediator.model.effect import Call
from remediator.model.pace import Pace
from remediator.model.playbook import Mode, Pinned
from remediator.model.run import Decided, Run, RunKind, StepRow
from remediator.model.target import Inventory, Target
from remediator.rehearsal.journal import RehearsalJournal
from remediator.store import agenda, approvals, controls, queries, runs, steps
from remediator.store.database import Database, Tx
from remediator.store.tables import alerts, changes, decisions, notifications
from remediator.store.tables import steps as steps_table
from remediator.telemetry import Metrics
from tests.builders import GPU1, GPU2, INSTANCE, pinned
from tests.fakes import (
    FakeActuator,
    FakeClock,
    FakeDetector,
    FakeKnobs,
    FakeMetrics,
    FakeNotifier,
    FakeProcess,
    FakeSilences,
)
from tests.journals import DeathPlan, DiedError, DyingDatabase, a_journal
from tests.outside import FakeLog, FakeOnce, FakeSilencer


@dataclass
class Controller:
    """One process: its own connection to the journal, its own owner."""

    db: Database
    reconciler: Reconciler
    dead: bool = False

    async def tick(self, *, wait: bool = True) -> None:
        """Do what the scheduler does in one round, unless the process has died."""
        if self.dead:
            return
        ours = self.reconciler
        try:
            await ours.watch()
            await ours.look_by_schedule()
            await ours.dispatch()
            if wait:
                await ours.idle()
            await ours.renew_leases()
            await ours.look_after_changes()
            await ours.tell()
        except DiedError:
            self.dead = True
        if getattr(getattr(self.db, "plan", None), "dead", False):
            self.dead = True


@dataclass
class World:
    """A journal, targets, Prometheus, a person to tell, and one or more controllers."""

    url: str
    clock: FakeClock
    pace: Pace = field(default_factory=Pace)
    library: dict[str, Pinned] = field(default_factory=dict)
    targets: tuple[str, ...] = (GPU1, GPU2)

    def __post_init__(self) -> None:
        self.metrics = FakeMetrics(self.clock)
        self.silences = FakeSilences()
        self.notifier = FakeNotifier()
        self.processes = {name: FakeProcess(self.clock) for name in self.targets}
        self.detectors = {
            name: FakeDetector(self.clock, self.processes[name]) for name in self.targets
        }
        self.balancers = {name: FakeKnobs(self.clock, weight=100) for name in self.targets}
        self.scalers = {name: FakeKnobs(self.clock, replicas=2) for name in self.targets}
        self.endpoints, self.commands = FakeOnce(self.clock), FakeOnce(self.clock)
        self.silencer = FakeSilencer(self.clock, self.silences)
        self.log = FakeLog()
        self.inventory = Inventory(
            Target(
                name=name,
                instance=INSTANCE.get(name, name),
                pool="detectors",
                actuators={SETTINGS: "detector", PROCESS: "supervisor"},
            )
            for name in self.targets
        )
        self.db: Database = RehearsalJournal(self.url, clock=self.clock)
        self.controllers: list[Controller] = []
        for actuator in self.actuators.values():
            actuator.witness = self._was_intended

    # -- building ------------------------------------------------------------------------------

    @property
    def detector(self) -> FakeDetector:
        """The first target's settings."""
        return self.detectors[self.targets[0]]

    @property
    def process(self) -> FakeProcess:
        """The first target's process."""
        return self.processes[self.targets[0]]

    @property
    def balancer(self) -> FakeKnobs:
        """Who sends traffic to the first target."""
        return self.balancers[self.targets[0]]

    @property
    def scaler(self) -> FakeKnobs:
        """Who decides how many replicas of the first target serve."""
        return self.scalers[self.targets[0]]

    @property
    def actuators(self) -> dict[str, FakeActuator]:
        """Every fake actuator by `target/role`."""
        found: dict[str, FakeActuator] = {}
        for name in self.targets:
            found[f"{name}/{ENDPOINTS}"] = self.endpoints
            found[f"{name}/{COMMANDS}"] = self.commands
            found[f"{name}/{SILENCES}"] = self.silencer
            found[f"{name}/{SETTINGS}"] = self.detectors[name]
            found[f"{name}/{PROCESS}"] = self.processes[name]
            found[f"{name}/{BALANCER}"] = self.balancers[name]
            found[f"{name}/{SCALER}"] = self.scalers[name]
        return found

    def serve(self, *documents: dict[str, Any]) -> None:
        """Serve these playbooks from now on."""
        self.library.clear()
        self.library.update({d["name"]: pinned(d) for d in documents})

    def controller(self, owner: str = "one", *, db: Database | None = None) -> Controller:
        """Start one more process on the same journal."""
        db = db or RehearsalJournal(self.url, clock=self.clock)
        real: dict[str, Actuator] = dict(self.actuators)
        admission = Admission(
            db=db,
            metrics=self.metrics,
            silences=self.silences,
            inventory=self.inventory,
            pace=self.pace,
        )
        effects = Effects(
            db=db,
            metrics=self.metrics,
            admission=admission,
            actuators={
                Mode.AUTO: real,
                Mode.OBSERVE: {key: ObservedActuator(inner) for key, inner in real.items()},
            },
            pace=self.pace,
            lookers={f"{name}/{PROCESS}": self.log for name in self.targets},
        )
        runner = Runner(
            db=db,
            metrics=self.metrics,
            effects=effects,
            inventory=self.inventory,
            admission=admission,
            pace=self.pace,
            owner=owner,
        )
        made = Controller(
            db=db,
            reconciler=Reconciler(
                db=db,
                admission=admission,
                runner=runner,
                notifier=self.notifier,
                metrics=Metrics(),
                library=lambda: self.library,
            ),
        )
        self.controllers.append(made)
        return made

    def dying(
        self, owner: str = "one", *, before: str, times: int = 1, after_commit: bool = False
    ) -> Controller:
        """Start a process that dies at the n-th transaction of this body."""
        plan = DeathPlan(at=times, after_commit=after_commit, body=before)
        return self.controller(owner, db=DyingDatabase(self.url, clock=self.clock, plan=plan))

    def close(self) -> None:
        """Let go of the journal."""
        for one in self.controllers:
            one.db.close()
        self.db.close()

    # -- making things happen ------------------------------------------------------------------

    async def fire(self, *incoming: Alert) -> None:
        """Receive a webhook with these alerts."""
        await intake.accept(
            self.db,
            intake.Delivery(
                body=b"{}", receiver="remediator", group_key="g", truncated=0, alerts=incoming
            ),
            self.pace,
        )

    async def list_active(self, *listed: Alert) -> None:
        """Poll an Alertmanager that lists exactly these alerts as active."""
        listing = intake.Listing(alerts=listed, asked_at=self.clock(), heard_at=None, complete=True)
        await intake.observe(self.db, listing, self.pace)

    async def resolve(self, *known: Alert) -> None:
        """Receive a webhook that says that these are over."""
        await self.fire(*(replace(a, firing=False, ends_at=self.clock()) for a in known))

    async def tick(self) -> None:
        """Let every living controller do one round."""
        if not self.controllers:
            self.controller()
        for one in self.controllers:
            await one.tick()

    async def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, with a round at every moment at which something is due."""
        end = self.clock() + timedelta(seconds=seconds)
        await self.tick()
        while self.clock() < end:
            await self._go_on(end)

    async def until(self, condition: Callable[[], object], *, within: float = 3600.0) -> None:
        """Let time pass until `condition` holds.

        Raises:
            AssertionError: it did not come to hold.
        """
        end = self.clock() + timedelta(seconds=within)
        await self.tick()
        while not condition():
            assert self.clock() < end, f"not within {within}s: {self.story()}"
            await self._go_on(end)

    async def _go_on(self, end: datetime) -> None:
        due = self.db.transact(agenda.next_due, writing=False)
        # At least a tick later: what was due at once has had its round.
        soonest = self.clock() + timedelta(seconds=1)
        self.clock.now = min(end, max(soonest, due or end))
        await self.tick()

    async def ended(self) -> Run:
        """Let time pass until the only remedy has ended, and return it."""
        await self.tick()
        await self.until(lambda: not self.run().state.is_open)
        return self.run()

    async def pause(self, scope: str = "all", name: str = "", *, seconds: float = 3600) -> None:
        """Pause a scope, as a person does."""
        await self.db.write(
            controls.add_pause,
            scope=scope,
            name=name,
            reason="a test",
            by="ann",
            length=timedelta(seconds=seconds),
        )

    async def resume(self, scope: str = "all", name: str = "") -> None:
        """Lift it."""
        await self.db.write(controls.lift_pauses, scope=scope, name=name, by="ann")

    async def cancel(self, run: Run, why: str = "changed my mind") -> bool:
        """Cancel a run, as a person does."""
        return await self.db.write(
            runs.ask_to_stop, run.id, reason=f"cancelled by ann: {why}", insists=True
        )

    async def decide(self, run: Run, decision: Decided, *, by: str = "ann") -> bool:
        """Say yes or no to what a run asks, as a person does."""

        def body(tx: Tx) -> bool:
            asked = approvals.of_run(tx, run.id)[-1]
            return approvals.decide(tx, asked.id, decision=decision, by=by, reason="a test")

        return await self.db.write(body)

    # -- looking -------------------------------------------------------------------------------

    def runs(self, *, kind: RunKind | None = None, playbook: str | None = None) -> list[Run]:
        """Return the runs, oldest first."""

        def body(tx: Tx) -> list[Run]:
            return queries.list_runs(
                tx,
                playbook=playbook,
                kind=None if kind is None else kind.value,
                limit=10_000,
            )

        return self.db.transact(body, writing=False)[::-1]

    def run(self) -> Run:
        """Return the only remedy there is."""
        (run,) = self.runs(kind=RunKind.REMEDY)
        return run

    def restores(self) -> list[Run]:
        """Return the restore runs, oldest first."""
        return self.runs(kind=RunKind.RESTORE)

    def steps(self, run: Run | None = None) -> tuple[StepRow, ...]:
        """Return the step attempts of a run (of the only one), oldest first."""
        wanted = (run or self.run()).id
        history = self.db.transact(steps.history, wanted, writing=False)
        return history.steps

    def calls(self, run: Run | None = None) -> list[tuple[str, str]]:
        """Return (call, status) of every attempt of a run, oldest first."""
        return [(row.call, row.status.value) for row in self.steps(run)]

    def alerts(self) -> list[dict[str, Any]]:
        """Return the episodes, oldest first."""
        return self._rows(select(alerts).order_by(alerts.c.id))

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions, oldest first."""
        return self._rows(select(decisions).order_by(decisions.c.id))

    def reasons(self) -> list[str]:
        """Return the reason of each decision, oldest first."""
        return [row["reason"] for row in self.decisions()]

    def changes(self, *, still_held: bool = False) -> list[dict[str, Any]]:
        """Return the changes, oldest first."""
        wanted = select(changes).order_by(changes.c.id)
        if still_held:
            wanted = wanted.where(changes.c.closed_at.is_(None))
        return self._rows(wanted)

    def change(self) -> dict[str, Any]:
        """Return the only change there is."""
        (change,) = self.changes()
        return change

    def messages(self) -> list[dict[str, Any]]:
        """Return what people were or will be told, oldest first."""
        return self._rows(select(notifications).order_by(notifications.c.created_at))

    def severities(self) -> list[str]:
        """Return the severity of each message."""
        return [row["severity"] for row in self.messages()]

    def paged(self) -> list[str]:
        """Return the titles of the critical messages."""
        return [row["title"] for row in self.messages() if row["severity"] == "critical"]

    def story(self) -> str:
        """Return all there is to know, for a failing assertion."""
        lines = [f"{run.id} {run.playbook} {run.state} {run.reason}" for run in self.runs()]
        lines += [f"{row['reason']} {row['detail']}" for row in self.decisions()]
        lines += [
            f"{row['target']} {row['knob']} {row['value']} of {row['base']} {row['state']}"
            for row in self.changes()
        ]
        return "\n".join(lines)

    def _rows(self, statement: Any) -> list[dict[str, Any]]:
        def body(tx: Tx) -> list[dict[str, Any]]:
            return [dict(row._mapping) for row in tx.conn.execute(statement)]

        return self.db.transact(body, writing=False)

    def _was_intended(self, call: Call) -> None:
        # No effect without a committed intent; a renewal is held by its change row.
        if call.idempotency_key.startswith("change-"):
            return
        rows = self._rows(
            select(steps_table.c.status)
            .where(steps_table.c.idempotency_key == call.idempotency_key)
            .where(steps_table.c.status == "started")
        )
        assert len(rows) == 1, f"{call.idempotency_key} is sent without one intent on record"


@contextmanager
def a_world(folder: Path, **parts: Any) -> Iterator[World]:
    """Make a world on an empty journal; everything is closed at the end."""
    world = World(url=a_journal(folder), clock=FakeClock(), **parts)
    try:
        yield world
    finally:
        world.close()
