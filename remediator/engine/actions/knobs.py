"""What all actions on a knob share: reading the document it stands in, and setting it.

The document is the detector's (design, section 6); a balancer's or a scaler's has the same shape:
`read` returns `{"settings": {values, pins, leases, generation, leasing}}`, `set` takes values,
lease_s, owner and reason, `release` a knob. The surprise: where `leasing` is false nothing lapses,
so such a knob is undone by setting it to what it was, and its change never closes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from remediator.engine.moves import (
    SETTINGS,
    Failed,
    Inspect,
    Move,
    Progress,
    Result,
    Send,
    Wait,
)
from remediator.engine.verify import before, prove
from remediator.model.playbook import Mode, Playbook, Restore
from remediator.model.run import HeldChange, Phase, StepRow, StepStatus
from remediator.model.spec import Condition
from remediator.model.step import Throttle, ThrottleStep
from remediator.model.throttle import RESTORE_BELOW
from remediator.store import changes

OWNER = "remediator"
# How long settings that cannot be read are asked for again, from the step's start or its last call:
# a service that restarts is back by then, one that is not wants another remedy.
UNREADABLE_FOR = timedelta(seconds=30)
LOOK_EVERY = timedelta(seconds=1)
# The one call of a step that sets one knob.
CALL = "set"
# (value now, base) -> (value to set, why), or another move.
Planned = Callable[[float, float], tuple[float, str] | Move]


def settings_of(progress: Progress, role: str = SETTINGS) -> Mapping[str, Any]:
    """Return the target's settings document as just read through this role."""
    document: Mapping[str, Any] = progress.view.get(role, {}).get("settings", {})
    return document


def taken_by(document: Mapping[str, Any], knob: str) -> str | None:
    """Return who has a knob, when it is somebody else; of an unread document, nobody."""
    for what, by in (("pinned", "pins"), ("leased", "leases")):
        owner = document.get(by, {}).get(knob, {}).get("owner", OWNER)
        if owner != OWNER:
            return f"{knob} is {what} by {owner}"
    return None


def held_on(progress: Progress, knob: str) -> HeldChange | None:
    """Return the open change on a knob of the target, whoever made it, or None."""
    return next((c for c in progress.held if c.knob == knob and c.closed_at is None), None)


def refuse(progress: Progress, knob: str, role: str = SETTINGS) -> Failed | Wait | None:
    """Return why a knob must not be touched: unknown, pinned, or held by somebody else.

    Settings that cannot be read are asked for again, for as long as a restart takes.
    """
    view = progress.view.get(role, {})
    if "error" in view:
        why = f"the {role} of {progress.target.name} cannot be read: {view['error']}"
        if progress.now < _last_heard(progress) + UNREADABLE_FOR:
            return Wait(until=progress.now + LOOK_EVERY, why=why)
        return Failed(None, why)
    document = settings_of(progress, role)
    values = document.get("values", {})
    if knob not in values:
        known = ", ".join(sorted(values)) or "none"
        return Failed(None, f"{progress.target.name} has no tunable {knob!r}; it has {known}")
    pin = document.get("pins", {}).get(knob)
    if pin:
        return Failed(None, f"{knob} is pinned by {pin.get('owner')}: {pin.get('reason', '')}")
    lease = document.get("leases", {}).get(knob)
    if lease and lease.get("owner") != OWNER:
        return Failed(None, f"{knob} is leased by {lease.get('owner')}")
    if document.get("effective", {}).get(knob) is False:
        return Failed(None, f"{knob} has no effect on the loaded model")
    return None


def _last_heard(progress: Progress) -> datetime:
    here = [row for row in progress.history.steps if row.pc == progress.run.pc]
    times = [row.ended_at or row.started_at for row in here]
    return max(times, default=progress.step_started_at)


