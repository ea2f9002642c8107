"""Admission with numbers only: no device, no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from detector_service.errors import RefusedError
from detector_service.limiter import Limiter, Limits, Place


class Knobs:
    """Limits moved by hand."""

    def __init__(self, ceiling: int, queue_limit: int) -> None:
        self.ceiling = ceiling
        self.queue_limit = queue_limit

    def __call__(self) -> Limits:
        return Limits(self.ceiling, self.queue_limit)


def limiter(knobs: Knobs, *, at: float = 0.0, chance: float = 0.5) -> Limiter:
    return Limiter(knobs, now=lambda: at, chance=lambda: chance)


async def started(subject: Limiter, count: int) -> list[tuple[Place, asyncio.Task[None]]]:
    places = [subject.admit() for _ in range(count)]
    waits = [(place, asyncio.create_task(subject.slot(place))) for place in places]
    await asyncio.sleep(0)
    return waits


def running(waits: Sequence[tuple[Place, asyncio.Task[None]]]) -> list[bool]:
    return [place.has_slot for place, _ in waits]


async def end(subject: Limiter, waits: Sequence[tuple[Place, asyncio.Task[None]]]) -> None:
    for place, wait in waits:
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        subject.leave(place)


async def test_no_more_run_than_the_ceiling_and_the_rest_wait_in_order() -> None:
    subject = limiter(Knobs(2, 2))
    waits = await started(subject, 4)
    assert running(waits) == [True, True, False, False]
    subject.leave(waits.pop(0)[0])
    assert running(waits) == [True, True, False]
    await end(subject, waits)
    assert (subject.running, subject.queued) == (0, 0)


async def test_a_full_waiting_room_refuses_with_429_and_the_figures() -> None:
    subject = limiter(Knobs(2, 1))
    waits = await started(subject, 3)
    with pytest.raises(RefusedError) as caught:
        subject.admit()
    assert (caught.value.status, caught.value.reason) == (429, "queue_full")
    assert caught.value.evidence == {"limit": 2, "inflight": 2, "queue": 1}
    assert caught.value.retry_after_s is not None
    await end(subject, waits)


async def test_the_waiting_room_shrinks_with_the_ceiling() -> None:
    knobs = Knobs(10, 20)
    subject = limiter(knobs)
    waits = await started(subject, 20)
    with pytest.raises(RefusedError):
        subject.admit()
    await end(subject, waits)
    knobs.ceiling = 2
    waits = await started(subject, 4)
    with pytest.raises(RefusedError):
        subject.admit()
    await end(subject, waits)


async def test_no_waiting_room_at_all_is_a_choice() -> None:
    subject = limiter(Knobs(1, 0))
    waits = await started(subject, 1)
    with pytest.raises(RefusedError):
        subject.admit()
    await end(subject, waits)


async def test_a_lower_ceiling_starts_nobody_until_enough_have_left() -> None:
    knobs = Knobs(3, 3)
    subject = limiter(knobs)
    waits = await started(subject, 6)
    knobs.ceiling = 1
    for left in (2, 1):
        subject.leave(waits.pop(0)[0])
        assert sum(running(waits)) == left
    subject.leave(waits.pop(0)[0])
    assert running(waits) == [True, False, False]
    await end(subject, waits)


async def test_a_raised_ceiling_starts_the_waiting_when_woken() -> None:
    knobs = Knobs(1, 5)
    subject = limiter(knobs)
    waits = await started(subject, 2)
    knobs.ceiling = 2
    subject.wake()
    assert running(waits) == [True, True]
    await end(subject, waits)


async def test_one_that_left_while_waiting_does_not_hold_up_the_next() -> None:
    subject = limiter(Knobs(1, 1))
    waits = await started(subject, 2)
    await end(subject, [waits.pop(1)])
    late = await started(subject, 1)
    subject.leave(waits.pop(0)[0])
    assert running(late) == [True]
    await end(subject, late)
    assert subject.running == 0


async def test_a_slot_given_and_cancelled_at_the_same_moment_is_not_lost() -> None:
    subject = limiter(Knobs(1, 1))
    waits = await started(subject, 2)
    subject.leave(waits[0][0])
    await end(subject, waits[1:])
    assert subject.running == 0
    assert subject.admit()


async def test_the_oldest_request_tells_its_age() -> None:
    now = 100.0
    subject = Limiter(Knobs(5, 5), now=lambda: now)
    assert subject.oldest_age_s == 0
    subject.admit()
    now = 107.0
    subject.admit()
    assert subject.oldest_age_s == 7


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
async def test_retry_after_is_whole_seconds_between_1_and_60(chance: float) -> None:
    now = 0.0
    subject = Limiter(Knobs(1, 1), now=lambda: now, chance=lambda: chance)
    assert subject.retry_after_s() in {1, 2}
    (place, _), waiting = await started(subject, 2)
    now = 500.0
    subject.leave(place)
    assert subject.retry_after_s() in {1, 2}
    late = await started(subject, 1)
    assert 48 <= subject.retry_after_s() <= 60
    await end(subject, [waiting, *late])


async def test_retry_after_is_spread_round_queue_times_p50_over_limit() -> None:
    now, chance = 0.0, 0.0
    spread = set()
    for step in range(10):
        chance = step / 10
        subject = Limiter(Knobs(1, 5), now=lambda: now, chance=lambda: chance)  # noqa: B023 - wanted
        first = subject.admit()
        await subject.slot(first)
        now += 10
        subject.leave(first)
        subject.admit()
        subject.admit()
        spread.add(subject.retry_after_s())
    assert min(spread) >= 16
    assert max(spread) <= 25
    assert len(spread) > 3
