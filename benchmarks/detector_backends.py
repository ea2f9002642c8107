"""Torch and OpenVINO side by side: ``python -m benchmarks.detector_backends [--quick]``.

Both run the shipped weights over frames of the sample video, in one process and in turn, so that
whatever else the machine does falls on both. Writes Markdown and JSON; about a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detector_service.backends import Backend, Image, decode
from detector_service.backends.openvino import open_openvino
from detector_service.backends.yolo import open_yolo
from detector_service.load import SAMPLE, read_frames
from detector_service.settings import PACKAGE

RESULTS = Path(__file__).parent / "results"
WEIGHTS = PACKAGE / "weights" / "cursor.pt"
SIZES = (320, 640)
BATCHES = (1, 4, 8)
STAGES = ("preprocess", "inference", "postprocess")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, two threads only")
    quick = parser.parse_args().quick
    frames = [decode(data, max_pixels=10**7) for data in read_frames(SAMPLE, most=8)]
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for threads in ((2,) if quick else (1, 2))
            for row in measured(threads, frames, Path(folder), rounds=3 if quick else 9)
        ]
    report(rows, (before, os.getloadavg()[0]), frames[0])


def measured(
    threads: int, frames: Sequence[Image], folder: Path, *, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each backend, imgsz and batch size."""
    torch = open_yolo(WEIGHTS, threads=threads, scratch=folder / "scratch")
    openvino = open_openvino(torch, WEIGHTS, threads=threads, cache=folder / "cache")
    backends: tuple[Backend, ...] = (torch, openvino)
    for imgsz in SIZES:
        for batch in BATCHES:
            chosen = [frames[number % len(frames)] for number in range(batch)]
            runs: dict[str, list[dict[str, float]]] = {each.info.backend: [] for each in backends}
            for number in range(rounds + 1):
                for each in backends:
                    taken = one_pass(each, chosen, imgsz)
                    if number:  # the first builds the kernels of a shape
                        runs[each.info.backend].append(taken)
            for each in backends:
                info = each.info
                yield {
                    "backend": info.backend,
                    "precision": info.precision,
                    "threads": threads,
                    "imgsz": imgsz,
                    "batch": batch,
                    **summary(runs[info.backend], batch),
                }


def one_pass(backend: Backend, frames: Sequence[Image], imgsz: int) -> dict[str, float]:
    started = time.monotonic()
    found = backend.infer(frames, conf=0.3, iou=0.7, imgsz=imgsz)
    return {"all": time.monotonic() - started, **found.stages}


def summary(runs: Sequence[dict[str, float]], batch: int) -> dict[str, float]:
    """Return milliseconds a frame: median, least and most of all, medians of the stages."""
    spent = [run["all"] * 1000 / batch for run in runs]
    stages = {
        f"{stage}_ms": statistics.median(run[stage] * 1000 / batch for run in runs)
        for stage in STAGES
    }
    figures = {"ms": statistics.median(spent), "least_ms": min(spent), "most_ms": max(spent)}
    figures |= stages | {"fps": 1000 / figures["ms"]}
    return {name: round(value, 2) for name, value in figures.items()}


def report(rows: list[dict[str, Any]], loads: tuple[float, float], frame: Image) -> None:
    height, width = frame.shape[:2]
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    note = (
        f"Shipped weights, frames of {width}x{height}, torch and OpenVINO in turn in one process; "
        f"medians, with the fastest and the slowest pass; {machine}; load average "
        f"{loads[0]:.1f} before, {loads[1]:.1f} after."
    )
    text = "\n".join([note, "", *table(rows)]) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "detector-backends.md").write_text(text)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "frame": [width, height],
        "load_average": loads,
        "rows": rows,
    }
    (RESULTS / "detector-backends.json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each setting, torch and OpenVINO beside each other."""
    precisions = {row["backend"]: row["precision"] for row in rows}
    told = [f"{name} {kind}" for name, kind in precisions.items()]
    yield (
        f"| threads | imgsz | batch | {' | '.join(f'{name}, ms a frame' for name in told)} "
        f"| {' | '.join(f'{name}, fps' for name in precisions)} | times |"
    )
    yield "|" + "---|" * 8
    settings = dict.fromkeys((row["threads"], row["imgsz"], row["batch"]) for row in rows)
    for setting in settings:
        ones = {
            row["backend"]: row
            for row in rows
            if (row["threads"], row["imgsz"], row["batch"]) == setting
        }
        cells = [
            *map(str, setting),
            *(f"{r['ms']:.1f} ({r['least_ms']:.1f} to {r['most_ms']:.1f})" for r in ones.values()),
            *(f"{row['fps']:.0f}" for row in ones.values()),
            f"{ones['torch']['ms'] / ones['openvino']['ms']:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
