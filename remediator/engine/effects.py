"""Effects: how a call goes out, and what is known of it afterwards.

The runner calls `send` with the move a planner chose. The order never changes: ask again what the
guards require, put the intent on record, check that the lease still has room, send once, record the
outcome. The surprise: an attempt nobody knows the outcome of is settled here too, by sending again
under the same key (idempotent), by a look that proves something, or by giving it up to a person.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from remediator.engine.admission import REQUIRE, Admission
from remediator.engine.moves import Progress, Send, knobs_of
from remediator.engine.ports import Actuator, Looker, MetricSource
from remediator.errors import OutcomeUnknownError, PermanentError, RefusedError, TemporaryError
from remediator.model.effect import Call
from remediator.model.pace import Pace
from remediator.model.playbook import Mode
from remediator.model.run import Phase, Run, RunKind, StepRow, StepStatus
from remediator.model.step import OnUnknown, kind_of
from remediator.model.target import Target
from remediator.store import controls, runs, steps
from remediator.store.database import Database, Tx

Actuators = Mapping[Mode, Mapping[str, Actuator]]

# A refusal for one of these reasons proves "not applied" and says "look again": the document moved
# under us, or our token is older than a newer run's.
LOOK_AGAIN = frozenset({"generation", "fencing"})
FIRST_BACKOFF = timedelta(seconds=1)
LONGEST_BACKOFF = timedelta(seconds=30)
# A target may ask for more patience than our own backoff, but not hold its slot for ever.
LONGEST_ASKED = timedelta(minutes=5)
# Room that the lease must still have when the call goes out, beyond the call's own timeout.
LEASE_MARGIN_S = 2.0


@dataclass(frozen=True)
class Effects:
    """Carries out the calls of runs. It keeps nothing between two calls.

    Attributes:
        actuators: by mode, then `target/role`.
        lookers: by `target/role`: who can show more of a target than its state.
    """

    db: Database
    metrics: MetricSource
    admission: Admission
    actuators: Actuators
    pace: Pace
    lookers: Mapping[str, Looker] = field(default_factory=dict)

    def _actuator(self, run: Run, target: Target, role: str) -> Actuator | None:
        # A proposal that nobody has approved may look, and no more.
        mode = Mode.AUTO if run.mode is Mode.AUTO else Mode.OBSERVE
        return self.actuators[mode].get(f"{target.name}/{role}")

    async def inspect(self, progress: Progress, role: str) -> Mapping[str, Any]:
        """Read the present state of the target; an `error` key when it cannot be read."""
        actuator = self._actuator(progress.run, progress.target, role)
        if actuator is None:
            return {"error": f"{progress.target.name} has no {role} actuator"}
        try:
            return await actuator.read(progress.target)
        except (TemporaryError, PermanentError, OutcomeUnknownError) as error:
            return {"error": str(error)}

    async def send(self, progress: Progress, move: Send, before: Mapping[str, Any]) -> bool:
        """Send one call; False when the run was parked instead."""
        attempts = progress.attempts(move.call, move.iteration, phase=move.phase, pc=move.pc)
        last = attempts[-1] if attempts else None
        if last is None:
            if move.counts and await self._no_longer_true(progress):
                return True
            return await self._attempt(progress, move, before)
        unknown = last.status in {StepStatus.STARTED, StepStatus.UNKNOWN}
        ready_at = (last.ended_at or last.started_at) + _pause_before(attempts)
        # Looking needs no pause, sending again does: a target that is coming up answers nobody.
        if progress.now < ready_at and (move.idempotent or not unknown):
            # Why it turned back is what a person has to read in the end; keep it.
            turned = progress.run.phase is Phase.ROLLBACK
            reason = progress.run.reason if turned else f"retry: {last.error}"
            # A restore that cannot get through must not keep a remedy out.
            release = progress.run.kind is RunKind.RESTORE
            await self.db.write(
                runs.park, progress.run, due_at=ready_at, reason=reason, release_slot=release
            )
            return False
        if unknown and await self._resolve_unknown(progress, move, last, len(attempts)):
            return True
        return await self._attempt(progress, move, before)

    async def _no_longer_true(self, progress: Progress) -> bool:
        """Ask the guards again when that was done too long ago; stop if it is no longer so.

        A run can be claimed an hour after it was admitted: the alert is a hint, and so is what was
        measured then.
        """
        run, why = progress.run, ""
        asked = [m.reading.at for m in progress.history.measurements if m.role == REQUIRE]
        if progress.now - max([run.opened_at, *asked]) <= self.pace.evidence_max_age:
            return False
        if run.acted_at is None and progress.alert_since is None:
            why = "the alert was over before anything was done"
        else:
            denied = await self.admission.ask_again(progress)
            why = f"no longer true: {denied.detail}" if denied else ""
        if why:
            await self.db.write(runs.ask_to_stop, run.id, reason=why)
        return bool(why)

    async def _resolve_unknown(
        self, progress: Progress, move: Send, last: StepRow, attempts: int
    ) -> bool:
        """Settle an attempt nobody knows the outcome of; False when it may be sent again.

        Idempotent: the target collapses the repeat. Otherwise only a look at the target that
        proves "not applied" allows another send; a look that proves "applied" is the outcome.
        """
        run = progress.run
        step = progress.plan.steps[move.pc]
        allowed = step.retries if move.retries is None else move.retries
        if move.idempotent and attempts <= allowed + 1:
            await self.db.write(
                steps.reclassify,
                run,
                last.id,
                status=StepStatus.UNKNOWN,
                result={"resent": True},
                error=last.error or "the process that sent it is gone",
            )
            return False
        applied = None
        if not move.idempotent and step.on_unknown is OnUnknown.PROBE:
            applied = await self._probe(progress, move, last)
        if applied is True:
            await self.db.write(_confirm, run, last.id, move, {"probed": "applied"})
        elif applied is False:
            await self.db.write(
                steps.reclassify,
                run,
                last.id,
                status=StepStatus.NOT_SENT,
                result={"probed": "not applied"},
                error="a look at the target proved that it was not applied",
            )
        else:
            await self.db.write(
                steps.reclassify,
                run,
                last.id,
                status=StepStatus.UNKNOWN,
                result={"given_up": True},
                error=last.error or "it may have been applied; nobody can say",
            )
        return True

    async def _probe(self, progress: Progress, move: Send, last: StepRow) -> bool | None:
        actuator = self._actuator(progress.run, progress.target, move.role)
        if actuator is None:
            return None
        call = Call(verb=move.verb, args=last.args, idempotency_key=last.idempotency_key)
        return await actuator.probe(progress.target, call, last.before)

    async def _attempt(self, progress: Progress, move: Send, before: Mapping[str, Any]) -> bool:
        run, timeout = progress.run, progress.plan.steps[move.pc].timeout
        lease = max(self.pace.lease, timeout + timedelta(seconds=2 * LEASE_MARGIN_S))
        deadline = time.monotonic() + lease.total_seconds()
        begun = await self.db.write(
            steps.begin,
            run,
            _intent(progress, move, before),
            lease=lease,
            budget=steps.ActionBudget(actions=self.pace.actions, per=self.pace.actions_per),
        )
        if isinstance(begun, steps.Barred):
            return await self._barred(progress, begun)
        call = Call(
            verb=move.verb,
            args=move.args,
            idempotency_key=begun.idempotency_key,
            fencing_token=begun.fencing_token,
            timeout_s=timeout.total_seconds(),
        )
        room = deadline - time.monotonic() - timeout.total_seconds()
        status, result, error = await self._carry_out(progress, move, call, room=room)
        if status is StepStatus.OK:
            await self.db.write(_confirm, run, begun.step_id, move, result)
        else:
            await self.db.write(
                steps.finish, run, begun.step_id, status=status, result=result, error=error
            )
        return True

    async def _carry_out(
        self, progress: Progress, move: Send, call: Call, *, room: float
    ) -> tuple[StepStatus, dict[str, Any], str]:
        """Send it, unless the lease has no room left; say what is known afterwards."""
        actuator = self._actuator(progress.run, progress.target, move.role)
        if actuator is None:
            return StepStatus.FAILED, {}, f"{progress.target.name} has no {move.role} actuator"
        if room < LEASE_MARGIN_S / 2:
            return StepStatus.NOT_SENT, {}, "the lease had no room left for the call"
        try:
            async with asyncio.timeout(call.timeout_s + LEASE_MARGIN_S):
                return StepStatus.OK, dict(await actuator.send(progress.target, call)), ""
        except TimeoutError:
            # An adapter keeps its time by itself; one that does not must not keep the slot.
            return StepStatus.UNKNOWN, {}, f"no answer within {call.timeout_s:g}s"
        except TemporaryError as error:
            return StepStatus.NOT_SENT, {"retry_after_s": error.retry_after}, str(error)
        except RefusedError as error:
            again = error.reason in LOOK_AGAIN
            status = StepStatus.NOT_SENT if again else StepStatus.FAILED
            return status, {"refused": error.reason, **error.detail}, str(error)
        except PermanentError as error:
            return StepStatus.FAILED, {}, str(error)
        except OutcomeUnknownError as error:
            return StepStatus.UNKNOWN, {}, str(error)

    async def _barred(self, progress: Progress, barred: steps.Barred) -> bool:
        """React to a refused intent; True when there is something to do at once."""
        run = progress.run
        if barred.reason == "pinned" and run.phase is Phase.ROLLBACK:
            return True  # pinned since it was read: read again, and leave that knob alone
        if barred.reason == "slot":
            await self.db.write(
                runs.park,
                run,
                due_at=progress.now + self.pace.scrape,
                reason=barred.detail,
                release_slot=True,
            )
            return False
        reason = barred.detail if barred.reason == "stop" else f"{barred.reason}: {barred.detail}"
        await self.db.write(runs.ask_to_stop, run.id, reason=reason)
        return True


def _intent(progress: Progress, move: Send, before: Mapping[str, Any]) -> steps.Intent:
    return steps.Intent(
        pc=move.pc,
        phase=move.phase,
        iteration=move.iteration,
        call=move.call,
        action=progress.run.kind.value if progress.change else _action(progress, move.pc),
        actuator=progress.target.actuators.get(move.role, move.role),
        verb=move.verb,
        args=dict(move.args),
        before=dict(before),
        undo=None if move.undo is None else dict(move.undo),
        why=move.why,
        counts=move.counts,
        knobs=knobs_of(move.args),
        idempotent=move.idempotent,
    )


def _action(progress: Progress, pc: int) -> str:
    return kind_of(progress.plan.steps[pc])


def _confirm(tx: Tx, run: Run, step_id: int, move: Send, result: dict[str, Any]) -> None:
    controls.hold_still(tx)
    steps.finish(tx, run, step_id, status=StepStatus.OK, result=result)
    if "probed" in result:
        steps.reclassify(tx, run, step_id, status=StepStatus.OK, result=result, error="")
    if move.on_ok is not None:
        move.on_ok(tx, run)


def _pause_before(attempts: Sequence[StepRow]) -> timedelta:
    """Return how long to wait after these attempts: our own backoff, or longer if asked to."""
    asked = float((attempts[-1].result or {}).get("retry_after_s", 0.0))
    return max(_backoff(len(attempts)), min(timedelta(seconds=asked), LONGEST_ASKED))


def _backoff(attempts: int) -> timedelta:
    doubled: timedelta = FIRST_BACKOFF * int(2 ** min(attempts - 1, 8))
    return min(doubled, LONGEST_BACKOFF)