def set_knob(
    progress: Progress,
    *,
    call: str,
    iteration: int,
    knob: str,
    value: float,
    lease: timedelta,
    why: str,
    role: str = SETTINGS,
    back: int | None = None,
) -> Send:
    """Return the call that sets a knob, as a lease, with its undo and the change it leaves.

    Args:
        progress: what is known; the document was just read (`refuse` found no fault in it).
        call: the call's name within the step.
        iteration: which repetition of it.
        knob: the tunable.
        value: what it is set to: absolute, so that a repeat does no harm.
        lease: after this long without renewal the target takes it back.
        why: the sentence that explains it.
        role: of whom it is a tunable.
        back: it is given back by so much at a time (a ceiling); None = at once, because the values
            in between may mean nothing (an image size).
    """
    document = _untouched(progress, call, iteration, role)
    leasing = bool(document.get("leasing", True))
    current = document["values"][knob]
    theirs, ours = document.get("leases", {}).get(knob), held_on(progress, knob)
    base = theirs["base"] if theirs else ours.base if ours and not leasing else current
    restore = restore_spec(progress.plan, back=back, needed=not leasing)
    pace = revert_pace(restore) if leasing else {}
    setting = {"lease_s": lease.total_seconds(), **pace}
    undo: dict[str, Any] = {"role": role, "lasting": True}
    if leasing and not theirs:
        undo |= {"verb": "release", "args": {"knob": knob}}
    else:
        undo |= {"verb": "set", "args": {"values": {knob: current}, **setting}}
    new = changes.NewChange(
        knob=knob,
        base=float(base),
        value=float(value),
        actuator=role,
        lease=lease,
        restore=restore,
        reverts_itself=leasing,
    )
    return Send(
        call=call,
        role=role,
        verb="set",
        args={
            "values": {knob: value},
            "owner": OWNER,
            "reason": f"run R{progress.run.id} ({progress.plan.name}): {why}",
            "if_generation": settings_of(progress, role).get("generation"),
            **setting,
        },
        why=why,
        idempotent=True,
        pc=progress.run.pc,
        iteration=iteration,
        phase=Phase.FORWARD,
        undo=undo,
        on_ok=None if progress.run.mode is Mode.OBSERVE else partial(changes.hold, new=new),
    )


def _untouched(progress: Progress, call: str, iteration: int, role: str) -> Mapping[str, Any]:
    """Return the document from before this call could have changed it."""
    document, rows = settings_of(progress, role), unsure(progress, call, iteration)
    return rows[0].before.get("settings", document) if rows else document


def unsure(progress: Progress, call: str, iteration: int = 0) -> list[StepRow]:
    """Return the attempts of a call that may have been applied, oldest first."""
    maybe = {StepStatus.STARTED, StepStatus.UNKNOWN}
    return [row for row in progress.attempts(call, iteration) if row.status in maybe]


def overtaken(row: StepRow, knob: str, current: float) -> Failed | None:
    """Return why a value that may have come through is not sent again: somebody set another.

    Args:
        row: the attempt that nobody can say of.
        knob: what it set.
        current: what it is now.
    """
    value, values = row.args["values"][knob], row.before.get("settings", {}).get("values", {})
    if current in {value, values.get(knob, current)}:
        return None
    told = (
        f"{knob} is {current:g} since {value:g} was sent, and nobody can say if that came through"
    )
    return Failed(None, f"{told}: somebody else sets it")


