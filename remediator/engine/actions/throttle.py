"""`throttle`: a closed loop on a concurrency ceiling, rules R1-R10 of docs/architecture.md.

1. Measure the signal; inside the objective there is nothing to do, unless a hard condition holds.
2. Lower the ceiling by the measured ratio (hard: by half), as a lease.
3. Wait until the signal's whole window lies after that, and for two fresh measurements.
4. Held for `for`: improved. Still bad: step 2 again. Two steps that moved nothing, or bad twice at
   the floor: give up; what did not help is given back, and somebody else takes over.

The surprise: no data never moves the ceiling, neither down nor up, and an old sample is no data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import sqrt

from remediator.engine.actions import ceiling
from remediator.engine.actions.ceiling import CALL, HARD, SIGNAL, THROUGHPUT
from remediator.engine.moves import Done, Failed, Measure, Move, Progress, Result, Wait
from remediator.engine.settle import INEFFECTIVE
from remediator.engine.verify import (
    SAMPLED_AT,
    baseline_of,
    measure_beside,
    next_measurement,
    take_baseline,
    window_of,
)
from remediator.model.spec import Condition
from remediator.model.step import Throttle, ThrottleStep
from remediator.model.throttle import (
    ENOUGH_SLOTS,
    FLOOR_PATIENCE,
    HELPED,
    helped,
    idle,
    in_dead_band,
    worth_keeping,
)
from remediator.model.verdict import ENOUGH_SAMPLES, Reading, Verdict, fresh, has_held, is_worse


def next_move(progress: Progress) -> Move:
    """Return the next move of a throttle step."""
    step = progress.step
    if not isinstance(step, ThrottleStep):
        msg = "not a throttle step"
        raise TypeError(msg)
    done = progress.iterations(CALL)
    iteration = len(done)
    if progress.result(CALL, iteration) in {Result.FAILED, Result.UNKNOWN}:
        return Failed(None, f"the ceiling could not be set: {progress.why_failed(CALL, iteration)}")
    if progress.attempts(CALL, iteration):
        return ceiling.again(progress, step, iteration)
    beside = measure_beside(progress, SIGNAL, _beside(step.throttle))
    if beside is not None:
        return beside
    if not done:
        return _first(progress, step)
    return _observe(progress, step, acted_at=done[-1].ended_at or progress.now)


def _beside(throttle: Throttle) -> dict[str, str]:
    found = {HARD: throttle.hard.query} if throttle.hard else {}
    return found | ({SAMPLED_AT: throttle.sampled_at} if throttle.sampled_at else {})


def _first(progress: Progress, step: ThrottleStep) -> Move:
    throttle, every = step.throttle, _every(progress, step)
    baseline = take_baseline(progress, throttle.signal, every)
    if baseline is not None:
        return baseline
    if throttle.throughput and not progress.history.readings(progress.run.pc, THROUGHPUT):
        return Measure(role=THROUGHPUT, query=throttle.throughput)
    readings = ceiling.trusted(progress, step, SIGNAL)
    if readings and _too_old(progress, readings[-1]):
        return Measure(role=SIGNAL, query=throttle.signal)
    if _hard_now(progress, step):
        return _hard(progress, step)
    if readings and readings[-1].value is not None:
        return _act_or_leave(progress, step, readings[-1].value, readings[-1].describe())
    if readings and progress.now >= progress.step_started_at + _within(step):
        return Failed(Verdict.UNKNOWN, f"the signal cannot be measured: {readings[-1].describe()}")
    return next_measurement(
        progress,
        role=SIGNAL,
        query=throttle.signal,
        every=every,
        not_before=progress.step_started_at,
    )


def _act_or_leave(progress: Progress, step: ThrottleStep, measured: float, said: str) -> Move:
    objective = step.throttle.objective
    if measured < objective:
        told = f"nothing to do: measured {said}, objective {objective:g}"
        return Done(Verdict.UNCHANGED, told)
    # R5: no move that reverses the last one within a hold-down.
    stepped = ceiling.stepped_back_at(progress, step)
    if stepped and progress.now < stepped + progress.pace.hold_down:
        why = f"measured {said}; a step back was taken only just now"
        return Wait(until=stepped + progress.pace.hold_down, why=why)
    return _lower(progress, step, measured)


def _observe(progress: Progress, step: ThrottleStep, *, acted_at: datetime) -> Move:
    throttle, window = step.throttle, window_of(step.throttle.window, progress.pace)
    readings = _since(progress, step, acted_at)
    inside = Condition(query=throttle.signal, below=throttle.objective)
    held = len(readings) >= ENOUGH_SAMPLES and has_held(readings, inside, _hold(step))
    if held and _hard_over(progress, step):
        return Done(Verdict.IMPROVED, _told(readings, throttle, progress))
    if readings and _too_old(progress, readings[-1]):
        # The run was interrupted: what was true then is no ground to act now.
        return Measure(role=SIGNAL, query=throttle.signal)
    held_down = acted_at + ceiling.hold_down(progress)
    if progress.now >= held_down and _hard_now(progress, step, after=acted_at):
        return _hard(progress, step)
    looked = acted_at + _settle(step) + window
    settled = max(held_down, acted_at + progress.pace.two_scrapes, looked + progress.pace.scrape)
    if progress.now >= settled and _still_bad(readings, throttle):
        return _still(progress, step, readings)
    if progress.now >= looked + _within(step):
        return _out_of_time(progress, step, readings)
    return _look(progress, step, not_before=looked)


def _look(progress: Progress, step: ThrottleStep, *, not_before: datetime) -> Measure | Wait:
    return next_measurement(
        progress,
        role=SIGNAL,
        query=step.throttle.signal,
        every=_every(progress, step),
        not_before=not_before,
    )


def _since(progress: Progress, step: ThrottleStep, acted_at: datetime) -> tuple[Reading, ...]:
    return fresh(
        ceiling.trusted(progress, step, SIGNAL),
        acted_at=acted_at + _settle(step),
        window=window_of(step.throttle.window, progress.pace),
    )


def _still_bad(readings: tuple[Reading, ...], throttle: Throttle) -> bool:
    # R3: two fresh measurements; R5: not within the dead band, where moving would only swing it.
    newest = [r.value for r in readings[-ENOUGH_SAMPLES:]]
    return len(newest) == ENOUGH_SAMPLES and all(
        v is not None and v >= throttle.objective and not in_dead_band(v, throttle.objective)
        for v in newest
    )


def _still(progress: Progress, step: ThrottleStep, readings: tuple[Reading, ...]) -> Move:
    """Bad on fresh measurements: go on down, unless that does harm or nothing at all."""
    throttle, levels = step.throttle, ceiling.levels(progress, step, readings)
    worse, nothing = _worse(progress, step, readings, levels), idle(levels)
    if throttle.throughput and (worse or nothing):
        # It loosens only if latency AND throughput both failed to improve (design, section 4).
        work = _work(progress, step, throttle.throughput)
        if isinstance(work, Measure):
            return work
        if worse and work.no_better:
            told = f"the signal got worse and the throughput no better ({work.told})"
            return Failed(Verdict.WORSE, told, roll_back=True)
        nothing = nothing and not work.better
    if nothing:
        return _give_up(progress, step, readings, "turning it moves nothing")
    return _lower(progress, step, readings[-1].value)


def _worse(
    progress: Progress,
    step: ThrottleStep,
    readings: tuple[Reading, ...],
    levels: tuple[float, ...],
) -> bool:
    # Trouble that has only begun makes everything look worse afterwards: it must be worse than
    # what was acted on, too, and a single slot explains no such thing.
    baseline = baseline_of(progress)
    if baseline is None or ceiling.slots_down(progress, step) < ENOUGH_SLOTS:
        return False
    inside = Condition(query=step.throttle.signal, below=step.throttle.objective)
    return is_worse(readings, inside, replace(baseline, level=max(baseline.level, levels[0])))


def _out_of_time(progress: Progress, step: ThrottleStep, readings: tuple[Reading, ...]) -> Move:
    throttle = step.throttle
    usable = [r.value for r in readings if r.value is not None]
    lost = _hard_ever(progress, step) and _hard_values(progress, step)[-1] is None
    if lost or len(usable) < ENOUGH_SAMPLES or readings[-1].value is None:
        return Failed(Verdict.UNKNOWN, _told(readings, throttle, progress))
    recent = [r for r in readings[-ENOUGH_SAMPLES:] if not _too_old(progress, r)]
    bad = any(r.value is None or r.value >= throttle.objective for r in recent)
    levels = ceiling.levels(progress, step, readings)
    # R5: this near the objective it is worth one more step, and others while steps still help.
    again = helped(*levels[-2:]) or not ceiling.waited_in_vain(progress, step, _patience(step))
    if bad and again and not idle(levels):
        return _lower(progress, step, usable[-1])
    return _give_up(progress, step, readings, "not met in time")


def _give_up(
    progress: Progress, step: ThrottleStep, readings: tuple[Reading, ...], why: str
) -> Move:
    """R9: keep what helped for whoever takes over, give back what did not help either way."""
    throttle, told = step.throttle, f"{why}: {_told(readings, step.throttle, progress)}"
    useful = worth_keeping(ceiling.levels(progress, step, readings))
    if throttle.throughput is None or not progress.iterations(CALL) or useful:
        return Failed(Verdict.UNCHANGED, told)
    work = _work(progress, step, throttle.throughput)
    if isinstance(work, Measure):
        return work
    if not work.no_better or _hard_ever(progress, step):
        return Failed(Verdict.UNCHANGED, told)
    return Failed(Verdict.UNCHANGED, f"{INEFFECTIVE}: {told} ({work.told})", roll_back=True)


def _lower(progress: Progress, step: ThrottleStep, measured: float | None) -> Move:
    limit = ceiling.limit(progress, step)
    if not isinstance(limit, int):
        return limit
    if limit <= step.throttle.min:
        return _at_floor(progress, step)
    measured = measured or step.throttle.objective
    return ceiling.lower(progress, step, limit=limit, measured=measured)


def _at_floor(progress: Progress, step: ThrottleStep) -> Move:
    # R6: bad twice at the floor, each time on two fresh measurements; then stop turning this knob.
    acted_at = progress.last_ok() or progress.step_started_at
    taken = _since(progress, step, acted_at)
    bad = [r for r in taken if r.value is not None and r.value >= step.throttle.objective]
    if len(bad) < FLOOR_PATIENCE * ENOUGH_SAMPLES:
        window = window_of(step.throttle.window, progress.pace)
        return _look(progress, step, not_before=acted_at + _settle(step) + window)
    why = f"{step.throttle.knob} is at its floor {step.throttle.min}"
    return _give_up(progress, step, taken, why)


@dataclass(frozen=True)
class _Work:
    """Useful work per second before the first step, and after the last one.

    Attributes:
        window_s: over how many seconds each was counted.
    """

    before: float | None
    after: float | None
    window_s: float

    @property
    def better(self) -> bool:
        return None not in {self.before, self.after} and not self.no_better

    @property
    def no_better(self) -> bool:
        if self.before is None or self.after is None:
            return False
        # Two counts over the same time differ by chance by the root of their sum (Poisson); near
        # nothing a handful more of good answers is a large share and no gain.
        chance = 2 * sqrt((self.before + self.after) / self.window_s)
        return self.after - self.before <= max(HELPED * self.before, chance)

    @property
    def told(self) -> str:
        return f"throughput {self.before or 0:.3g} -> {self.after or 0:.3g}"


def _work(progress: Progress, step: ThrottleStep, query: str) -> _Work | Measure:
    taken = progress.history.readings(progress.run.pc, THROUGHPUT)
    acted_at = progress.last_ok() or progress.step_started_at
    if not taken or taken[-1].at <= acted_at or _too_old(progress, taken[-1]):
        return Measure(role=THROUGHPUT, query=query)
    window = window_of(step.throttle.window, progress.pace)
    return _Work(taken[0].value, taken[-1].value, window.total_seconds())


# -- hard conditions (R1) --------------------------------------------------------------------------


def _hard(progress: Progress, step: ThrottleStep) -> Move:
    """Halve at once, whatever the signal says; once in a hold-down."""
    throttle = step.throttle
    limit = ceiling.limit(progress, step)
    if not isinstance(limit, int):
        return limit
    said = ceiling.trusted(progress, step, HARD)[-1].describe()
    wanted = throttle.hard.comparison if throttle.hard else ""
    if limit <= throttle.min:
        told = f"{throttle.knob} is at its floor {throttle.min} and hard: measured {said} {wanted}"
        return Failed(Verdict.UNCHANGED, told)
    return ceiling.halved(progress, step, limit=limit, why=f"hard: measured {said} ({wanted})")


def _hard_values(progress: Progress, step: ThrottleStep) -> list[bool | None]:
    hard = step.throttle.hard
    taken = ceiling.trusted(progress, step, HARD) if hard else ()
    return [None if r.value is None else bool(hard and hard.holds(r.value)) for r in taken]


def _hard_ever(progress: Progress, step: ThrottleStep) -> bool:
    return any(_hard_values(progress, step))


def _hard_over(progress: Progress, step: ThrottleStep) -> bool:
    # What never was need not be proved to be over: a GPU's series are absent where there is none.
    newest = _hard_values(progress, step)[-ENOUGH_SAMPLES:]
    return not _hard_ever(progress, step) or newest == [False] * ENOUGH_SAMPLES


def _hard_now(progress: Progress, step: ThrottleStep, *, after: datetime | None = None) -> bool:
    taken = ceiling.trusted(progress, step, HARD) if step.throttle.hard else ()
    if not taken or _too_old(progress, taken[-1]):
        return False
    seen = after is None or taken[-1].at - progress.pace.scrape >= after
    return seen and _hard_values(progress, step)[-1] is True


# -- small things ----------------------------------------------------------------------------------


def _too_old(progress: Progress, reading: Reading) -> bool:
    return progress.now - reading.at > progress.pace.evidence_max_age


def _told(readings: tuple[Reading, ...], throttle: Throttle, progress: Progress) -> str:
    last = readings[-1].describe() if readings else "nothing"
    moves = " -> ".join(f"{row.args['values'][throttle.knob]}" for row in progress.iterations(CALL))
    return (
        f"measured {last}, objective {throttle.objective:g}, "
        f"after {throttle.knob} -> {moves or 'unchanged'}"
    )


def _patience(step: ThrottleStep) -> timedelta:
    return _settle(step) + _within(step)


def _settle(step: ThrottleStep) -> timedelta:
    return step.verify.settle if step.verify else timedelta()


def _within(step: ThrottleStep) -> timedelta:
    return step.verify.within if step.verify else timedelta(minutes=2)


def _hold(step: ThrottleStep) -> timedelta:
    return step.verify.hold if step.verify else timedelta(seconds=30)


def _every(progress: Progress, step: ThrottleStep) -> timedelta:
    return step.verify.every if step.verify else progress.pace.scrape
