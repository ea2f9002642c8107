"""Storms by hand, and their table: `python -m benchmarks.chaos --runs 600`.

What it does is in tests/chaos/harness.py. Four storms (one controller and two, each way to deal
with an unknown outcome); the table goes to benchmarks/results/chaos.md. Exit status 1 when a
promise did not hold. Takes about a minute for a hundred runs of each storm.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tests.chaos.harness import Outcome, Storm, weather
from tests.harness.nursery import Nursery

RESULTS = Path(__file__).parent / "results"
HEAD = (
    "controllers",
    "on_unknown",
    "runs",
    "alerts acknowledged",
    "found by asking",
    "kills",
    "lost",
    "doubled",
    "stuck",
    "without outcome",
    "still held",
    "half-done, nobody told",
    "unknown, escalated",
    "mended by hand",
    "taken over p50 / max",
    "serving again p50 / max",
)


def line(found: Outcome) -> list[str]:
    """Return one line of the table."""
    return [
        str(found.storm.controllers),
        found.storm.on_unknown,
        *map(str, (found.runs, found.alerts, found.polled, found.kills)),
        *(
            str(len(wrong))
            for wrong in (
                found.lost,
                found.doubled,
                found.stuck,
                found.without_outcome,
                found.held,
                found.half_done,
            )
        ),
        str(found.unsure),
        str(found.by_hand),
        _spread(found.taken_over_s),
        _spread(found.serving_s),
    ]


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.2f} / {max(seconds):.2f} s (n={len(seconds)})"


def main() -> int:
    """Let the storms rage one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=150, help="of each storm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", type=int, default=30)
    parser.add_argument("--controllers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--on-unknown", nargs="*", default=["escalate", "probe"])
    told = parser.parse_args()
    table, broken = [], False
    with tempfile.TemporaryDirectory() as folder:
        nursery = Nursery(Path(folder) / "nursery.log")
        try:
            for controllers in told.controllers:
                for on_unknown in told.on_unknown:
                    storm = Storm(
                        runs=told.runs,
                        controllers=controllers,
                        on_unknown=on_unknown,
                        targets=told.targets,
                        longest_s=1.5 * told.runs,
                        seed=told.seed,
                    )
                    place = Path(folder) / f"{controllers}-{on_unknown}"
                    found = weather(place, nursery, storm)
                    table.append(line(found))
                    print(*zip(HEAD, table[-1], strict=True), sep="\n", flush=True)
                    print(dict(found.ends), {k.name: n for k, n in found.fates.items()})
                    print(f"{found.posts} posts in {found.seconds:.0f} s", flush=True)
                    if found.broken():
                        broken = True
                        print("BROKEN", json.dumps(found.broken(), default=str, indent=1))
        finally:
            nursery.close()
    text = "\n".join("| " + " | ".join(row) + " |" for row in [HEAD, ["---"] * len(HEAD), *table])
    words = " ".join(["python -m benchmarks.chaos", *sys.argv[1:]])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "chaos.md").write_text(f"`{words}`, {os.cpu_count()} cores\n\n{text}\n")
    print(text)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
