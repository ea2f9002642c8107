"""The control loop on simulated detectors, over many seeds; `python -m benchmarks.closed_loop`.

The engine, its journal and the shipped playbook are the real ones; the detector, Prometheus and
Alertmanager are simulated on a virtual clock (tests/loop). `--seeds 20 --workers 3` takes about
three quarters of an hour. All machines compute the same, but for the cost of an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from tests.loop.figures import Figures, best_held, figures
from tests.loop.plants import CLIFF, PLANTS, SATURATED, SLOW_DECODE
from tests.loop.run import Scenario, Told, tell
from tests.loop.sight import FAST, SHIPPED, SLOW
from tests.loop.stories import DAY_S, FAULTS, calm, daily, pulse, ramp, square, step

RESULTS = Path(__file__).parent / "results"
HOUR_S = 3600
SHAPES = {
    "step, 15 min": step,
    "ramp, 10 min": ramp,
    "pulse, 30 s": pulse,
    "square wave, 45 s": square(45),
    "square wave, 90 s": square(90),
    "square wave, 10 min": square(600),
}
ONE_FAILURE = {"breaker": {"failures": 1, "reset": "30m"}}
HEAD = (
    "of the oracle",
    "worst",
    "nobody",
    "in time after",
    "given back after",
    "remedies",
    "swings",
    "overshoot",
    "pages",
    "ends at",
)


@dataclass(frozen=True)
class Played:
    """One story, with what it cost to compute."""

    found: Figures
    pages: int
    moved_after_fault: bool
    held: float | None
    cost_s: float


def play(scenario: Scenario, *, hold: bool = False) -> Played:
    """Play one story in this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        told: Told = asyncio.run(tell(scenario, Path(folder) / "journal"))
        cost = time.process_time() - began
    return Played(
        found=figures(scenario, told),
        pages=len(told.paged),
        moved_after_fault=any(one.at > scenario.fault_at for one in told.sent),
        held=best_held(scenario) if hold else None,
        cost_s=cost * HOUR_S / scenario.length,
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=20)
    asked.add_argument("--workers", type=int, default=3)
    options = asked.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:

        def over_seeds(scenario: Scenario, *, hold: bool = False) -> list[Played]:
            stories = [replace(scenario, seed=seed) for seed in range(options.seeds)]
            return list(pool.map(partial(play, hold=hold), stories))

        lines = [f"{options.seeds} seeds each; the worst of them where it says so."]
        for part in (plants(over_seeds), shapes(over_seeds), faults(over_seeds), healthy()):
            for line in part:
                print(line, flush=True)
                lines.append(line)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "closed-loop.md").write_text("\n".join(lines) + "\n")


def plants(over_seeds: Callable[..., list[Played]]) -> Iterable[str]:
    """Every plant on every stack, under a step of trouble."""
    yield from head("plant, delay until the webhook")
    for plant in PLANTS:
        for stack in (FAST, SHIPPED, SLOW):
            yield row(f"{plant.name}, {stack.name}", over_seeds(Scenario(plant, step, stack)))
    for plant, how, guard in (
        (CLIFF, "cooldown 1m", {"cooldown": "1m"}),
        (SLOW_DECODE, "breaker of one failure", ONE_FAILURE),
    ):
        played = over_seeds(Scenario(plant, step, guards=(guard,)))
        yield row(f"{plant.name}, {SHIPPED.name}, {how}", played)
    cost = statistics.median(p.cost_s for p in over_seeds(Scenario(shape=step)))
    yield f"\nOne simulated hour takes {cost:.1f} s of one core (serial device, 45 s)."


def shapes(over_seeds: Callable[..., list[Played]]) -> Iterable[str]:
    """Trouble of every shape, on the serial device and the shipped stack."""
    yield from head("trouble", "best single ceiling")
    for name, shape in SHAPES.items():
        played = over_seeds(Scenario(shape=shape), hold=True)
        held = statistics.median(p.held or 0.0 for p in played)
        yield row(name, played, f"{held:.1%}")
    day = over_seeds(Scenario(shape=daily, length=4 * HOUR_S + HOUR_S // 2))
    yield row("a day in four hours", day, "")
    limited = over_seeds(Scenario(shape=step, limited=True))
    yield row("step, the service limits itself", limited, "")


def faults(over_seeds: Callable[..., list[Played]]) -> Iterable[str]:
    """A step of trouble, and something else goes wrong beside it."""
    yield from head("fault", "moved after it")
    for fault in FAULTS:
        played = over_seeds(Scenario(shape=step, fault=fault))
        moved = sum(p.moved_after_fault for p in played)
        yield row(fault, played, f"{moved} of {len(played)}")


def healthy() -> Iterable[str]:
    """A day of a busy, healthy device whose utilisation alert fires all the time."""
    played = play(Scenario(SATURATED, calm, utilisation=True, length=DAY_S))
    yield (
        "\nBusy and healthy for 24 h (60 requests a second for a capacity of 50), its alert "
        f"firing: {played.found.remedies} actions, lowest ceiling {played.found.lowest}, "
        f"{played.pages} pages."
    )


def head(first: str, *more: str) -> Iterable[str]:
    columns = (first, *HEAD, *more)
    yield f"\n| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)


def row(name: str, played: Sequence[Played], *more: str) -> str:
    found = [p.found for p in played]
    shares = [f.share for f in found]
    cells = [
        f"{statistics.median(shares):.1%}",
        f"{min(shares):.1%}",
        f"{statistics.median(f.alone for f in found):.1%}",
        seconds([f.in_time_after for f in found]),
        seconds([f.restored_after for f in found]),
        spread([f.remedies for f in found]),
        spread([f.swings for f in found]),
        f"{max(f.overshoot for f in found):.0%}",
        spread([p.pages for p in played]),
        spread([f.last for f in found]),
    ]
    return f"| {name} | {' | '.join([*cells, *more])} |"


def seconds(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"never in {len(values) - len(known)} of {len(values)}"
    return f"{statistics.median(known):.0f} s"


def spread(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


if __name__ == "__main__":
    main()
