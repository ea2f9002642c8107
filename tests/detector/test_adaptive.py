"""The adaptive limit: rule by rule, then on simulated detectors whose best limit is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_service.limiter import AdaptiveLimit, Limiter, Limits
from detector_service.limiter.adaptive import FIRST_LIMIT, TRIAL_S
from tests.detector.plant import Fixed, Load, Plant, Run
from tests.detector.test_limiter import Time, end, granted, held, running, started
from tests.detector.toys import running as running_app
from tests.detector.toys import until

OBJECTIVE_S = 0.25
CPU = Plant(fixed_s=0.01, frame_s=0.06, decode_s=0.008)
GPU = Plant(fixed_s=0.008, frame_s=0.002, decode_s=0.006, decoders=8)


class Second:
    """Lets seconds go by, each with its samples."""

    def __init__(self, limit: int = FIRST_LIMIT, ceiling: int = 100) -> None:
        self.now = 0.0
        self.ceiling = ceiling
        self.subject = AdaptiveLimit(OBJECTIVE_S, self.now)
        self.subject.limit = limit

    def __call__(self, seconds: float, *, count: int = 20, peak: int | None = None) -> int:
        """Let ``count`` requests that took ``seconds`` end in the middle of one second."""
        for _ in range(count):
            self.subject.note(self.now + 0.5 - seconds, self.now + 0.5)
        self.now += 1
        used = self.subject.limit if peak is None else peak
        self.subject.look(self.now, ceiling=self.ceiling, peak=used)
        return self.subject.limit


def test_too_slow_goes_down_in_one_step_to_what_fits() -> None:
    second = Second(10)
    assert second(0.3) == 7  # 10 * 0.9 * 0.25 / 0.3


def test_one_step_down_is_at_most_to_the_half_and_never_under_one() -> None:
    second = Second(10)
    assert second(0.499) == 5
    second.now += 1  # what comes now began after the change
    assert Second(1)(5.0) == 1


def test_what_began_before_the_last_change_is_no_evidence() -> None:
    second = Second(8)
    assert second(0.45) == 4
    second.now -= 0.4
    second.subject.note(0.9, 1.1)
    assert second(0.45, count=20) == 4
    second.now += 1
    assert second(0.45, count=20) == 2


def test_inside_the_objective_it_rises_by_one_and_above_ten_by_a_tenth() -> None:
    assert Second(4)(0.1) == 5
    assert Second(40)(0.1) == 44


def test_it_does_not_rise_where_one_more_would_not_fit() -> None:
    assert Second(1)(0.15) == 1
    assert Second(10)(0.22) == 10


def test_a_limit_that_is_not_used_does_not_rise_at_every_look() -> None:
    assert Second(10)(0.05, peak=4) == 10
    assert Second(10)(0.05, peak=5) == 11


def test_long_inside_the_objective_one_more_is_tried() -> None:
    second = Second(1)
    limits = [second(0.15) for _ in range(int(TRIAL_S) + 1)]
    assert limits[-2:] == [2, 2]
    assert set(limits[:-2]) == {1}


def test_idle_it_comes_back_to_the_ceiling() -> None:
    second = Second(1, ceiling=4)
    limits = [second(0.0, count=0, peak=0) for _ in range(30)]
    assert limits == sorted(limits)
    assert limits[-1] == 4


def test_a_limit_that_is_not_used_comes_back_to_where_it_began_and_no_further() -> None:
    second = Second(8)
    assert {second(0.05, peak=1) for _ in range(40)} == {8, 9, FIRST_LIMIT}
    assert {second(0.0, count=0, peak=0) for _ in range(40)} == {FIRST_LIMIT}
    assert {Second(24)(0.05, peak=1), Second(24)(0.0, count=0, peak=0)} == {24}


def test_few_slow_requests_are_evidence_too_after_a_while() -> None:
    second = Second(10)
    limits = [second(0.45, count=1) for _ in range(5)]
    assert limits == [10, 10, 10, 10, 5]


def test_a_request_that_is_slow_alone_is_not_the_limits_fault() -> None:
    second = Second(10)
    assert {second(0.45, count=1, peak=1) for _ in range(20)} == {10}


def test_a_device_that_hangs_says_nothing_about_the_limit() -> None:
    second = Second(6)
    assert {second(0.0, count=0, peak=6) for _ in range(20)} == {6}


def test_a_lower_ceiling_acts_at_once_and_a_raised_one_is_grown_into() -> None:
    second = Second(10)
    second.ceiling = 3
    assert second(0.05, count=0) == 3
    second.ceiling = 50
    assert [second(0.05) for _ in range(3)] == [4, 5, 6]


def test_a_ceiling_lowered_under_overload_does_not_lower_the_limit_twice() -> None:
    subject = AdaptiveLimit(OBJECTIVE_S, 0.0)
    subject.look(0.5, ceiling=5, peak=10)
    for began in (0.2, 0.55):  # what began at a limit of 10 took 0.45 s, what began at 5, 0.22
        for _ in range(20):
            subject.note(began, began + 0.45 if began < 0.5 else began + 0.22)
    subject.look(1.5, ceiling=5, peak=5)
    assert subject.limit == 5


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 30), st.integers(1, 20), st.integers(0, 20)),
        max_size=60,
    )
)
def test_whatever_happens_it_stays_between_one_and_the_ceiling(
    story: list[tuple[float, int, int, int]],
) -> None:
    second = Second()
    for seconds, count, ceiling, peak in story:
        second.ceiling = ceiling
        assert 1 <= second(seconds, count=count, peak=peak) <= ceiling


def within(plant: Plant, load: Load, ceiling: int, *, adaptive: bool | int) -> float:
    """Answers a second within the objective in seconds 10 to 60."""
    limit = AdaptiveLimit(OBJECTIVE_S, 0.0) if adaptive is True else Fixed(adaptive)
    trace = Run(plant, load, limit, ceiling=ceiling, seed=1).until(60.0)
    return trace.within(OBJECTIVE_S, 10, 60)


def steady(plant: Plant, times: float) -> Load:
    rate = times * plant.capacity
    return Load(lambda _at: rate, rate)


@pytest.mark.parametrize(
    ("plant", "ceiling", "best"), [(CPU, 10, 1), (CPU, 64, 1), (GPU, 64, 32)], ids=str
)
@pytest.mark.parametrize("times", [0.5, 2.0])
def test_it_is_nearly_as_good_as_the_best_fixed_limit(
    plant: Plant, ceiling: int, best: int, times: float
) -> None:
    load = steady(plant, times)
    assert within(plant, load, ceiling, adaptive=True) > 0.9 * within(
        plant, load, ceiling, adaptive=best
    )


def test_under_overload_the_ceiling_alone_would_break_the_objective() -> None:
    load = steady(CPU, 2.0)
    assert within(CPU, load, 10, adaptive=10) < 0.1 * within(CPU, load, 10, adaptive=True)


def test_a_ceiling_that_fits_is_left_alone() -> None:
    limit = AdaptiveLimit(OBJECTIVE_S, 0.0)
    trace = Run(GPU, steady(GPU, 2.0), limit, ceiling=10, seed=1).until(30.0)
    assert set(trace.limits) == {10}


def lasting(trace_limits: list[int], since: int, true: Callable[[int], bool]) -> Iterator[int]:
    return (
        at for at in range(since, len(trace_limits)) if all(map(true, trace_limits[at : at + 3]))
    )


def test_a_co_tenant_lowers_it_within_seconds_and_it_comes_back_by_itself() -> None:
    slowness: Callable[[float], float] = lambda at: 4.0 if 30 <= at < 60 else 1.0  # noqa: E731 - short
    rate = 0.6 * GPU.capacity
    load = Load(lambda _at: rate, rate, slowness=slowness)
    limits = Run(GPU, load, AdaptiveLimit(OBJECTIVE_S, 0.0), ceiling=64, seed=1).until(120).limits
    before = limits[28]
    assert before > 10
    assert next(lasting(limits, 30, lambda limit: limit < before / 2)) < 40
    assert next(lasting(limits, 60, lambda limit: limit >= before * 0.7)) < 110


def test_clients_that_retry_at_once_do_not_keep_it_down_for_ever() -> None:
    limit = AdaptiveLimit(OBJECTIVE_S, 0.0)
    trace = Run(CPU, Load(clients=20), limit, ceiling=10, seed=1).until(60.0)
    assert trace.within(OBJECTIVE_S, 10, 60) > 0.85 * 1 / 0.078


async def test_images_run_beside_a_video_that_the_adaptive_limit_sends_away() -> None:
    now = Time()
    adaptive = AdaptiveLimit(OBJECTIVE_S, now.at)
    subject = Limiter(lambda: Limits(4, 4), adaptive, now=now)
    async with held(subject, 0) as (video,):
        assert await granted(video) == [True]
        adaptive.limit = 1
        assert subject.may_go_on(video.result())
        waits = await started(subject, 2)
        assert running(waits) == [True, False], "it does not wait for the video's chunk"
        assert not subject.may_go_on(video.result())
        await end(subject, waits)


async def test_a_video_alone_does_not_keep_the_limit_down() -> None:
    now = Time()
    adaptive = AdaptiveLimit(OBJECTIVE_S, now.at)
    subject = Limiter(lambda: Limits(4, 4), adaptive, now=now)
    adaptive.limit = 1
    async with held(subject, 0, 1) as (first, second):
        assert await granted(first, second) == [True, False]
        for _ in range(8):
            now.at += 1
            subject.look()
        assert await granted(first, second) == [True, True]


async def test_the_limiter_measures_from_the_slot_asked_for_and_only_what_was_served() -> None:
    now = Time()
    adaptive = AdaptiveLimit(OBJECTIVE_S, now.at)
    subject = Limiter(lambda: Limits(10, 0), adaptive, now=now)
    for served, upload_s, work_s in ((True, 9.0, 0.05), (False, 0.0, 9.0)):
        places = [subject.admit() for _ in range(10)]
        now.at += upload_s
        for place in places:
            await subject.slot(place)
        now.at += work_s
        for place in places:
            subject.leave(place, served=served)
        now.at += 1
        subject.look()
        assert subject.limit == 10
    with_slow = [subject.admit() for _ in range(10)]
    await asyncio.gather(*(subject.slot(place) for place in with_slow))
    now.at += 0.45
    for place in with_slow:
        subject.leave(place, served=True)
    now.at += 1
    subject.look()
    assert subject.limit == 5


async def test_the_settings_and_the_metrics_tell_what_decides(tmp_path: Path) -> None:
    async with running_app(tmp_path, adaptive=True, max_concurrency=20) as detector:
        told = (await detector.settings())["limiter"]
        assert told == {"limit": 10, "ceiling": 20, "adaptive": True, "objective_s": 0.25}
        assert await detector.metric("detector_concurrency_limit") == 10
        answer = await detector.patch({"max_concurrency": 4})
        assert answer.json()["limiter"]["limit"] == 4
        await until(lambda: detector.parts.limiter.adaptive_limit == 4)
    async with running_app(tmp_path, adaptive=False) as detector:
        told = (await detector.settings())["limiter"]
        assert told == {"limit": 4, "ceiling": 4, "adaptive": False, "objective_s": 0.25}
