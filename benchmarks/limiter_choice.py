"""Which adaptive limit: candidates on simulated detectors; `python -m benchmarks.limiter_choice`.

The plant (tests/detector/plant.py) is idealised: it ranks, it does not predict. Compared are
answers within the objective, as a share of what the best fixed limit gives with the same
arrivals, and the p90 of all answers. Takes about a minute.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from detector_service.limiter.adaptive import AdaptiveLimit
from tests.detector.plant import Chooser, Fixed, Load, Plant, Run

OBJECTIVE_S = 0.25
SEEDS = range(2)
START_S, END_S = 5.0, 120.0
RESULTS = Path(__file__).parent / "results"


@dataclass
class Windowed:
    """Samples of at least a second and at least ten; what the candidates have in common."""

    limit: int = 10
    _samples: list[float] = field(default_factory=list)
    _peak: int = 0
    _since: float = 0.0

    def note(self, began_at: float, ended_at: float) -> None:
        self._samples.append(ended_at - began_at)

    def look(self, now: float, *, ceiling: int, peak: int) -> None:  # noqa: ARG002 - as asked
        self._peak = max(self._peak, peak)
        if len(self._samples) >= 10:
            wanted = self.wanted(sorted(self._samples))
            self.limit = max(1, min(ceiling, wanted))
            self._samples, self._peak = [], 0

    def wanted(self, samples: list[float]) -> int:
        raise NotImplementedError


class Gradient2(Windowed):
    """Netflix' (smoothing 0.2, queue 4), with the objective as the long-term latency."""

    def __init__(self) -> None:
        super().__init__()
        self._exact = 10.0

    def wanted(self, samples: list[float]) -> int:
        if self._peak * 2 < self.limit:
            return self.limit
        gradient = min(max(OBJECTIVE_S / statistics.fmean(samples), 0.5), 1.0)
        self._exact = max(1.0, min(256.0, 0.8 * self._exact + 0.2 * (self._exact * gradient + 4)))
        return int(self._exact)

    def look(self, now: float, *, ceiling: int, peak: int) -> None:
        self._exact = min(self._exact, ceiling)
        super().look(now, ceiling=ceiling, peak=peak)


class Aimd(Windowed):
    """x0.9 when p90 is over the objective, else +1 while the limit is used."""

    def wanted(self, samples: list[float]) -> int:
        if _p90(samples) > OBJECTIVE_S:
            return min(self.limit - 1, math.floor(self.limit * 0.9))
        return self.limit + (self._peak * 2 >= self.limit)


class Vegas(Windowed):
    """Netflix' Vegas: queue = limit * (1 - fastest / now), thresholds 3 and 6 log10(limit)."""

    _fastest = math.inf

    def wanted(self, samples: list[float]) -> int:
        self._fastest = min(self._fastest, samples[0])
        log = max(1, round(math.log10(self.limit)))
        queue = math.ceil(self.limit * (1 - self._fastest / statistics.fmean(samples)))
        if queue > 6 * log:
            return self.limit - log
        return self.limit + log * (queue < 3 * log and self._peak * 2 >= self.limit)


def _p90(samples: list[float]) -> float:
    return samples[math.ceil(0.9 * len(samples)) - 1]


CANDIDATES: dict[str, Callable[[], Chooser]] = {
    "ceiling alone": lambda: Fixed(10_000),
    "ours": lambda: AdaptiveLimit(OBJECTIVE_S, 0.0),
    "AIMD on p90": Aimd,
    "Gradient2": Gradient2,
    "Vegas": Vegas,
}
# (plant, ceiling, fixed limits to try)
PLANTS = {
    "CPU": (Plant(0.01, 0.06, 0.008), 10, (1, 2, 3, 4, 6, 8, 10)),
    "GPU": (Plant(0.008, 0.002, 0.006, decoders=8), 64, (8, 10, 16, 24, 32, 40, 48, 64)),
    "CPU, large images": (Plant(0.02, 0.14, 0.02), 10, (1, 2, 3, 10)),
    "objective out of reach": (Plant(0.05, 0.35, 0.02), 10, (1, 10)),
}


def loads(c: float) -> dict[str, Load]:
    """Steady, step, pulses, ramp, a co-tenant, clients that wait; ``c`` is the capacity."""
    return {
        "0.5x": Load(lambda _t: 0.5 * c, 0.5 * c),
        "1x": Load(lambda _t: c, c),
        "2x": Load(lambda _t: 2 * c, 2 * c),
        "4x": Load(lambda _t: 4 * c, 4 * c),
        "0.5x, 3x for 40 s, 0.5x": Load(lambda t: (3 if 40 <= t < 80 else 0.5) * c, 3 * c),
        "0.4x, every 30 s 4x for 6 s": Load(lambda t: (4 if t % 30 < 6 else 0.4) * c, 4 * c),
        "ramp to 3x and back": Load(lambda t: 3 * c * min(t, 120 - t) / 60, 3 * c),
        "0.7x, for 40 s half as fast": Load(
            lambda _t: 0.7 * c, 0.7 * c, slowness=lambda t: 2.0 if 40 <= t < 80 else 1.0
        ),
        "20 clients that wait": Load(clients=20),
    }


def main() -> None:
    lines = ["Share of the best fixed limit's answers within 0.25 s, and the p90 of all answers."]
    for name, (plant, ceiling, fixed) in PLANTS.items():
        lines += ["", f"**{name}** (ceiling {ceiling}, capacity {plant.capacity:.1f}/s)", ""]
        lines += [f"| offered | best fixed (limit) | {' | '.join(CANDIDATES)} |"]
        lines += ["|" + "---|" * (2 + len(CANDIDATES))]
        for label, load in loads(plant.capacity).items():
            cells = compare(plant, load, ceiling, fixed)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "limiter-choice.md").write_text(text)
    print(text)


def compare(plant: Plant, load: Load, ceiling: int, fixed: tuple[int, ...]) -> list[str]:
    """One row: the best fixed limit's answers within the objective a second, then the shares."""

    def score(make: Callable[[], Chooser]) -> tuple[float, float]:
        runs = [Run(plant, load, make(), ceiling=ceiling, seed=seed).until(END_S) for seed in SEEDS]
        seconds = sorted(took for run in runs for at, took in run.answers if at >= START_S)
        good = statistics.fmean(run.within(OBJECTIVE_S, START_S, END_S) for run in runs)
        return good, _p90(seconds)

    best = max((score(lambda limit=limit: Fixed(limit))[0], -limit) for limit in fixed)  # type: ignore[misc]  # bound early
    cells = [f"{best[0]:.1f}/s ({-best[1]})" if best[0] > 0.1 else "none"]
    for make in CANDIDATES.values():
        good, p90 = score(make)
        share = f"{good / best[0]:.0%}, " if best[0] > 0.1 else ""
        cells.append(f"{share}{p90:.2f} s")
    return cells


if __name__ == "__main__":
    main()
