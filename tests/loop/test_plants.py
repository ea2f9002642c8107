"""The plants in numbers are what the event-by-event plant of the detector's tests is."""

from __future__ import annotations

import math

import pytest

from tests.detector.plant import Fixed, Load
from tests.detector.plant import Plant as Events
from tests.detector.plant import Run as EventRun
from tests.loop.plants import (
    CEILING,
    OBJECTIVE_S,
    PLANTS,
    SATURATED,
    SERIAL,
    Device,
    Live,
    Plant,
    best_limit,
    quantile,
    second,
    wide_open,
)

LENGTH_S = 90.0


@pytest.mark.parametrize(
    ("pass_s", "offered", "limit"), [(0.02, 45, 10), (0.02, 60, 6), (0.04, 45, 5), (0.04, 45, 10)]
)
def test_throughput_and_latency_are_those_of_the_plant_that_follows_every_request(
    pass_s: float, offered: float, limit: int
) -> None:
    plant = Events(0.0, pass_s, 0.08, decoders=CEILING, batch=1, queue_limit=0)
    run = EventRun(plant, Load(lambda _t: offered, offered), Fixed(limit), ceiling=CEILING, seed=1)
    trace = run.until(LENGTH_S)
    took = sorted(seconds for at, seconds in trace.answers if at > 5)
    came = second(Device(pass_s=pass_s), limit, offered)
    assert came.answered == pytest.approx(trace.answered(5, LENGTH_S), rel=0.08)
    p95 = quantile(0.95, [*came.within, 1.0])
    assert p95 == pytest.approx(took[int(0.95 * len(took))], rel=0.15)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.name)
def test_in_trouble_the_best_limit_lies_below_the_ceiling_where_a_limit_can_help(
    plant: Plant,
) -> None:
    troubled = plant.troubled(plant.device, 1.0)
    assert best_limit(plant.device, plant.offered) == CEILING
    assert (best_limit(troubled, plant.offered) < CEILING) is plant.helps


def test_a_busy_healthy_device_is_used_all_the_time_and_meets_its_objective() -> None:
    came = second(SATURATED.device, CEILING, 60.0)
    assert 0.93 < came.answered * SATURATED.device.pass_s <= 1.0
    assert quantile(0.95, [*came.within, 1.0]) < OBJECTIVE_S


def test_a_life_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    def lived(seed: int) -> list[float]:
        live = Live(SERIAL, lambda _at: 0.0, seed)
        for _ in range(30):
            live.live(wide_open)
        return live.good

    assert lived(1) == lived(1)
    assert lived(1) != lived(2)


def test_clients_that_come_again_bring_up_to_three_times_the_load() -> None:
    plant = Plant("hopeless", Device(decode_s=2.0), lambda d, _t: d, patience_s=0.35)
    live = Live(plant, lambda _at: 0.0, 1)
    came = [live.live(wide_open) for _ in range(10)][-1]
    assert came.answered + came.refused == pytest.approx(3 * plant.offered, rel=0.2)


def test_a_quantile_is_interpolated_within_its_bucket_and_nan_without_observations() -> None:
    counts = [0.0] * 9 + [100.0] * 14  # all between 0.2 and 0.25
    assert quantile(0.5, counts) == pytest.approx(0.225)
    assert math.isnan(quantile(0.95, [0.0] * 23))
    assert quantile(0.95, [*[0.0] * 22, 1.0]) == 10.0
