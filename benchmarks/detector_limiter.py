"""What the adaptive limit buys on the real detector: `python -m benchmarks.detector_limiter`.

Two detectors on the same two cores, one with the adaptive limit, one with the ceiling alone, take
turns under open-loop load (`python -m detector_service.load`) at 0.5, 1 and 2 times what the one
with the ceiling alone answers when flooded. The seconds in which the limit is still being found
are in the figures. Takes about three minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

RESULTS = Path(__file__).parent / "results"
CORES = (0, 1)
GENERATOR_CORES = (2, 3)
ROUNDS = 2
SECONDS = 10
TIMES = (0.5, 1.0, 2.0)
FLOOD = 60.0
BACKEND = os.environ.get("DETECTOR_BACKEND", "torch")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        first_load = os.getloadavg()[0]
        urls = {
            kind: stack.enter_context(detector(Path(name) / kind, adaptive=kind == "adaptive"))
            for kind in ("ceiling alone", "adaptive")
        }
        flooded = offer(urls["ceiling alone"], FLOOD, Path(name))
        capacity = flooded["answered"] / flooded["seconds"]
        runs: list[dict[str, Any]] = []
        for number in range(ROUNDS):
            for times in TIMES:
                kinds = list(urls) if number % 2 == 0 else list(reversed(urls))
                for kind in kinds:
                    total = offer(urls[kind], capacity * times, Path(name))
                    runs.append({"kind": kind, "times": times, **total})
    report(capacity, runs, (first_load, os.getloadavg()[0]))


@contextlib.contextmanager
def detector(folder: Path, *, adaptive: bool) -> Iterator[str]:
    """Run a detector until the block ends; gives its URL."""
    folder.mkdir()
    port = 21000 + os.getpid() % 10000 + adaptive
    told = {
        "DETECTOR_ADAPTIVE": str(adaptive).lower(),
        "DETECTOR_STATE_DIR": str(folder / "state"),
        "DETECTOR_PORT": str(port),
        "DETECTOR_TORCH_THREADS": "1",
        "DETECTOR_BACKEND": BACKEND,
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            pinned(CORES, "-m", "detector_service"),
            env=os.environ | told,
            stdout=log,
            stderr=log,
        )
        try:
            wait_ready(process, port, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def pinned(cores: tuple[int, ...], *arguments: str) -> list[str]:
    available = os.sched_getaffinity(0)
    wanted = [str(core) for core in cores if core in available] or [str(c) for c in available]
    return ["taskset", "-c", ",".join(wanted), sys.executable, *arguments]


def wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                return
        time.sleep(0.2)
    raise SystemExit(f"the detector did not get ready: {log.read_text(errors='replace')[-2000:]}")


def offer(url: str, rate: float, folder: Path) -> dict[str, Any]:
    """Offer ``rate`` a second for a while; returns the generator's totals."""
    report_file = folder / "load.json"
    words = ("--url", url, "--rate", f"{rate:.2f}", "--seconds", str(SECONDS))
    subprocess.run(
        pinned(
            GENERATOR_CORES, "-m", "detector_service.load", *words, "--report", str(report_file)
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    total: dict[str, Any] = json.loads(report_file.read_text())["total"]
    limiter = httpx.get(f"{url}/v1/settings", trust_env=False).json()["limiter"]
    time.sleep(2)  # what is still inside ends
    return total | {"rate": rate, "limit_at_end": limiter["limit"]}


def report(capacity: float, runs: list[dict[str, Any]], loads: tuple[float, float]) -> None:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    note = (
        f"Two detectors in turn on cores 0 and 1, backend {BACKEND}, one thread, ceiling 10, "
        f"objective 0.25 s; {ROUNDS} runs of {SECONDS} s each; capacity {capacity:.1f}/s as found "
        f"by a flood; load average {loads[0]:.1f} before, {loads[1]:.1f} after; {machine}."
    )
    lines = [note, "", *table(runs)]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "detector-limiter.md").write_text(text)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "backend": BACKEND,
        "load_average": loads,
        "capacity_per_s": capacity,
        "runs": runs,
    }
    (RESULTS / "detector-limiter.json").write_text(json.dumps(document, indent=1) + "\n")
    print(text)


def table(runs: list[dict[str, Any]]) -> list[str]:
    head = "offered | limit | answered/s | within 0.25 s, /s | refused/s | p50 | p95 | limit at end"
    lines = [f"| {head} |", "|" + "---|" * 8]
    for times in TIMES:
        for kind in ("ceiling alone", "adaptive"):
            chosen = [run for run in runs if run["times"] == times and run["kind"] == kind]
            rates = [
                sum(run[name] for run in chosen) / sum(run["seconds"] for run in chosen)
                for name in ("answered", "in_objective", "rejected")
            ]
            ranks = [statistics.fmean(run[name] or 0 for run in chosen) for name in ("p50", "p95")]
            limits = ", ".join(str(run["limit_at_end"]) for run in chosen)
            cells = [f"{times}x", kind, *(f"{rate:.1f}" for rate in rates)]
            lines.append(
                f"| {' | '.join(cells)} | {ranks[0]:.2f} s | {ranks[1]:.2f} s | {limits} |"
            )
    return lines


if __name__ == "__main__":
    main()
