"""Reconcile: the ticks. Each looks at what the journal says and does the next thing.

Called by the scheduler, and poked by the webhook. Level-triggered: a tick that is lost, late or
doubled changes nothing but the time. The surprise: this is one of the two places with a broad
`except`. A run whose drive raised anything unexpected is simply dropped; its lease lapses and
somebody claims it, exactly as after a crash. An alert that nobody can decide about is looked at
again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from remediator.engine import held, schedules, settle
from remediator.engine.actions.knobs import OWNER, revert_pace
from remediator.engine.admission import Admission
from remediator.engine.ports import Notifier
from remediator.engine.runner import Runner
from remediator.errors import (
    EffectError,
    FencedError,
    RefusedError,
    StoreUnavailableError,
)
from remediator.model.decision import Admitted
from remediator.model.effect import Call, Message
from remediator.model.pace import Pace
from remediator.model.playbook import Pinned
from remediator.model.run import HeldChange, Phase, Run
from remediator.store import alerts, approvals, changes, controls, outbox, retention, runs, steps
from remediator.store.alerts import StoredAlert
from remediator.store.database import Database, Tx, moment
from remediator.telemetry import Metrics

log = structlog.get_logger(__name__)

REVIEW_LIMIT = 200
RUN_LIMIT = 16
# Decisions taken at the same time; each asks Prometheus and Alertmanager.
SIDE_BY_SIDE = 8


@dataclass
class Reconciler:
    """The ticks of one process.

    Attributes:
        library: returns the playbooks that are being served now.
        driving: the runs this process drives, by id, with the epoch it drives them under.
    """

    db: Database
    admission: Admission
    runner: Runner
    notifier: Notifier
    metrics: Metrics
    library: Callable[[], Mapping[str, Pinned]]
    driving: dict[int, int] = field(default_factory=dict)
    _drives: set[asyncio.Task[None]] = field(default_factory=set)
    _listening_since: datetime | None = None

    async def dispatch(self) -> None:
        """Drive the runs that are due, decide about alerts that wait for it, drop moot questions.

        What runs already comes first, and comes again after every few decisions: a Prometheus that
        takes its time must not keep a target drained that only waits to be undrained.
        """
        await self.drive_due()
        waiting = await self.db.write(alerts.to_review, limit=REVIEW_LIMIT)
        for start in range(0, len(waiting), SIDE_BY_SIDE):
            few = waiting[start : start + SIDE_BY_SIDE]
            await asyncio.gather(*(self._consider(alert) for alert in few))
            await self.drive_due()
        moot = await self.db.read(approvals.moot)
        if moot:
            await self.db.write(approvals.wake, moot)
        await self.drive_due()

    async def look_by_schedule(self) -> None:
        """Look wherever a playbook's schedule says so; what is found is decided about at once."""
        metrics, pace = self.runner.metrics, self.runner.pace
        if await schedules.look(self.db, metrics, self.library(), pace):
            await self.dispatch()

    async def _consider(self, alert: StoredAlert) -> None:
        try:
            taken = await self.admission.consider(alert, self.library())
        except StoreUnavailableError:
            raise
        except Exception:
            # One alert that nobody can decide about must not hold up all the others.
            log.exception("alert undecided", alert=alert.name, id=alert.id)
            self.metrics.failed_ticks.labels(tick="decision").inc()
            await self.db.write(alerts.review_again, alert.id, after=self.runner.pace.review)
            return
        for playbook, decision in taken:
            reason = "admitted" if isinstance(decision, Admitted) else decision.reason.value
            self.metrics.decisions.labels(reason=reason).inc()
            if isinstance(decision, Admitted):
                log.info("run admitted", run=decision.run_id, playbook=playbook, alert=alert.name)

    async def drive_due(self) -> None:
        """Claim the runs that are due and drive each on its own."""
        room = RUN_LIMIT - len(self.driving)
        if room <= 0:
            return
        claimed = await self.db.write(
            runs.claim_due, owner=self.runner.owner, lease=self.runner.pace.lease, limit=room
        )
        for run in claimed:
            self.driving[run.id] = run.epoch
            drive = asyncio.create_task(self._drive(run), name=f"run R{run.id}")
            # Kept until it ends: shutdown waits for it (`close`).
            self._drives.add(drive)
            drive.add_done_callback(self._drives.discard)

    async def _drive(self, run: Run) -> None:
        try:
            await self.runner.drive(run, self.library())
        except FencedError as error:
            log.info("run lost", run=run.id, why=str(error))
        except StoreUnavailableError as error:
            log.warning("journal unavailable", run=run.id, why=str(error))
        except Exception as error:
            # Treated like a crash: the lease lapses and somebody claims the run.
            log.exception("run dropped", run=run.id, target=run.target)
            self.metrics.dropped_runs.inc()
            await self._note_drop(run, error)
        finally:
            if self.driving.get(run.id) == run.epoch:
                del self.driving[run.id]

    async def _note_drop(self, run: Run, error: Exception) -> None:
        try:
            await self._count_drop(run, f"{type(error).__name__}: {error}")
        except (FencedError, StoreUnavailableError) as lost:
            log.info("drop not noted", run=run.id, why=str(lost))

    async def _count_drop(self, run: Run, words: str) -> None:
        try:
            await self.db.write(_dropped, run, words, self.runner.pace)
        except (FencedError, StoreUnavailableError):
            raise
        except Exception:
            # Whatever keeps it from being given up as it should be would do so for ever.
            log.exception("run abandoned", run=run.id, target=run.target)
            await self.db.write(_abandoned, run, words)

    async def renew_leases(self) -> None:
        """Keep the runs that this process drives."""
        if self.driving:
            await self.db.write(
                runs.renew,
                list(self.driving.items()),
                owner=self.runner.owner,
                lease=self.runner.pace.lease,
            )

    async def look_after_changes(self) -> None:
        """Renew held leases, give back what is over, let go of what was held too long."""
        await self.db.write(held.lapse)
        await self.db.write(held.begin_restores)
        for change in await self.db.write(changes.held_past, max_hold=self.runner.pace.max_hold):
            await self.db.write(held.expire, change)
        due = await self.db.write(changes.take_renewals, limit=RUN_LIMIT)
        # Side by side: one target that hangs must not let the lease of another lapse.
        await asyncio.gather(*(self._renew(change) for change in due))

    async def _renew(self, change: HeldChange) -> None:
        if not change.reverts_itself:
            # Nothing lapses there: that somebody looks after it is all there is to renew.
            await self.db.write(changes.renewed, change, error="")
            return
        target = self.runner.inventory.find(change.target)
        actuator = None
        if target is not None:
            actuator = self.runner.effects.actuators[change.mode].get(
                f"{target.name}/{change.actuator}"
            )
        if target is None or actuator is None:
            await self.db.write(changes.renewed, change, error="no actuator reaches it any more")
            return
        value = int(change.value) if change.value.is_integer() else change.value
        call = Call(
            verb="set",
            args={
                "values": {change.knob: value},
                "lease_s": change.lease_s,
                "owner": OWNER,
                **revert_pace(change.restore),
                "reason": f"run R{change.run_id} ({change.playbook}): still needed",
            },
            # Taking the renewal raised the count: the key names this renewal and no other.
            idempotency_key=f"change-{change.id}/renew/{change.renewals + 1}",
            fencing_token=change.fencing_token,
        )
        try:
            await actuator.send(target, call)
        except RefusedError as error:
            if error.reason in {"pinned", "leased"}:
                await self.db.write(held.yield_to, change, str(error))
            else:
                await self.db.write(changes.renewed, change, error=str(error))
        except EffectError as error:
            await self.db.write(changes.renewed, change, error=str(error))
        else:
            await self.db.write(changes.renewed, change, error="")

    async def tell(self) -> None:
        """Send the messages that are due; what fails stays due."""
        for message in await self.db.write(outbox.take_due, limit=RUN_LIMIT):
            try:
                await self.notifier.notify(message)
            except EffectError as error:
                self.metrics.notifications.labels(outcome="failed").inc()
                log.warning("not told", key=message.key, title=message.title, why=str(error))
                await self.db.write(outbox.not_told, message.key, error=str(error))
            else:
                self.metrics.notifications.labels(outcome="sent").inc()
                await self.db.write(outbox.told, message.key)

    async def watch(self) -> None:
        """Notice when the Watchdog goes silent: then we are blind, and a person is told."""
        now = await self.db.read(moment)
        self._listening_since = self._listening_since or now
        within = self.runner.pace.watchdog_within
        since = self._listening_since
        if await self.db.write(controls.check_watchdog, within=within, since=since):
            await self.db.write(_tell_blind)

    async def forget(self) -> None:
        """Delete what ended longer ago than the retention, in bites that hold up no writer."""
        while await self.db.write(retention.forget, older_than=self.runner.pace.retention):
            log.info("forgot old stories")

    async def playbooks_changed(self) -> None:
        """Look at every firing alert again: a playbook may have come that knows it."""
        await self.db.write(alerts.review_all_firing)

    async def idle(self) -> None:
        """Wait until every run that is driven now waits as a row, or has ended."""
        while self._drives:
            await asyncio.wait(set(self._drives))

    async def close(self) -> None:
        """Let go: wait for calls in flight to be recorded, then hand the runs to others."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.idle(), self.runner.pace.lease.total_seconds())
        for drive in self._drives:
            drive.cancel()
        await self.db.write(runs.let_go, owner=self.runner.owner)


# An error of ours that repeats is not a crash: a run that meets it this often is given up.
DROPS_ALLOWED = 5


def _dropped(tx: Tx, claimed: Run, error: str, pace: Pace) -> None:
    run = runs.get_run(tx, claimed.id)
    if run is None or run.epoch != claimed.epoch:
        return
    if runs.count_drop(tx, run) < DROPS_ALLOWED:
        return
    reason = f"given up after {DROPS_ALLOWED} errors of ours: {error}"
    if run.phase is Phase.FORWARD and settle.half_done(steps.history(tx, run.id)):
        # What broke may well be the way forward: a drain must not stay because of it.
        runs.turn_back(tx, run, verdict=None, reason=reason)
    else:
        settle.strand(tx, run, reason, pace)


def _abandoned(tx: Tx, claimed: Run, error: str) -> None:
    run = runs.get_run(tx, claimed.id)
    if run is not None and run.epoch == claimed.epoch:
        settle.abandon(tx, run, f"nothing more can be done about it: {error}")


def _tell_blind(tx: Tx) -> None:
    since = controls.last_sign(tx, controls.BLIND)
    key = f"blind/{since.isoformat()}" if since else f"blind/over/{tx.now.isoformat()}"
    title = "blind: the Watchdog is silent" if since else "seeing again: the Watchdog is back"
    body = (
        "No new forward action starts. What is held stays held; restores need fresh measurements."
        if since
        else "Remediation goes on."
    )
    severity = "critical" if since else "info"
    outbox.queue(tx, Message(key=key, severity=severity, title=title, body=body))
