"""An open-loop load generator: ``python -m detector_service.load --url … --rate 12``.

Frames of a real video are decoded to JPEG beforehand and posted at a given rate, whether or not
answers come back; a closed loop would slow down with the server and hide the queue. Used by the
demo and by benchmarks.
Surprise: latency counts from the moment a request was *due*, not from when it was sent, so a
generator that falls behind cannot flatter the server. While it runs, lines on stdin such as
``rate 12`` change the rate; the end of a pipe on stdin ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import random
import signal
import stat
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import httpx
from PIL import Image

SAMPLE: Final = Path(__file__).parent / "samples" / "screen.mp4"
OK: Final = 200
REFUSALS: Final = {429, 503}
JPEG_QUALITY: Final = 85
P95: Final = 0.95


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        url: base URL of the detector.
        rate: requests per second at start.
        seconds: how long; None: until told to end.
        objective_s: an answer within this many seconds counts as in objective.
        even: evenly spaced instead of Poisson.
        outstanding: requests in flight at most; those due beyond it count as errors.
        timeout_s: patience of one request.
    """

    url: str
    rate: float
    seconds: float | None = None
    objective_s: float = 0.25
    even: bool = False
    outstanding: int = 200
    timeout_s: float = 30.0


@dataclass
class Second:
    """What happened in one second; ``latencies`` are seconds of answers with 200."""

    offered: int = 0
    answered: int = 0
    in_objective: int = 0
    rejected: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """Return the counts and the p50 and p95 in seconds (None without answers)."""
        counts = asdict(self)
        del counts["latencies"]
        return counts | {"p50": _rank(self.latencies, 0.5), "p95": _rank(self.latencies, P95)}


class Generator:
    """Sends, and counts by the second in which an answer came."""

    def __init__(self, plan: Plan, frames: Sequence[bytes], client: httpx.AsyncClient) -> None:
        """Prepare; ``frames`` are JPEG files, sent round robin."""
        self._plan = plan
        self._frames = itertools.cycle(frames)
        self._client = client
        self._rate = plan.rate
        self._rate_changed = asyncio.Event()
        self._inflight: set[asyncio.Task[None]] = set()
        self._now = Second()
        self.total = Second()
        self.lines: list[dict[str, Any]] = []

    def set_rate(self, rate: float) -> None:
        """Send at ``rate`` per second from now on; 0 pauses."""
        self._rate = max(rate, 0.0)
        self._rate_changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until ``stop`` or the plan's end, then drop what is still in flight."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send_for_ever(group))
            telling = group.create_task(self._tell_for_ever())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._plan.seconds):
                    await stop.wait()
            for running in (sending, telling, *self._inflight):
                running.cancel()
        if self._now.offered:  # the last second was cut short, and is told all the same
            self._tell()

    async def _send_for_ever(self, group: asyncio.TaskGroup) -> None:
        due = time.monotonic()
        last_due = due + (float("inf") if self._plan.seconds is None else self._plan.seconds)
        while True:
            due += self._gap()
            while (wait := due - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wait, 3600.0)):
                        await self._rate_changed.wait()
                if self._rate_changed.is_set():
                    self._rate_changed.clear()
                    due = time.monotonic() + self._gap()
            if due > last_due:  # a loop that is late must not send more than was planned
                return
            self._count("offered")
            if len(self._inflight) >= self._plan.outstanding:
                self._count("errors")
                continue
            sent = group.create_task(self._send(next(self._frames), due))
            self._inflight.add(sent)
            sent.add_done_callback(self._inflight.discard)

    def _gap(self) -> float:
        if self._rate <= 0:
            return float("inf")
        if self._plan.even:
            return 1.0 / self._rate
        return random.expovariate(self._rate)

    async def _send(self, frame: bytes, due: float) -> None:
        try:
            answer = await self._client.post(
                f"{self._plan.url}/v1/detect",
                content=frame,
                headers={"content-type": "image/jpeg"},
            )
        except httpx.HTTPError:
            self._count("errors")
        else:
            self._judge(answer.status_code, time.monotonic() - due)

    def _judge(self, status: int, seconds: float) -> None:
        if status in REFUSALS:
            self._count("rejected")
        elif status != OK:
            self._count("errors")
        else:
            self._count("answered")
            self._now.latencies.append(seconds)
            self.total.latencies.append(seconds)
            if seconds <= self._plan.objective_s:
                self._count("in_objective")

    def _count(self, name: str) -> None:
        for tally in (self._now, self.total):
            setattr(tally, name, getattr(tally, name) + 1)

    async def _tell_for_ever(self) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(started + len(self.lines) + 1 - time.monotonic())
            self._tell()

    def _tell(self) -> None:
        done, self._now = self._now, Second()
        number = len(self.lines) + 1
        line = {"at": round(time.time(), 3), "second": number, "rate": self._rate}
        self.lines.append(line | done.line())
        _say(self.lines[-1])


