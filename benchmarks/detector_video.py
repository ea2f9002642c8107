"""How fast whole films go through a real detector, and where the time goes: decode to MP4 and JSON.

Usage: python benchmarks/detector_video.py [--quick] [--backends torch openvino]

A clip of 720p25 H.264 is uploaded to a real process; the time counts from the first to the last
moment of work on it. The stages run beside each other, so the end to end rate of a good pipeline is
that of its slowest stage. Surprise: `decode`, `annotate` and `encode` are timed per frame, the
model's stages per pass; both are divided by the frames of the film here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import httpx
from prometheus_client.parser import text_string_to_metric_families

from detector_service.load import SAMPLE

WIDTH, HEIGHT, FPS = 1280, 720, 25
BACKENDS = ("torch", "openvino")
SIZES = (320, 640)
STAGES = ("decode", "preprocess", "inference", "postprocess", "annotate", "encode")
START_S, FILM_S = 180, 300
RESULTS = Path(__file__).parent / "results"
STAGE_SUM = "detector_stage_duration_seconds_sum"


@dataclass(frozen=True)
class Run:
    """One film: its mode, seconds of work and of each stage, and of reading its result."""

    mode: str
    seconds: float
    stages: Mapping[str, float]
    result_s: float
    result_bytes: int


def make_clip(path: Path, seconds: int) -> int:
    """Write the sample recording, enlarged and over and over, as 720p25; return its frames."""
    with av.open(str(SAMPLE)) as sample:
        pictures = [
            frame.reformat(width=WIDTH, height=HEIGHT, format="yuv420p")
            for frame in sample.decode(video=0)
        ]
    frames = seconds * FPS
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23"}
        for number in range(frames):
            picture = pictures[number // 2 % len(pictures)]  # half the rate, as recorded
            picture.pts, picture.time_base, picture.pict_type = number, Fraction(1, FPS), 0
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return frames


@contextmanager
def detector(folder: Path, backend: str) -> Iterator[httpx.Client]:
    """Start a detector with default settings, but for its backend; end it on leaving."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DETECTOR_")}
    environment |= {"DETECTOR_STATE_DIR": str(folder / backend), "DETECTOR_BACKEND": backend}
    with (
        (folder / f"{backend}.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "detector_service", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=FILM_S, trust_env=False) as client:
                wait_until_ready(client, process, folder / f"{backend}.log")
                yield client
        finally:
            process.terminate()


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the detector did not start: {log.read_text()}")
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the detector was not ready within {START_S} s: {log.read_text()}")


def show(client: httpx.Client, clip: Path, **options: object) -> Run:
    """Upload the clip, wait until it is done, and read the result."""
    before = stage_seconds(client)
    answer = client.post(
        "/v1/videos",
        params={name: str(value).lower() for name, value in options.items()},
        content=clip.read_bytes(),
        headers={"Content-Type": "video/mp4"},
    )
    answer.raise_for_status()
    job = answer.headers["Location"]
    with client.stream("GET", f"{job}/events") as events:
        for _ in events.iter_lines():
            pass
    view = client.get(job).json()
    if view["state"] != "done":
        raise SystemExit(f"the film ended as {view['state']}: {view}")
    after = stage_seconds(client)
    began = time.perf_counter()
    result = client.get(f"{job}/result").content
    return Run(
        mode=str(options["mode"]),
        seconds=view["timings"]["worked_s"],
        stages={stage: after.get(stage, 0.0) - before.get(stage, 0.0) for stage in STAGES},
        result_s=time.perf_counter() - began,
        result_bytes=len(result),
    )


def stage_seconds(client: httpx.Client) -> dict[str, float]:
    """Return the seconds that each stage has taken so far."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.labels["stage"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == STAGE_SUM
    }


def measure(folder: Path, backend: str, clip: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """Yield one row for each size and mode; the modes take turns within a round."""
    with detector(folder, backend) as client:
        for imgsz in SIZES:
            show(client, clip, mode="filter", imgsz=imgsz)  # warm for this size
            runs = [
                show(client, clip, mode=mode, imgsz=imgsz)
                for _ in range(rounds)
                for mode in ("detect", "filter")
            ]
            for mode in ("detect", "filter"):
                yield row(backend, imgsz, mode, [run for run in runs if run.mode == mode])


def row(backend: str, imgsz: int, mode: str, runs: list[Run]) -> dict[str, Any]:
    seconds = [run.seconds for run in runs]
    return {
        "backend": backend,
        "imgsz": imgsz,
        "mode": mode,
        "seconds": statistics.median(seconds),
        "least_s": min(seconds),
        "most_s": max(seconds),
        "stages_s": {
            stage: statistics.median(run.stages[stage] for run in runs) for stage in STAGES
        },
        "result_s": statistics.median(run.result_s for run in runs),
        "result_bytes": runs[0].result_bytes,
    }


def table(rows: list[dict[str, Any]], frames: int) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| backend | imgsz | end to end, fps (least to most) | "
        + " | ".join(f"{stage}, fps" for stage in STAGES)
        + " | slowest stage used | result JSON |",
        "|---|---|---|" + "---|" * len(STAGES) + "---|---|",
    ]
    for r in (r for r in rows if r["mode"] == "detect"):
        rates = [frames / spent if (spent := r["stages_s"][s]) else None for s in STAGES]
        fps = frames / r["seconds"]
        # One thread runs the three stages of the model, so together they are one stage.
        model_s = sum(r["stages_s"][s] for s in ("preprocess", "inference", "postprocess"))
        slowest = max(model_s, *(r["stages_s"][s] for s in ("decode", "annotate", "encode")))
        lines.append(
            f"| {r['backend']} | {r['imgsz']} | **{fps:.1f}** "
            f"({frames / r['most_s']:.1f} to {frames / r['least_s']:.1f}) | "
            + " | ".join("" if rate is None else f"{rate:.0f}" for rate in rates)
            + f" | {slowest / r['seconds']:.0%} of the time"
            f" | {r['result_bytes'] / 1000:.0f} kB in {r['result_s'] * 1000:.0f} ms |"
        )
    lines += [
        "",
        "| backend | imgsz | filter mode, seconds of film per second (least to most) |",
        "|---|---|---|",
    ]
    for r in (r for r in rows if r["mode"] == "filter"):
        film_s = frames / FPS
        lines.append(
            f"| {r['backend']} | {r['imgsz']} | **{film_s / r['seconds']:.1f}** "
            f"({film_s / r['most_s']:.1f} to {film_s / r['least_s']:.1f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short clip, once")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    told = parser.parse_args()
    seconds, rounds = (4, 1) if told.quick else (16, 3)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        clip = Path(name) / "clip.mp4"
        frames = make_clip(clip, seconds)
        rows = [
            row for backend in told.backends for row in measure(Path(name), backend, clip, rounds)
        ]
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "openvino", "av"))
    )
    about = (
        f"A clip of {seconds} s, {WIDTH}x{HEIGHT} at {FPS} fps ({frames} frames), default settings,"
        f" median of {rounds}. {machine}; load average {load:.1f} before it began.\n"
    )
    text = f"{about}\n{table(rows, frames)}"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "load_before": load,
        "frames": frames,
        "rounds": rounds,
        "rows": rows,
    }
    (RESULTS / "detector-video.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "detector-video.md").write_text(text)


if __name__ == "__main__":
    main()
