"""The load generator against a toy detector: open loop, honest counts, steerable."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from detector_service.load import Generator, Plan, _following_stdin, main, read_frames
from tests.detector.toys import listening, picture, until


def write_video(path: Path, frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            pixels = np.full((48, 64, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_are_taken_from_all_over_the_video(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", 20)
    assert len(read_frames(video)) == 20
    few = read_frames(video, most=5)
    assert len(few) == 5
    assert all(frame.startswith(b"\xff\xd8") for frame in few)
    assert few[0] != few[-1]


def test_what_is_no_video_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (None, b"hello"):
        path = tmp_path / "v.mp4"
        if content is not None:
            path.write_bytes(content)
        assert main(["--video", str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"load: cannot read frames of {path}")


async def test_it_sends_no_more_than_planned_and_counts_what_came_back(tmp_path: Path) -> None:
    async with listening(tmp_path) as detector, httpx.AsyncClient() as client:
        plan = Plan(detector.url, rate=50, seconds=0.5, even=True, objective_s=5)
        generator = Generator(plan, [picture(1)], client)
        await generator.run(asyncio.Event())
        total = generator.total
        assert 0 < total.answered <= total.offered <= 25
        assert total.answered == total.in_objective
        assert (total.rejected, total.errors) == (0, 0)
        assert generator.lines[-1]["p95"] is not None


async def test_a_stuck_server_does_not_slow_it_down_and_what_is_over_the_bound_is_an_error(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, max_concurrency=2, queue_limit=0) as detector:
        detector.backend.gate.clear()
        async with httpx.AsyncClient() as client:
            plan = Plan(detector.url, rate=100, seconds=0.4, even=True)
            refused = Generator(plan, [picture(1)], client)
            await refused.run(asyncio.Event())
            assert refused.total.offered >= 8
            assert refused.total.rejected >= refused.total.offered - 5
            bounded = Generator(Plan(detector.url, 100, 0.2, outstanding=0), [picture(1)], client)
            await bounded.run(asyncio.Event())
            assert bounded.total.errors == bounded.total.offered > 0


async def test_an_answer_after_the_objective_is_not_in_objective(tmp_path: Path) -> None:
    async with listening(tmp_path) as detector, httpx.AsyncClient() as client:
        plan = Plan(detector.url, rate=50, seconds=0.3, even=True, objective_s=0)
        generator = Generator(plan, [picture(1)], client)
        await generator.run(asyncio.Event())
        assert generator.total.answered > 0
        assert generator.total.in_objective == 0


async def test_a_server_that_is_gone_gives_errors() -> None:
    async with httpx.AsyncClient() as client:
        generator = Generator(Plan("http://127.0.0.1:1", 50, 0.2), [b"x"], client)
        await generator.run(asyncio.Event())
        assert generator.total.errors > 0


async def test_lines_on_stdin_change_the_rate_and_its_end_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        async with listening(tmp_path) as detector, httpx.AsyncClient() as client:
            stop = asyncio.Event()
            generator = Generator(Plan(detector.url, rate=0), [picture(1)], client)
            with _following_stdin(asyncio.get_running_loop(), generator, stop):
                run = asyncio.create_task(generator.run(stop))
                os.write(writing, b"faster\n\nrate 20")
                await until(lambda: "not understood: faster" in capsys.readouterr().err)
                assert generator.total.offered == 0
                os.write(writing, b"0\n")
                await until(lambda: generator.total.answered > 3)
                os.close(writing)
                await asyncio.wait_for(run, 10)
