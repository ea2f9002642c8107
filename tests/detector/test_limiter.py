"""Admission with numbers only: no device, no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detector_service.errors import RefusedError
from detector_service.limiter import Limiter, Limits, Place
from detector_service.limiter.admission import UPLOAD_PATIENCE_S, VIDEO_PATIENCE_S


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
    assert caught.value.evidence == {"limit": 2, "ceiling": 2, "inflight": 2, "queue": 1}
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


async def test_slow_uploads_leave_room_for_others_up_to_a_bound() -> None:
    now = Time()
    subject = Limiter(Knobs(1, 3), now=now)
    slow = [subject.admit() for _ in range(2)]
    with pytest.raises(RefusedError):
        subject.admit()
    for _ in range(2):
        now.at += UPLOAD_PATIENCE_S + 0.1
        slow += [subject.admit() for _ in range(2)]
    assert len(slow) == 6
    now.at += UPLOAD_PATIENCE_S + 0.1
    with pytest.raises(RefusedError):
        subject.admit()
    for place in slow:
        subject.leave(place)
    assert subject.queued == 0


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


class Time:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def held(subject: Limiter, *ranks: int) -> AsyncIterator[list[asyncio.Task[Place]]]:
    """Let one video per rank ask for a slot, and give back what was granted."""
    asked = [asyncio.create_task(subject.hold(rank)) for rank in ranks]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield asked
    finally:
        for video in asked:
            if not video.cancel() and not video.cancelled():
                subject.leave(video.result())
        await asyncio.gather(*asked, return_exceptions=True)


async def granted(*asked: asyncio.Task[Place]) -> list[bool]:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return [video.done() for video in asked]


async def test_a_video_gets_a_free_slot_at_once_and_the_drain_sees_it() -> None:
    subject = limiter(Knobs(2, 2))
    async with held(subject, 0) as (video,):
        assert await granted(video) == [True]
        assert (subject.running, subject.queued) == (1, 0)
        assert subject.may_go_on(video.result())
    assert subject.running == 0


async def test_a_video_that_waits_takes_no_place_in_the_waiting_room() -> None:
    subject = limiter(Knobs(1, 1))
    waits = await started(subject, 1)
    async with held(subject, 0, 1) as videos:
        assert await granted(*videos) == [False, False]
        assert subject.queued == 0
        waits += await started(subject, 1)
        assert subject.queued == 1
        await end(subject, waits)


async def test_images_go_before_a_video_until_it_lost_its_patience() -> None:
    now = Time()
    subject = Limiter(Knobs(2, 5), now=now)
    waits = await started(subject, 4)
    async with held(subject, 0) as (video,):
        subject.leave(waits.pop(0)[0])
        assert running(waits) == [True, True, False]
        now.at += VIDEO_PATIENCE_S
        subject.leave(waits.pop(0)[0])
        assert running(waits) == [True, False]
        assert await granted(video) == [True]
        assert not subject.may_go_on(video.result()), "it had its turn and an image waits"
        subject.leave(video.result())
        assert running(waits) == [True, True]
        await end(subject, waits)


async def test_among_videos_the_lowest_rank_is_first_and_the_highest_gives_way() -> None:
    knobs = Knobs(1, 5)
    subject = limiter(knobs)
    waits = await started(subject, 1)
    async with held(subject, 7, 3, 5) as (seven, three, five):
        await end(subject, waits)
        assert await granted(seven, three, five) == [False, True, False]
        knobs.ceiling = 3
        subject.wake()
        assert await granted(seven, three, five) == [True, True, True]
        knobs.ceiling = 2
        order = [video.result() for video in (three, five, seven)]
        assert [subject.may_go_on(video) for video in order] == [True, True, False]
        knobs.ceiling = 1
        assert [subject.may_go_on(video) for video in order] == [True, False, False]


async def test_no_more_videos_give_way_than_images_wait() -> None:
    subject = limiter(Knobs(2, 5))
    async with held(subject, 0, 1) as (first, second):
        await granted(first, second)
        waits = await started(subject, 1)
        assert [subject.may_go_on(video.result()) for video in (first, second)] == [True, False]
        await end(subject, waits)
        assert subject.may_go_on(second.result())


async def test_a_video_cancelled_while_it_waits_or_as_it_is_granted_holds_nothing() -> None:
    subject = limiter(Knobs(1, 1))
    waits = await started(subject, 1)
    async with held(subject, 0, 1) as (first, second):
        first.cancel()
        await end(subject, waits)  # grants; the first is cancelled in the same moment
        assert await granted(second) == [True]
    assert subject.running == 0


class Crowd(RuleBasedStateMachine):
    """Images and videos come, wait, go and give up while the ceiling moves."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = Time()
        self.knobs = Knobs(2, 4)
        self.subject = Limiter(self.knobs, now=self.now)
        self.images: list[tuple[Place, asyncio.Task[None]]] = []
        self.videos: list[asyncio.Task[Place]] = []
        self.over = 0

    def settle(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule()
    def image_comes(self) -> None:
        try:
            place = self.subject.admit()
        except RefusedError:
            room = min(self.knobs.queue_limit, self.knobs.ceiling)
            assert self.subject.running + self.subject.queued >= self.knobs.ceiling + room
            return
        self.images.append((place, self.loop.create_task(self.subject.slot(place))))
        self.settle()

    @rule(rank=st.integers(0, 5))
    def video_comes(self, rank: int) -> None:
        self.videos.append(self.loop.create_task(self.subject.hold(rank)))
        self.settle()

    @precondition(lambda self: self.images)
    @rule(which=st.integers(0, 50))
    def image_goes(self, which: int) -> None:
        place, wait = self.images.pop(which % len(self.images))
        wait.cancel()
        self.settle()
        self.subject.leave(place)
        self.settle()

    @precondition(lambda self: self.videos)
    @rule(which=st.integers(0, 50))
    def video_goes(self, which: int) -> None:
        video = self.videos.pop(which % len(self.videos))
        if not video.cancel():
            self.subject.leave(video.result())
        self.settle()

    @rule(seconds=st.floats(0, 10), ceiling=st.integers(1, 5), room=st.integers(0, 5))
    def time_goes_by(self, seconds: float, ceiling: int, room: int) -> None:
        self.now.at += seconds
        self.knobs.ceiling, self.knobs.queue_limit = ceiling, room
        self.subject.wake()
        self.settle()

    @invariant()
    def slots_are_counted_and_none_is_granted_over_the_limit(self) -> None:
        holders = sum(place.has_slot for place, _ in self.images)
        holders += sum(video.done() for video in self.videos)
        assert self.subject.running == holders
        assert self.subject.queued == sum(not place.has_slot for place, _ in self.images)
        # Above the limit only those that were there when it came down.
        assert holders <= max(self.knobs.ceiling, self.over)
        self.over = holders

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        waiting = sum(not wait.done() for _, wait in self.images)
        waiting += sum(not video.done() for video in self.videos)
        assert not waiting or self.subject.running >= self.knobs.ceiling

    @invariant()
    def as_many_videos_give_way_as_are_too_many(self) -> None:
        videos = [video.result() for video in self.videos if video.done()]
        waiting = sum(not place.has_slot for place, _ in self.images)
        too_many = max(self.subject.running + waiting - self.knobs.ceiling, 0)
        assert sum(not self.subject.may_go_on(video) for video in videos) == min(
            len(videos), too_many
        )

    def teardown(self) -> None:
        while self.images:
            self.image_goes(0)
        while self.videos:
            self.video_goes(0)
        assert (self.subject.running, self.subject.queued) == (0, 0)
        self.loop.close()


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=40)
