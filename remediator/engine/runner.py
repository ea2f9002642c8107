"""The runner: drives one claimed run, move by move, until it waits or ends.

Called by reconcile for every run it claims. It decides nothing about remediation: it loads what the
journal says, asks the planner, carries the move out and records it. The surprise: there is no
recovery code. After a crash somebody claims the run, finds an attempt that is `started`, and treats
it as unknown; that path is the same whether we died, hung or were partitioned.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from remediator.engine import approval, diagnosis, plans, rollback, settle
from remediator.engine.actions import next_move
from remediator.engine.admission import Admission
from remediator.engine.effects import Effects
from remediator.engine.moves import (
    Ask,
    Diagnose,
    Done,
    Failed,
    Halt,
    Inspect,
    Measure,
    MeasureBaseline,
    Move,
    Progress,
    Readmit,
    Record,
    Send,
    Wait,
)
from remediator.engine.ports import MetricSource
from remediator.errors import OvertakenError
from remediator.model.pace import Pace
from remediator.model.playbook import Pinned
from remediator.model.run import HeldChange, History, Phase, Run, RunKind
from remediator.model.step import EscalateStep
from remediator.model.target import Inventory
from remediator.store import alerts, approvals, changes, diagnoses, overrides, runs, steps
from remediator.store.alerts import StoredAlert
from remediator.store.database import Database, Tx


@dataclass(frozen=True)
class Loaded:
    """A run and all that its next move is decided from."""

    run: Run
    history: History
    alert: StoredAlert | None
    alert_since: datetime | None
    last_closed: datetime | None
    change: HeldChange | None
    held: tuple[HeldChange, ...]
    pins: frozenset[str]
    now: datetime


def _load(tx: Tx, run_id: int) -> Loaded | None:
    approvals.expire(tx, run_id)
    run = runs.get_run(tx, run_id)
    if run is None:
        return None
    change = changes.get_change(tx, run.change_id) if run.change_id else None
    alert_id = change.alert_id if change else run.alert_id
    return Loaded(
        run=run,
        history=steps.history(tx, run_id),
        alert=alerts.get_alert(tx, alert_id) if alert_id else None,
        alert_since=changes.alert_fires(tx, alert_id) if alert_id else None,
        last_closed=runs.last_closed(tx, run.playbook, run.target, run.mode),
        change=change,
        held=changes.of_target(tx, run.target, run.mode),
        pins=frozenset(overrides.pins(tx, run.target)),
        now=tx.now,
    )


@dataclass(frozen=True)
class Runner:
    """Drives runs. One per process; it keeps nothing between two runs."""

    db: Database
    metrics: MetricSource
    effects: Effects
    inventory: Inventory
    admission: Admission
    pace: Pace
    owner: str

    async def drive(self, claimed: Run, library: Mapping[str, Pinned]) -> None:
        """Carry out moves until the run waits or ends.

        Raises:
            FencedError: somebody else owns the run now; nothing more was done.
            StoreUnavailableError: the journal is gone; the lease will lapse.
        """
        view: dict[str, Mapping[str, Any]] = {}
        epoch = claimed.epoch
        while True:
            loaded = await self.db.write(_load, claimed.id)
            if loaded is None or loaded.run.epoch != epoch or not loaded.run.state.is_open:
                return
            # A word that came since the run was read is heard before the run ends: read it again.
            with suppress(OvertakenError):
                if await self._go_on(loaded, view, library):
                    return

    async def _go_on(
        self, loaded: Loaded, view: dict[str, Mapping[str, Any]], library: Mapping[str, Pinned]
    ) -> bool:
        """Carry out the next move; True when the run waits, has ended, or is no longer ours."""
        progress = self._progress(loaded, view)
        if progress is None:
            gone = f"{loaded.run.target} left the inventory: nobody can reach it"
            await self.db.write(settle.strand, loaded.run, gone, self.pace)
            return True
        return await self._carry_out(loaded, progress, _decide(progress), view, library)

    async def _carry_out(
        self,
        loaded: Loaded,
        progress: Progress,
        move: Move | list[str],
        view: dict[str, Mapping[str, Any]],
        library: Mapping[str, Pinned],
    ) -> bool:
        """Carry one move out; True when the run waits, has ended, or is no longer ours to drive."""
        run = loaded.run
        if isinstance(move, Inspect):
            view[move.role] = await self.effects.inspect(progress, move.role)
            return False
        if isinstance(move, Diagnose):
            await self._diagnose(progress, move)
            return False
        if isinstance(move, Measure | MeasureBaseline):
            await self._measure(run, move, loaded.now)
            return False
        if isinstance(move, Wait):
            await self.db.write(
                runs.park,
                run,
                due_at=move.until,
                reason=move.why,
                release_slot=move.release_slot,
            )
            return True
        if isinstance(move, Ask):
            await self.db.write(approval.ask, run, progress.plan, move)
            return True
        if isinstance(move, Send):
            return not await self._send(progress, move, view)
        view.clear()
        if isinstance(move, Record):
            await self.db.write(move.write, run)
            return False
        if isinstance(move, Readmit):
            return await self._readmit(loaded, progress, move)
        if isinstance(move, Halt):
            await self.db.write(runs.ask_to_stop, run.id, reason=move.reason)
            return False
        return await self._end(loaded, progress, move, library)

    async def _send(
        self, progress: Progress, move: Send, view: dict[str, Mapping[str, Any]]
    ) -> bool:
        """Send one call, after a first look around; False when the run was parked instead."""
        look = diagnosis.first_look(progress)
        if look is not None:
            await self._diagnose(progress, look)
        sent = await self.effects.send(progress, move, view.get(move.role, {}))
        view.clear()
        return sent

    async def _readmit(self, loaded: Loaded, progress: Progress, move: Readmit) -> bool:
        """Ask the guards again for a run that was approved; True when it waits for them."""
        denied = await self.admission.readmit(progress, loaded.alert)
        if denied is None:
            return False
        return await self.db.write(
            approval.not_admitted, loaded.run, move.answer, denied, self.pace
        )

    def _progress(self, loaded: Loaded, view: Mapping[str, Mapping[str, Any]]) -> Progress | None:
        target = self.inventory.find(loaded.run.target)
        if target is None:
            return None
        plan, unreadable = plans.read(loaded.run)
        return Progress(
            run=loaded.run,
            plan=plan,
            unreadable=unreadable,
            target=target,
            history=loaded.history,
            now=loaded.now,
            pace=self.pace,
            view=view,
            alert_since=loaded.alert_since,
            last_closed=loaded.last_closed,
            labels=loaded.alert.labels if loaded.alert else {},
            change=loaded.change,
            held=loaded.held,
            pins=loaded.pins,
        )

    async def _diagnose(self, progress: Progress, wanted: Diagnose) -> None:
        seen = await diagnosis.look(self.effects, progress, wanted)
        await self.db.write(diagnoses.keep, progress.run, pc=wanted.pc, seen=seen)

    async def _measure(self, run: Run, move: Measure | MeasureBaseline, now: datetime) -> None:
        if isinstance(move, Measure):
            # Stamped with the journal's clock, read before the question was asked: "newer than
            # the action" must compare one clock, and must never err on the young side.
            reading = replace(await self.metrics.query(move.query), at=now)
            await self.db.write(steps.measure, run, role=move.role, readings=[reading])
            return
        step = move.length / 8
        past = await self.metrics.history(move.query, end=now, length=move.length, step=step)
        readings = list(past) or [await self.metrics.query(move.query)]
        await self.db.write(steps.measure, run, role="baseline", readings=readings)

    async def _end(
        self,
        loaded: Loaded,
        progress: Progress,
        move: Done | Failed | list[str],
        library: Mapping[str, Pinned],
    ) -> bool:
        """Finish a step or the run; False when the run goes on."""
        run = loaded.run
        if isinstance(move, Done):
            return await self._done(progress, move)
        if run.stop_reason is not None and run.phase is Phase.FORWARD:
            return await self._stopped(progress)
        # What has no undo, such as a restart that made it worse, is handed over at once.
        turn = isinstance(move, Failed) and (
            ((move.roll_back or progress.plan.on_failure.undo) and settle.anything_done(progress))
            or settle.half_done(progress.history)
        )
        if isinstance(move, Failed) and turn:
            await self.db.write(runs.turn_back, run, verdict=move.verdict, reason=move.reason)
            return False
        successor = await settle.find_successor(progress, self.admission, library, loaded.alert)
        if isinstance(move, Failed):
            await self.db.write(settle.fail, run, move, successor, self.pace, change=loaded.change)
        else:
            await self.db.write(
                settle.end_rollback, run, failures=move, successor=successor, pace=self.pace
            )
        return True

    async def _done(self, progress: Progress, move: Done) -> bool:
        run = progress.run
        following = run.pc + 1 if move.goto is None else move.goto
        last = following >= len(progress.plan.steps) or isinstance(
            progress.plan.steps[following], EscalateStep
        )
        if run.kind is RunKind.RESTORE or last:
            await self.db.write(_close_done, run, move)
            return True
        await self.db.write(_advance_done, run, move, following)
        return False

    async def _stopped(self, progress: Progress) -> bool:
        run = progress.run
        reason = run.stop_reason or ""
        everything = settle.takes_all_back(progress) and settle.anything_done(progress)
        if everything or settle.half_done(progress.history):
            await self.db.write(runs.turn_back, run, verdict=None, reason=reason)
            return False
        await self.db.write(settle.stop, run, reason, self.pace)
        return True


def _decide(progress: Progress) -> Move | list[str]:
    run = progress.run
    if run.phase is Phase.ROLLBACK:
        return rollback.next_undo(progress)
    if run.stop_reason is not None:
        return Failed(None, run.stop_reason)
    return next_move(progress)


def _close_done(tx: Tx, run: Run, move: Done) -> None:
    if move.on_close is not None:
        move.on_close(tx, run)
    settle.succeed(tx, run, replace(move, verdict=move.verdict or run.verdict))


def _advance_done(tx: Tx, run: Run, move: Done, pc: int) -> None:
    if move.on_close is not None:
        move.on_close(tx, run)
    runs.advance(tx, run, pc=pc, verdict=move.verdict)