def set_once(
    progress: Progress,
    *,
    role: str,
    knob: str,
    lease: timedelta,
    plan: Planned,
    back: Callable[[float], int],
) -> Move:
    """Return the next move of a step that sets one knob once and then proves that it helped.

    Args:
        progress: what is known.
        role: of whom it is a tunable.
        knob: the tunable.
        lease: see `set_knob`.
        plan: returns the value to set and why, given the value now and the base; or another move,
            such as a question to ask first or a refusal.
        back: by how much at a time a value over this base is given back.
    """
    settled = progress.result(CALL)
    start = before(progress)
    if start is not None:
        return start
    if settled is Result.OK:
        return prove(progress, done="set")
    if settled is not None:
        return Failed(None, f"{knob} could not be set: {progress.why_failed(CALL)}")
    if role not in progress.view:
        return Inspect(role)
    refused = refuse(progress, knob, role)
    if refused is not None:
        return refused
    base = _base(progress, role, knob)
    planned = _once(progress, role, knob, plan, base)
    if not isinstance(planned, tuple):
        return planned
    value, why = planned
    return set_knob(
        progress,
        call=CALL,
        iteration=0,
        knob=knob,
        value=value,
        lease=lease,
        why=why,
        role=role,
        back=back(base),
    )


def _base(progress: Progress, role: str, knob: str) -> float:
    document = _untouched(progress, CALL, 0, role)
    lease, ours = document.get("leases", {}).get(knob), held_on(progress, knob)
    return float(lease["base"] if lease else ours.base if ours else document["values"][knob])


def _once(
    progress: Progress, role: str, knob: str, plan: Planned, base: float
) -> tuple[float, str] | Move:
    current, pending = settings_of(progress, role)["values"][knob], unsure(progress, CALL)
    if pending:
        # What may have come through is sent again as it was: the key names this value. A value
        # that certainly did not is worth nothing any more, for it was planned on another document.
        sent = pending[0]
        return overtaken(sent, knob, current) or (sent.args["values"][knob], sent.why)
    return plan(current, base)


def number(value: float) -> float | int:
    """Return a value as a target wants it: whole where it is whole."""
    return int(value) if float(value).is_integer() else value


def revert_pace(restore: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how the service itself ramps back when the lease lapses: as we would restore.

    Every call that sets a leased value says it again: the newest lease is the one that lapses.
    """
    if restore is None:
        return {}
    return {"revert_step": restore["step"], "revert_every_s": restore["every_s"]}


def restore_spec(
    plan: Playbook, *, back: int | None, needed: bool = False
) -> dict[str, Any] | None:
    """Return how a change of this playbook is given back, with what healthy means; as JSON.

    Args:
        plan: the playbook.
        back: by how much at a time; None = all at once.
        needed: it is given back by us or by nobody, so also without an `on_resolve`.
    """
    if plan.on_resolve is None and not needed:
        return None
    restore = plan.on_resolve.restore if plan.on_resolve else Restore()
    healthy, window, every = _healthy(plan)
    if healthy is None:
        return None
    hold = restore.hold if restore.hold is not None else 2 * restore.every
    throttle = next((s.throttle for s in plan.steps if isinstance(s, ThrottleStep)), None)
    hard = throttle.hard if throttle else None
    return {
        "every_s": restore.every.total_seconds(),
        "hold_s": hold.total_seconds(),
        "step": None if back is None else max(back, restore.step),
        "healthy": healthy.model_dump(mode="json"),
        "window_s": window.total_seconds(),
        "measure_s": every.total_seconds(),
        "demand": restore.demand.model_dump(mode="json") if restore.demand else None,
        "hard": hard.model_dump(mode="json") if hard else None,
        "sampled_at": throttle.sampled_at if throttle else None,
    }


def _healthy(plan: Playbook) -> tuple[Condition | None, timedelta, timedelta]:
    every = timedelta(seconds=15)
    window = timedelta()
    found: Condition | None = None
    for step in plan.steps:
        throttle: Throttle | None = getattr(step, "throttle", None)
        if step.verify is not None:
            every = step.verify.every
        if throttle is not None:
            # R4: give back only well below the objective.
            found = Condition(query=throttle.signal, below=RESTORE_BELOW * throttle.objective)
            window = throttle.window or window
        elif step.verify is not None and found is None:
            verify = step.verify
            found = Condition(query=verify.query, above=verify.above, below=verify.below)
            window = verify.window or window
    own = plan.on_resolve.restore.healthy if plan.on_resolve else None
    return own or found, window, every
