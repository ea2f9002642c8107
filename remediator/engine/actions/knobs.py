"""What throttle, retune and restore share: reading a settings document and setting a knob in it.

The document is the detector's (design, section 6); any service that serves the same one works.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from remediator.engine.moves import SETTINGS, Failed, Progress, Send, Wait
from remediator.model.playbook import Mode, Playbook
from remediator.model.run import Phase
from remediator.model.spec import Condition
from remediator.model.step import Throttle
from remediator.model.throttle import RESTORE_BELOW
from remediator.store import changes

OWNER = "remediator"
# How long settings that cannot be read are asked for again, from the step's start or its last call:
# a service that restarts is back by then, one that is not wants another remedy.
UNREADABLE_FOR = timedelta(seconds=30)
LOOK_EVERY = timedelta(seconds=1)


def settings_of(progress: Progress) -> Mapping[str, Any]:
    """Return the target's settings document as just read."""
    document: Mapping[str, Any] = progress.view.get(SETTINGS, {}).get("settings", {})
    return document


def refuse(progress: Progress, knob: str) -> Failed | Wait | None:
    """Return why a knob must not be touched: unknown, pinned, or held by somebody else.

    Settings that cannot be read are asked for again, for as long as a restart takes.
    """
    view = progress.view.get(SETTINGS, {})
    if "error" in view:
        why = f"the settings of {progress.target.name} cannot be read: {view['error']}"
        if progress.now < _last_heard(progress) + UNREADABLE_FOR:
            return Wait(until=progress.now + LOOK_EVERY, why=why)
        return Failed(None, why)
    document = settings_of(progress)
    if knob not in document.get("values", {}):
        known = ", ".join(sorted(document.get("values", {})))
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
    ramp: bool = False,
) -> Send:
    """Return the call that sets a knob, as a lease, with its undo and the change it leaves.

    Args:
        progress: what is known.
        call: the call's name within the step.
        iteration: which repetition of it.
        knob: the tunable.
        value: what it is set to.
        lease: after this long without renewal the target takes it back.
        why: the sentence that explains it.
        ramp: it is given back in steps (a ceiling); other knobs are given back at once, because
            the values in between may mean nothing (an image size).
    """
    document = settings_of(progress)
    current = document["values"][knob]
    held = document.get("leases", {}).get(knob)
    restore = restore_spec(progress.plan, ramp=ramp)
    undo: dict[str, Any] = {"verb": "release", "args": {"knob": knob}, "lasting": True}
    if held:
        undo = {
            "verb": "set",
            "args": {
                "values": {knob: current},
                "lease_s": lease.total_seconds(),
                **revert_pace(restore),
            },
            "lasting": True,
        }
    new = changes.NewChange(
        knob=knob,
        base=float(held["base"] if held else current),
        value=float(value),
        actuator=SETTINGS,
        lease=lease,
        restore=restore,
    )
    observing = progress.run.mode is Mode.OBSERVE
    return Send(
        call=call,
        role=SETTINGS,
        verb="set",
        args={
            "values": {knob: value},
            "lease_s": lease.total_seconds(),
            "owner": OWNER,
            "reason": f"run R{progress.run.id} ({progress.plan.name}): {why}",
            "if_generation": document.get("generation"),
            **revert_pace(restore),
        },
        why=why,
        idempotent=True,
        pc=progress.run.pc,
        iteration=iteration,
        phase=Phase.FORWARD,
        undo=undo,
        on_ok=None if observing else partial(changes.hold, new=new),
    )


def revert_pace(restore: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how the service itself ramps back when the lease lapses: as we would restore.

    Every call that sets a leased value says it again: the newest lease is the one that lapses.
    """
    if restore is None:
        return {}
    return {"revert_step": restore["step"], "revert_every_s": restore["every_s"]}


def restore_spec(plan: Playbook, *, ramp: bool) -> dict[str, Any] | None:
    """Return how a change of this playbook is given back, with what healthy means; as JSON."""
    if plan.on_resolve is None:
        return None
    restore = plan.on_resolve.restore
    healthy, window, every = _healthy(plan)
    if healthy is None:
        return None
    hold = restore.hold if restore.hold is not None else 2 * restore.every
    return {
        "every_s": restore.every.total_seconds(),
        "hold_s": hold.total_seconds(),
        "step": restore.step if ramp else None,
        "healthy": healthy.model_dump(mode="json"),
        "window_s": window.total_seconds(),
        "measure_s": every.total_seconds(),
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
