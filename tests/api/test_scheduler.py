"""The clock: it ticks, it never ticks twice at once, and it stops between two ticks."""

from __future__ import annotations

import asyncio

import pytest

from remediator.errors import StoreUnavailableError
from remediator.scheduler import Scheduler
from remediator.telemetry import Metrics


class Tick:
    """A tick that waits to be let through."""

    def __init__(self, *, failure: Exception | None = None) -> None:
        self.begun = 0
        self.ended = 0
        self.inside = 0
        self.most_inside = 0
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.failure = failure

    async def __call__(self) -> None:
        self.begun += 1
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        self.entered.set()
        try:
            await self.gate.wait()
            if self.failure:
                raise self.failure
            self.ended += 1
        finally:
            self.inside -= 1


async def entered(tick: Tick, times: int = 1) -> None:
    async with asyncio.timeout(10):
        while tick.begun < times:
            tick.entered.clear()
            await tick.entered.wait()


async def test_it_ticks_at_once_and_again_when_it_is_poked() -> None:
    scheduler, tick = Scheduler(Metrics()), Tick()
    tick.gate.set()
    scheduler.every(3600, "dispatch", tick)
    scheduler.start()
    await entered(tick)
    scheduler.poke("dispatch")
    await entered(tick, 2)
    await scheduler.stop()
    assert tick.ended == 2


async def test_a_poke_during_a_tick_is_one_more_tick_and_not_a_lost_one() -> None:
    scheduler, tick = Scheduler(Metrics()), Tick()
    scheduler.every(3600, "reconcile", tick)
    scheduler.start()
    await entered(tick)
    for _ in range(3):
        scheduler.poke("reconcile")
    tick.gate.set()
    await entered(tick, 2)
    await scheduler.stop()
    assert (tick.begun, tick.most_inside) == (2, 1)


async def test_pokes_during_a_tick_never_make_two_at_once() -> None:
    scheduler, tick = Scheduler(Metrics()), Tick()
    scheduler.every(0.01, "dispatch", tick)
    scheduler.start()
    await entered(tick)
    for _ in range(20):
        scheduler.poke("dispatch")
        await asyncio.sleep(0.005)
    assert tick.begun == 1
    tick.gate.set()
    await entered(tick, 3)
    await scheduler.stop()
    assert tick.most_inside == 1


async def test_a_tick_in_progress_finishes_before_the_controller_stops() -> None:
    """One cut in half may have told a person and not noted it: they would be told twice."""
    scheduler, tick = Scheduler(Metrics()), Tick()
    scheduler.every(3600, "notifications", tick)
    scheduler.start()
    await entered(tick)
    stopping = asyncio.create_task(scheduler.stop())
    await asyncio.wait({stopping}, timeout=0.1)
    assert not stopping.done()
    tick.gate.set()
    await stopping
    assert (tick.begun, tick.ended) == (1, 1)


@pytest.mark.parametrize("failure", [ValueError("bug"), StoreUnavailableError("disk full")])
async def test_a_tick_that_fails_is_counted_and_the_next_one_comes(failure: Exception) -> None:
    metrics = Metrics()
    scheduler, tick = Scheduler(metrics), Tick(failure=failure)
    tick.gate.set()
    scheduler.every(0.01, "dispatch", tick)
    scheduler.start()
    await entered(tick, 2)
    await scheduler.stop()
    labels = {"tick": "dispatch"}
    failed = metrics.registry.get_sample_value("remediator_failed_ticks_total", labels)
    assert failed is not None
    assert failed >= 1


async def test_a_poke_before_the_start_or_of_nothing_is_harmless() -> None:
    scheduler = Scheduler(Metrics())
    scheduler.poke("dispatch")
    scheduler.start()
    scheduler.poke("dispatch")
    await scheduler.stop()
