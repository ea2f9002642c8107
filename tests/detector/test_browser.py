"""The annotated film in a real Chromium: it plays, has its sound, and seeks to the very frame."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow
from playwright.async_api import Page

from detector_service.load import SAMPLE
from tests.browser import NAMES, chromium
from tests.detector.moviegoer import Moviegoer, Shown
from tests.detector.test_real import process

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("browser"), pytest.mark.timeout(300)]

FPS, FRAMES, WIDTH, HEIGHT = 12, 120, 960, 540
RATE, BLOCK = 48_000, 1024  # samples a second, and in one AAC packet
OPEN = """async (source) => {
    const video = document.createElement('video');
    const heard = [];
    for (const name of ['loadedmetadata', 'canplay', 'ended', 'error']) {
        video.addEventListener(name, () => heard.push(name));
    }
    window.film = {video, heard, until: (name) => new Promise((done, failed) => {
        video.addEventListener(name, done, {once: true});
        video.addEventListener('error', () => failed(video.error.message), {once: true});
    })};
    document.body.append(video);
    const ready = window.film.until('canplay');
    video.src = source;
    await ready;
}"""
PLAY = """async () => {
    const {video, heard, until} = window.film;
    const ended = until('ended');
    video.playbackRate = 2;
    await video.play();
    await ended;
    return {
        heard, error: video.error, width: video.videoWidth, height: video.videoHeight,
        duration: video.duration, sound: video.webkitAudioDecodedByteCount,
        frames: video.webkitDecodedFrameCount,
        damaged: video.getVideoPlaybackQuality().corruptedVideoFrames,
    };
}"""
SEEK = """async (seconds) => {
    const {video, until} = window.film;
    const seeked = until('seeked');
    video.currentTime = seconds;
    await seeked;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    return canvas.toDataURL('image/png');
}"""

Picture = npt.NDArray[np.uint8]


class Premiere(NamedTuple):
    """A finished job and its films."""

    url: str
    job: str
    shown: Shown
    annotated: bytes


def with_a_tone(folder: Path) -> Path:
    """Return the sample film with a sound track of its length, 440 Hz as AAC."""
    path = folder / "sounding.mp4"
    with av.open(str(SAMPLE)) as silent, av.open(str(path), "w") as out:
        picture = out.add_stream_from_template(silent.streams.video[0])
        sound = out.add_stream("aac", rate=RATE)
        for packet in silent.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                out.mux(packet)
        for start in range(0, RATE * FRAMES // FPS, BLOCK):
            wave = np.sin(np.arange(start, start + BLOCK) * (2 * np.pi * 440 / RATE))
            block = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = RATE, start, Fraction(1, RATE)
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def premiere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Premiere]:
    folder = tmp_path_factory.mktemp("browser")
    with process(folder / "state", torch_threads=2) as detector, Moviegoer(detector.url) as client:
        detector.wait_until_ready()
        job = client.send(with_a_tone(folder), mode="detect", imgsz=640)
        shown = Shown(client.wait(job), client.result(job))
        yield Premiere(detector.url, job, shown, client.read(f"{job}/annotated"))


@pytest.fixture
async def page(daemon: Callable[..., str]) -> AsyncIterator[Page]:
    async with chromium(daemon(*NAMES)) as browser:
        yield await browser.new_page()


async def test_the_annotated_film_plays_to_its_end_with_its_sound(
    premiere: Premiere, page: Page
) -> None:
    answers = await opened(page, premiere)
    played = await page.evaluate(PLAY)
    assert played["heard"] == ["loadedmetadata", "canplay", "ended"]
    assert played["error"] is None
    assert (played["width"], played["height"]) == (WIDTH, HEIGHT)
    assert played["duration"] == pytest.approx(FRAMES / FPS, abs=0.1)
    assert played["frames"] >= FRAMES
    assert played["damaged"] == 0
    assert played["sound"] > 0
    assert 206 in answers, "without ranges a browser cannot seek in a long film"


async def test_seeking_shows_the_very_frame_with_its_boxes_on_it(
    premiere: Premiere, page: Page
) -> None:
    await opened(page, premiere)
    told = premiere.shown.result["frames"]
    films = frames_of(premiere.annotated)
    assert len(films) == len(told) == FRAMES
    seen = [number for number, frame in enumerate(told) if frame["detections"]]
    assert len(seen) > FRAMES / 2
    for number in (seen[-1], seen[0], seen[len(seen) // 2]):
        png = await page.evaluate(SEEK, (number + 0.5) / FPS)
        shown = as_picture(png)
        # Browsers scale colours up in their own way; a neighbouring frame differs by far more
        # round the pointer, which is what is compared.
        around = box_of(told[number], margin=12)
        assert distance(shown[around], films[number][around]) < 8
        assert is_boxed(shown, told[number])


async def opened(page: Page, premiere: Premiere) -> list[int]:
    """Open the film in a page of the service's own origin; return the statuses it will get."""
    answers: list[int] = []
    await page.goto(f"{premiere.url}/livez")
    await page.set_content("<!doctype html><title>film</title><body></body>")
    page.on("response", lambda answer: answers.append(answer.status))
    await page.evaluate(OPEN, f"{premiere.job}/annotated")
    return answers


def frames_of(film: bytes) -> list[Picture]:
    with av.open(io.BytesIO(film), "r") as opened:
        return [np.asarray(frame.to_ndarray(format="rgb24")) for frame in opened.decode(video=0)]


def as_picture(data_url: str) -> Picture:
    png = base64.b64decode(data_url.partition(",")[2])
    return np.asarray(Pillow.open(io.BytesIO(png)).convert("RGB"))


def box_of(frame: dict[str, Any], margin: int = 0) -> tuple[slice, slice]:
    surest = max(frame["detections"], key=lambda item: item["confidence"])
    left, top, right, bottom = (round(edge) for edge in surest["xyxy"])
    rows = slice(max(top - margin, 0), min(bottom + margin, HEIGHT))
    return rows, slice(max(left - margin, 0), min(right + margin, WIDTH))


def distance(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def is_boxed(shown: Picture, frame: dict[str, Any]) -> bool:
    """Say whether the first class's red runs down the left edge of the box."""
    rows, columns = box_of(frame)
    edge = shown[rows, columns.start : columns.start + 2].reshape(-1, 3).mean(axis=0)
    return bool(edge[0] - max(edge[1], edge[2]) > 60)
