"""Films a few seconds long, made for tests: every frame carries its number as bars.

The bars are as high as the picture and read by their median, so they survive lossy encoding,
scaling, and boxes drawn over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from detector_service.backends import Image
from detector_service.media import CLOCK, Bookmark, Frame, MediaLimits, Reader, probe

BITS = 12
SIZE = (96, 64)
LIMITS = MediaLimits(max_pixels=4_000_000, max_seconds=600, max_frames=20_000)
RATE = 48_000


def bars(number: int, size: tuple[int, int] = SIZE) -> Image:
    """Return a BGR picture (``size`` is width, height) that shows ``number``."""
    width, height = size
    column = np.arange(width) * BITS // width
    on = (number >> (BITS - 1 - column)) & 1
    line = np.where(on, 220, 30).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(line[None, :, None], (height, width, 3)))


def number(image: Image) -> int:
    """Return the number that a picture shows."""
    width = image.shape[1]
    middles = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    found = 0
    for middle in middles:
        found = found * 2 + int(np.median(image[:, middle, 1]) > 125)
    return found


def make_film(
    path: Path,
    *,
    frames: int = 30,
    size: tuple[int, int] = SIZE,
    fps: int = 25,
    ticks: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: str | None = None,
    sound_s: tuple[float, float] = (0.0, 1.2),
    pictures: Iterable[Image] | None = None,
    container: Mapping[str, str] | None = None,
) -> Path:
    """Write a film; the container follows from the suffix of ``path``.

    Args:
        path: where; returned.
        frames: how many.
        size: width and height of the *upright* picture.
        fps: of a steady film.
        ticks: the time of each frame, instead of ``fps``.
        codec: an encoder.
        pix_fmt: what the encoder is given.
        options: of the encoder.
        rotation: degrees clockwise that a player has to turn what is stored.
        aspect: width to height of a stored pixel.
        sound: an audio encoder, such as ``aac``.
        sound_s: when the sound begins and ends.
        pictures: instead of bars.
        container: options of the muxer.
    """
    times = ticks or [index * CLOCK // fps for index in range(frames)]
    upright = pictures if pictures is not None else (bars(at, size) for at in range(len(times)))
    with av.open(str(path), "w", options=dict(container or {})) as film:
        video: Any = film.add_stream(codec, fps, dict(options or {}))
        lying = rotation % 180 == 90
        video.width, video.height = size[::-1] if lying else size
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = Fraction(1, CLOCK if codec.startswith("lib") else fps)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(-rotation)
        track: Any = None
        if sound is not None:
            track = film.add_stream(sound, RATE, layout="stereo")
        for tick, image in zip(times, upright, strict=True):
            stored = np.ascontiguousarray(np.rot90(image, rotation // 90))
            frame = av.VideoFrame.from_ndarray(stored, format="bgr24")
            frame.pts, frame.time_base = tick, Fraction(1, CLOCK)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        if track is not None:
            _write_sound(film, track, sound_s)
    return path


def _write_sound(film: Any, track: Any, span_s: tuple[float, float]) -> None:
    """A tone that is loud in the first 100 ms of each second."""
    begin, end = (round(at * RATE) for at in span_s)
    for at in range(begin, end, 1024):
        when = np.arange(at, at + 1024)
        wave = np.sin(when / 20) * np.where(when % RATE < RATE // 10, 0.8, 0.01)
        planes = np.stack([wave, wave]).astype(np.float32)
        frame: Any = av.AudioFrame.from_ndarray(planes, "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        film.mux(track.encode(frame))
    film.mux(track.encode(None))


def read_film(
    path: Path, *, after: Bookmark | None = None, limits: MediaLimits = LIMITS
) -> list[Frame]:
    """Return every frame of a film, with its pixels."""
    info = probe(path, limits)
    with Reader(path, info, limits, pixels=lambda *_: True, after=after) as reader:
        return list(reader)


def read_bookmarked(path: Path) -> tuple[list[Frame], list[Bookmark]]:
    """Return every frame of a film, and the bookmark of each."""
    frames, bookmarks = [], []
    with Reader(path, probe(path, LIMITS), LIMITS, pixels=lambda *_: True) as reader:
        for frame in reader:
            frames.append(frame)
            bookmarks.append(reader.bookmark())
    return frames, bookmarks


def numbers(frames: Iterable[Frame]) -> list[int]:
    """Return what each frame shows."""
    return [number(frame.image) for frame in frames if frame.image is not None]


def sound_times(path: Path) -> list[float]:
    """Return the seconds at which the sound turns loud."""
    with av.open(str(path)) as film:
        if not film.streams.audio:
            return []
        track = film.streams.audio[0]
        loud, found = False, []
        for frame in film.decode(track):
            rate = frame.sample_rate
            wave = np.abs(frame.to_ndarray().astype(np.float64)[0])
            wave = wave / (1 if frame.format.name.startswith("flt") else 32768)
            for part, level in enumerate(wave[: len(wave) // 64 * 64].reshape(-1, 64).max(axis=1)):
                if (level > 0.2) != loud:
                    loud = not loud
                    if loud:
                        found.append(float(frame.pts * frame.time_base) + part * 64 / rate)
        return found
