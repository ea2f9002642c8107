"""`throttle`: a closed loop on a concurrency ceiling, rules R1-R6 of docs/architecture.md.

1. Measure the signal; inside the objective there is nothing to do.
2. Lower the ceiling by the measured ratio, as a lease.
3. Wait until the signal's whole window lies after that, and for two fresh measurements.
4. Held for `for`: improved. Still bad: step 2 again. Bad twice at the floor: give up, escalate.

The surprise: no data never moves the ceiling, neither down nor up.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from remediator.engine.actions.knobs import refuse, set_knob, settings_of
from remediator.engine.moves import (
    SETTINGS,
    Done,
    Failed,
    Inspect,
    Measure,
    Move,
    Progress,
    Result,
)
from remediator.engine.verify import baseline_of, next_measurement, take_baseline, window_of
from remediator.model.spec import Condition
from remediator.model.step import Throttle, ThrottleStep
from remediator.model.throttle import FLOOR_PATIENCE, in_dead_band, step_down
from remediator.model.verdict import (
    ENOUGH_SAMPLES,
    Baseline,
    Reading,
    Verdict,
    fresh,
    has_held,
    is_worse,
)

SIGNAL = "signal"
THROUGHPUT = "throughput"
CALL = "set"


def next_move(progress: Progress) -> Move:
    """Return the next move of a throttle step."""
    step = progress.step
    if not isinstance(step, ThrottleStep):
        msg = "not a throttle step"
        raise TypeError(msg)
    done = progress.iterations(CALL)
    iteration = len(done)
    unsettled = progress.result(CALL, iteration)
    if unsettled in {Result.FAILED, Result.UNKNOWN}:
        return Failed(None, f"the ceiling could not be set: {progress.why_failed(CALL, iteration)}")
    if progress.attempts(CALL, iteration):
        return _lower(progress, step, _last_signal(progress), iteration)
    if not done:
        return _first(progress, step)
    return _observe(progress, step, acted_at=done[-1].ended_at or progress.now)


def _first(progress: Progress, step: ThrottleStep) -> Move:
    throttle, every = step.throttle, _every(progress, step)
    baseline = take_baseline(progress, throttle.signal, every)
    if baseline is not None:
        return baseline
    if throttle.throughput and not progress.history.readings(progress.run.pc, THROUGHPUT):
        return Measure(role=THROUGHPUT, query=throttle.throughput)
    readings = progress.history.readings(progress.run.pc, SIGNAL)
    if readings and _too_old(progress, readings[-1]):
        return Measure(role=SIGNAL, query=throttle.signal)
    if readings and readings[-1].value is not None:
        return _act_or_leave(progress, step, readings[-1])
    if readings and progress.now >= progress.step_started_at + _within(step):
        return Failed(Verdict.UNKNOWN, f"the signal cannot be measured: {readings[-1].describe()}")
    return next_measurement(
        progress,
        role=SIGNAL,
        query=throttle.signal,
        every=every,
        not_before=progress.step_started_at,
    )


def _act_or_leave(progress: Progress, step: ThrottleStep, reading: Reading) -> Move:
    if reading.value is not None and reading.value < step.throttle.objective:
        return Done(
            Verdict.UNCHANGED,
            f"nothing to do: measured {reading.describe()}, objective {step.throttle.objective:g}",
        )
    return _lower(progress, step, reading.value, 0)


def _observe(progress: Progress, step: ThrottleStep, *, acted_at: datetime) -> Move:
    throttle = step.throttle
    window = window_of(throttle.window, progress.pace)
    readings = fresh(
        progress.history.readings(progress.run.pc, SIGNAL), acted_at=acted_at, window=window
    )
    inside = Condition(query=throttle.signal, below=throttle.objective)
    if len(readings) >= ENOUGH_SAMPLES and has_held(readings, inside, _hold(step)):
        return Done(Verdict.IMPROVED, _told(readings, throttle, progress))
    if readings and _too_old(progress, readings[-1]):
        # The run was interrupted: what was true then is no ground to act now.
        return Measure(role=SIGNAL, query=throttle.signal)
    pace = progress.pace
    settled = acted_at + max(pace.hold_down, pace.two_scrapes, window + pace.scrape)
    deadline = acted_at + window + _within(step)
    if progress.now >= settled and _still_bad(readings, throttle):
        return _worse_or_lower(progress, step, readings)
    if progress.now >= deadline:
        return _out_of_time(progress, step, readings)
    return next_measurement(
        progress,
        role=SIGNAL,
        query=throttle.signal,
        every=_every(progress, step),
        not_before=acted_at + window,
    )


def _still_bad(readings: tuple[Reading, ...], throttle: Throttle) -> bool:
    # R3: two fresh measurements; R5: not within the dead band, where moving would only swing.
    newest = [r.value for r in readings[-ENOUGH_SAMPLES:]]
    return len(newest) == ENOUGH_SAMPLES and all(
        v is not None and v >= throttle.objective and not in_dead_band(v, throttle.objective)
        for v in newest
    )


def _worse_or_lower(progress: Progress, step: ThrottleStep, readings: tuple[Reading, ...]) -> Move:
    throttle = step.throttle
    inside = Condition(query=throttle.signal, below=throttle.objective)
    if is_worse(readings, inside, baseline_of(progress)):
        verdict = _harm(progress, throttle)
        if verdict is not None:
            return verdict
    return _lower(progress, step, readings[-1].value, len(progress.iterations(CALL)))


def _harm(progress: Progress, throttle: Throttle) -> Move | None:
    # A throttle loosens only if latency AND throughput both failed to improve (design, section 4).
    if throttle.throughput is None:
        return None
    taken = progress.history.readings(progress.run.pc, THROUGHPUT)
    acted_at = progress.last_ok() or progress.step_started_at
    after = [r for r in taken if r.at > acted_at]
    if not after:
        return Measure(role=THROUGHPUT, query=throttle.throughput)
    before = Baseline.of([r.value for r in taken if r.at <= acted_at and r.value is not None][:1])
    if before is None or after[-1].value is None or after[-1].value > before.level:
        return None
    return Failed(
        Verdict.WORSE,
        f"the signal and the throughput both got worse (throughput {before.level:.3g} -> "
        f"{after[-1].value:.3g})",
        roll_back=True,
    )


def _out_of_time(progress: Progress, step: ThrottleStep, readings: tuple[Reading, ...]) -> Move:
    usable = [r.value for r in readings if r.value is not None]
    if len(usable) < ENOUGH_SAMPLES or readings[-1].value is None:
        return Failed(Verdict.UNKNOWN, _told(readings, step.throttle, progress))
    if usable[-1] >= step.throttle.objective and _last_step_helped(progress, usable[-1]):
        return _lower(progress, step, usable[-1], len(progress.iterations(CALL)))
    return Failed(Verdict.UNCHANGED, _told(readings, step.throttle, progress))


def _last_step_helped(progress: Progress, measured: float) -> bool:
    # R5: this near the objective it is worth one more step only while steps still move the signal.
    acted_at = progress.last_ok() or progress.step_started_at
    before = [
        r.value
        for r in progress.history.readings(progress.run.pc, SIGNAL)
        if r.at <= acted_at and r.value is not None
    ]
    return bool(before) and measured < before[-1]


def _lower(progress: Progress, step: ThrottleStep, measured: float | None, iteration: int) -> Move:
    throttle = step.throttle
    if SETTINGS not in progress.view:
        return Inspect(SETTINGS)
    refused = refuse(progress, throttle.knob)
    if refused is not None:
        return refused
    pending = progress.attempts(CALL, iteration)
    limit = int(settings_of(progress)["values"][throttle.knob])
    if pending:
        # A value that was about to be sent is sent again as it was: the key names this value.
        new = int(pending[-1].args["values"][throttle.knob])
        why = pending[-1].why
    else:
        if limit <= throttle.min:
            return _at_floor(progress, step, measured)
        new = step_down(
            limit,
            measured=measured or throttle.objective,
            objective=throttle.objective,
            floor=throttle.min,
            ceiling=throttle.max,
        )
        why = (
            f"measured {measured:.3g}, objective {throttle.objective:g}: "
            f"{throttle.knob} {limit} -> {new}"
        )
    return set_knob(
        progress,
        call=CALL,
        iteration=iteration,
        knob=throttle.knob,
        value=new,
        lease=step.lease,
        why=why,
        back=1,
    )


def _at_floor(progress: Progress, step: ThrottleStep, measured: float | None) -> Move:
    # R6: bad twice at the floor, each time on two fresh measurements; then stop turning this knob.
    acted_at = progress.last_ok() or progress.step_started_at
    window = window_of(step.throttle.window, progress.pace)
    taken = fresh(
        progress.history.readings(progress.run.pc, SIGNAL), acted_at=acted_at, window=window
    )
    bad = [r for r in taken if r.value is not None and r.value >= step.throttle.objective]
    if len(bad) < FLOOR_PATIENCE * ENOUGH_SAMPLES:
        return next_measurement(
            progress,
            role=SIGNAL,
            query=step.throttle.signal,
            every=_every(progress, step),
            not_before=acted_at + window,
        )
    return Failed(
        Verdict.UNCHANGED,
        f"{step.throttle.knob} is at its floor {step.throttle.min} and the signal is still "
        f"{measured:.3g}, objective {step.throttle.objective:g}",
    )


def _too_old(progress: Progress, reading: Reading) -> bool:
    return progress.now - reading.at > progress.pace.evidence_max_age


def _told(readings: tuple[Reading, ...], throttle: Throttle, progress: Progress) -> str:
    last = readings[-1].describe() if readings else "nothing"
    moves = " -> ".join(f"{row.args['values'][throttle.knob]}" for row in progress.iterations(CALL))
    return (
        f"measured {last}, objective {throttle.objective:g}, "
        f"after {throttle.knob} -> {moves or 'unchanged'}"
    )


def _last_signal(progress: Progress) -> float | None:
    readings = progress.history.readings(progress.run.pc, SIGNAL)
    return readings[-1].value if readings else None


def _within(step: ThrottleStep) -> timedelta:
    return step.verify.within if step.verify else timedelta(minutes=2)


def _hold(step: ThrottleStep) -> timedelta:
    return step.verify.hold if step.verify else timedelta(seconds=30)


def _every(progress: Progress, step: ThrottleStep) -> timedelta:
    return step.verify.every if step.verify else progress.pace.scrape
