"""What a frame of a film costs outside the model: decode, to BGR, draw, encode.

Each stage alone on a film of flat windows and a moving grain, median of three rounds, by the clock
on the wall, so nothing else should run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from detector_service.backends import Detection, Image
from detector_service.media import MediaLimits, Reader, SegmentWriter, draw, probe
from detector_service.media.pixels import digest

FILMS = ((1280, 720, 120), (1920, 1080, 60), (3840, 2160, 16))
ROUNDS = 3
LIMITS = MediaLimits(max_pixels=10_000_000, max_seconds=60, max_frames=1000)
RESULTS = Path(__file__).parent / "results"
BOXES = [
    Detection(number, "cursor", 0.87, (100 + 90 * number, 200, 160 + 90 * number, 300))
    for number in range(3)
]


def pictures(width: int, height: int, frames: int) -> Iterator[Image]:
    """A desktop of sorts: flat windows, sharp edges, a grain that moves."""
    random = np.random.default_rng(1)
    desk = np.full((height, width, 3), 60, np.uint8)
    for _ in range(60):
        x, y = random.integers(0, width), random.integers(0, height)
        desk[y : y + height // 5, x : x + width // 5] = random.integers(0, 256, 3)
    grain = random.integers(0, 24, (height // 4, width // 4, 3), np.uint8)
    for number in range(frames):
        image = desk.copy()
        at = number * 8
        image[height // 3 : height // 3 + height // 4, at : at + width // 4] += grain
        yield image


def source(path: Path, width: int, height: int, frames: int) -> Path:
    """Encode the pictures as a recorder would: x264, veryfast, B-frames."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", 25, {"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in pictures(width, height, frames):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        film.mux(stream.encode(None))
    return path


def ms(call: Callable[[], object], frames: int) -> float:
    """Return the ms a frame of a call that does them all, the median of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000 / frames)
    return statistics.median(times)


def draw_all(images: list[Image]) -> None:
    """Draw on each, one at a time, as the pipeline does."""
    for image in images:
        draw(image, BOXES)


def measure(folder: Path, width: int, height: int, frames: int) -> dict[str, float]:
    """Return the ms a frame of each stage."""
    film = source(folder / f"{height}.mp4", width, height, frames)
    info = probe(film, LIMITS)

    def read(*, pixels: bool) -> None:
        with Reader(film, info, LIMITS, pixels=lambda *_: pixels) as reader:
            for _ in reader:
                pass

    def encode(preset: str) -> None:
        writer = SegmentWriter(
            folder / "segment.mp4",
            width=width,
            height=height,
            sample_aspect_ratio=None,
            preset=preset,
            crf=23,
        )
        for number, image in enumerate(images):
            writer.add(image, number * 3600)
        writer.close()

    images = list(pictures(width, height, frames))
    decode = ms(lambda: read(pixels=False), frames)
    return {
        "decode": decode,
        "to BGR": ms(lambda: read(pixels=True), frames) - decode,
        "draw 3 boxes": ms(lambda: draw_all(images), frames),
        "encode ultrafast": ms(lambda: encode("ultrafast"), frames),
        "encode veryfast": ms(lambda: encode("veryfast"), frames),
        "digest (one a chunk)": ms(lambda: [digest(image) for image in images], frames),
    }


def main() -> None:
    """Measure, print the table, keep the figures as Markdown and JSON."""
    with tempfile.TemporaryDirectory() as name:
        figures = {f"{film[0]}x{film[1]}": measure(Path(name), *film) for film in FILMS}
    stages = list(next(iter(figures.values())))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, PyAV {av.__version__}"
    lines = [
        f"ms a frame, one film at a time ({machine}):",
        "",
        f"| | {' | '.join(figures)} |",
        f"|---|{'---|' * len(figures)}",
        *(
            f"| {stage} | {' | '.join(f'{told[stage]:.1f}' for told in figures.values())} |"
            for stage in stages
        ),
    ]
    RESULTS.mkdir(exist_ok=True)
    text = "\n".join(lines) + "\n"
    (RESULTS / "detector-media.md").write_text(text)
    document = {"at": datetime.now(UTC).isoformat(), "machine": machine, "ms_a_frame": figures}
    (RESULTS / "detector-media.json").write_text(json.dumps(document, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    main()
