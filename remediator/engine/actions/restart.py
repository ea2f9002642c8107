"""`restart`: drain, stop, start, wait until ready, prove that it sees, undrain.

Each call is journaled with its own undo, so that a run stopped half-way does not leave the target
drained or stopped. The surprise: the process manager is first asked when the process started; when
that is after the alert began, somebody has restarted it already and we only verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from remediator.engine.actions.knobs import OWNER
from remediator.engine.moves import (
    PROCESS,
    SETTINGS,
    Done,
    Failed,
    Inspect,
    Move,
    Progress,
    Result,
    Send,
    Wait,
)
from remediator.engine.verify import take_baseline, verify
from remediator.model.playbook import Mode
from remediator.model.run import StepStatus
from remediator.model.step import RestartStep
from remediator.model.verdict import Verdict
from remediator.store import steps

DRAIN, STOP, START, CANARY, UNDRAIN = "drain", "stop", "start", "canary", "undrain"
# How often a state that should come is looked for; about the scheduler's tick.
LOOK_EVERY = timedelta(seconds=1)
# A drain that we forget must end by itself (the detector gives it back when this is over).
DRAIN_LEASE_S = 300.0
MAYBE_APPLIED = frozenset({StepStatus.OK, StepStatus.UNKNOWN})


def next_move(progress: Progress) -> Move:
    """Return the next move of a restart step."""
    step = progress.step
    if not isinstance(step, RestartStep):
        msg = "not a restart step"
        raise TypeError(msg)
    if step.verify is not None:
        baseline = take_baseline(progress, step.verify.query, step.verify.every)
        if baseline is not None:
            return baseline
    began = bool(progress.attempts(STOP) or progress.attempts(DRAIN))
    if not began:
        move = _look_first(progress, step)
        if move is not None:
            return move
    for stage in (_drained, _stopped, _started, _ready, _seeing, _undrained):
        move = stage(progress, step)
        if move is not None:
            return move
    return _prove(progress, step, acted=True)


def _look_first(progress: Progress, step: RestartStep) -> Move | None:
    if PROCESS not in progress.view:
        return Inspect(PROCESS)
    process = progress.view[PROCESS]
    if "error" in process:
        if progress.now < progress.step_started_at + step.timeout:
            return Wait(until=progress.now + LOOK_EVERY, why=f"ask again: {process['error']}")
        return Failed(None, f"the process manager cannot be asked: {process['error']}")
    started = _moment(process.get("started_at"))
    # Our own last restart is no news: it has not helped, or the alert would not fire.
    known = [at for at in (progress.alert_since, progress.last_closed) if at is not None]
    if started and known and started > max(known) and process.get("state") == "RUNNING":
        # Somebody was faster: only look whether it helped.
        return _prove(progress, step, acted=False)
    return None


def _moment(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) and value else None


def _prove(progress: Progress, step: RestartStep, *, acted: bool) -> Move:
    if step.verify is None:
        return Done(None, "restarted; nothing to verify it by" if acted else "already restarted")
    acted_at = progress.last_ok() or progress.step_started_at
    return verify(progress, step.verify, acted_at=acted_at, acted=acted)


def _drained(progress: Progress, step: RestartStep) -> Move | None:
    """Let work in flight finish, when the target still answers."""
    if not step.restart.drain or progress.attempts(STOP):
        return None
    result = progress.result(DRAIN)
    if result is None:
        if not progress.attempts(DRAIN):
            if SETTINGS not in progress.view:
                return Inspect(SETTINGS)
            if "error" in progress.view[SETTINGS]:
                return None  # it does not answer: there is nothing to wait for
        return Send(
            call=DRAIN,
            role=SETTINGS,
            verb="drain",
            args={"owner": OWNER, "reason": _reason(progress), "lease_s": DRAIN_LEASE_S},
            why="let work in flight finish first",
            idempotent=True,
            pc=progress.run.pc,
            undo={"verb": "undrain", "args": {"owner": OWNER, "reason": "run stopped"}},
        )
    if result is not Result.OK:
        return None  # a target that cannot drain is restarted all the same
    return _in_flight_done(progress, step)


def _in_flight_done(progress: Progress, step: RestartStep) -> Move | None:
    rows = progress.attempts(DRAIN)
    since = rows[-1].ended_at or rows[-1].started_at
    if progress.now >= since + step.restart.drain_within:
        return None
    if SETTINGS not in progress.view:
        return Inspect(SETTINGS)
    ready: Mapping[str, Any] = progress.view[SETTINGS].get("ready", {})
    left = ready.get("inflight", 0) + ready.get("queued", 0)
    if left == 0 or "error" in progress.view[SETTINGS]:
        return None
    return Wait(until=progress.now + LOOK_EVERY, why=f"{left} requests still in flight")


def _stopped(progress: Progress, _step: RestartStep) -> Move | None:
    result = progress.result(STOP)
    if result is Result.OK:
        return None
    if result is not None:
        return Failed(None, f"it could not be stopped: {progress.why_failed(STOP)}")
    if PROCESS not in progress.view:
        return Inspect(PROCESS)
    return Send(
        call=STOP,
        role=PROCESS,
        verb="stop",
        args={},
        why=_reason(progress),
        idempotent=False,
        pc=progress.run.pc,
        undo={"verb": "start", "args": {}, "role": PROCESS},
    )


def _started(progress: Progress, _step: RestartStep) -> Move | None:
    result = progress.result(START)
    if result is Result.OK:
        return None
    if result is not None:
        return Failed(None, f"it could not be started: {progress.why_failed(START)}")
    if PROCESS not in progress.view:
        return Inspect(PROCESS)
    return Send(
        call=START,
        role=PROCESS,
        verb="start",
        args={},
        why="it was stopped by this run",
        idempotent=False,
        pc=progress.run.pc,
        counts=False,
        on_ok=partial(steps.mark_undone, pc=progress.run.pc, calls=(STOP,)),
    )


def _ready(progress: Progress, step: RestartStep) -> Move | None:
    if progress.attempts(CANARY) or progress.run.mode is Mode.OBSERVE:
        return None
    rows = progress.attempts(START)
    since = rows[-1].ended_at or rows[-1].started_at
    if SETTINGS not in progress.view:
        return Inspect(SETTINGS)
    view = progress.view[SETTINGS]
    ready = view.get("ready", {})
    if ready.get("loaded") and ready.get("warm"):
        return None
    if progress.now >= since + step.restart.ready_within:
        return Failed(Verdict.UNKNOWN, f"not ready in time: {view.get('error', ready)}")
    return Wait(until=progress.now + LOOK_EVERY, why="waiting until it is ready")


def _seeing(progress: Progress, _step: RestartStep) -> Move | None:
    result = progress.result(CANARY)
    if result is None:
        return Send(
            call=CANARY,
            role=SETTINGS,
            verb="canary",
            args={},
            why="prove that it still sees",
            idempotent=True,
            pc=progress.run.pc,
            counts=False,
        )
    if result is not Result.OK:
        return Failed(None, f"the canary could not be run: {progress.why_failed(CANARY)}")
    seen = (progress.attempts(CANARY)[-1].result or {}).get("ok")
    return Failed(None, "it runs but does not see its canary") if seen is False else None


def _undrained(progress: Progress, _step: RestartStep) -> Move | None:
    # A drain that nobody can say of may have been applied: ending none is harmless.
    if not any(row.status in MAYBE_APPLIED for row in progress.attempts(DRAIN)):
        return None
    result = progress.result(UNDRAIN)
    if result is Result.OK:
        return None
    if result is not None:
        return Failed(None, f"it could not be undrained: {progress.why_failed(UNDRAIN)}")
    return Send(
        call=UNDRAIN,
        role=SETTINGS,
        verb="undrain",
        args={"owner": OWNER, "reason": "restarted and proved"},
        why="it is ready and sees",
        idempotent=True,
        pc=progress.run.pc,
        counts=False,
        on_ok=partial(steps.mark_undone, pc=progress.run.pc, calls=(DRAIN,)),
    )


def _reason(progress: Progress) -> str:
    return f"run R{progress.run.id} ({progress.plan.name})"