def read_frames(video: Path, *, most: int = 48) -> list[bytes]:
    """Decode up to ``most`` frames, spread over the video, as JPEG files.

    Raises:
        OSError: the file is missing or no video (PyAV's errors are OSErrors or ValueErrors).
        ValueError: it has no frames.
    """
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        step = max((stream.frames or most) // most, 1)
        chosen = itertools.islice(container.decode(stream), 0, None, step)
        frames = [_jpeg(frame) for frame in itertools.islice(chosen, most)]
    if not frames:
        raise ValueError(f"{video} has no frames")
    return frames


def main(argv: list[str] | None = None) -> int:
    """Run the generator; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        frames = read_frames(arguments.video)
    except (OSError, ValueError, LookupError) as exc:
        sys.stderr.write(f"load: cannot read frames of {arguments.video}: {exc}\n")
        return 2
    plan = Plan(
        url=arguments.url.rstrip("/"),
        rate=arguments.rate,
        seconds=arguments.seconds,
        objective_s=arguments.objective,
        even=arguments.even,
    )
    summary = asyncio.run(_run(plan, frames))
    _say(summary["total"])
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return 0


async def _run(plan: Plan, frames: Sequence[bytes]) -> dict[str, Any]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    pool = httpx.Limits(max_connections=None, max_keepalive_connections=plan.outstanding)
    async with httpx.AsyncClient(limits=pool, timeout=plan.timeout_s, trust_env=False) as client:
        generator = Generator(plan, frames, client)
        with _following_stdin(loop, generator, stop):
            await generator.run(stop)
    total = {"total": True, "seconds": len(generator.lines)} | generator.total.line()
    return {"plan": asdict(plan), "total": total, "by_second": generator.lines}


@contextlib.contextmanager
def _following_stdin(
    loop: asyncio.AbstractEventLoop, generator: Generator, stop: asyncio.Event
) -> Iterator[None]:
    """Obey lines on stdin where it is a pipe or a terminal; /dev/null says nothing, not "end"."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        yield
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        yield
        return
    rest = b""

    def read() -> None:
        nonlocal rest
        data = os.read(descriptor, 4096)
        if not data:
            stop.set()
            loop.remove_reader(descriptor)
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            _obey(line.decode("utf-8", "replace").split(), generator)

    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)


def _obey(words: list[str], generator: Generator) -> None:
    match words:
        case ["rate", number]:
            with contextlib.suppress(ValueError):
                generator.set_rate(float(number))
                return
        case []:
            return
    sys.stderr.write(f"load: not understood: {' '.join(words)}; say: rate NUMBER\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detector_service.load",
        description="Post frames of a video to a detector at a given rate.",
    )
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--video", type=Path, default=SAMPLE)
    parser.add_argument("--rate", type=float, default=5.0, help="requests per second")
    parser.add_argument("--seconds", type=float, help="how long (default: until told to end)")
    parser.add_argument("--objective", type=float, default=0.25, help="seconds")
    parser.add_argument("--even", action="store_true", help="evenly spaced instead of Poisson")
    parser.add_argument("--report", type=Path, help="write a JSON summary here at the end")
    return parser


def _jpeg(frame: av.VideoFrame) -> bytes:
    buffer = io.BytesIO()
    picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _rank(values: Sequence[float], share: float) -> float | None:
    """Return the ``share`` quantile (0 to 1) in seconds, rounded to milliseconds."""
    match len(values):
        case 0:
            return None
        case 1:
            return round(values[0], 3)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return round(cuts[round(share * 100) - 1], 3)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
