"""What is this file? Asked before a film is accepted, and again before it is read.

Called by the jobs on arrival. Surprise: a header is not believed. The first frame is decoded, and
its size and turn count, not those declared; length and number of frames stay the header's guess,
so the reader checks them again at every frame. A rate is told if the next frames come at it: films
of a screen have frames when something moves, and a rate that their writer made up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from detector_service.errors import MediaError
from detector_service.media.decoder import Decoder, require_size
from detector_service.media.film import FilmInfo, MediaLimits
from detector_service.media.pixels import QUARTER, ToImage, rotation

OBLONG: Final = 10
"""Pixels more oblong than this are a damaged header."""
SEEN: Final = 48
"""Packets behind the first frame by which a declared rate is checked."""
FEWEST: Final = 12
"""With fewer, frames that come out of their order make the rate seen too wrong."""
NEAR: Final = 0.2
"""Share by which a true rate may differ from that seen, for the same reason."""


def probe(
    path: Path, limits: MediaLimits, *, on_packet: Callable[[], object] | None = None
) -> FilmInfo:
    """Return the facts of a film.

    Args:
        path: the film.
        limits: how much is accepted.
        on_packet: called at every packet and every read until the first frame is there; what it
            raises comes out, so a deadline can be kept and a caller who left need not wait.

    Raises:
        MediaError: ``empty``, ``not_a_video``, ``no_video_stream``, ``too_many_pixels``,
            ``too_long``, ``no_frames``, ``undecodable``.
    """
    with Decoder(path, max_pixels=limits.max_pixels, on_packet=on_packet) as decoder:
        duration_s = _duration_s(decoder)
        _require_room(duration_s, decoder.stream.frames, limits)
        first = next(decoder.frames(), None)
        if first is None:
            words = (
                f"none of its frames can be decoded ({decoder.errors} damaged); they are broken,"
                f" or larger than {limits.max_pixels} pixels; encode the video anew"
            )
            raise MediaError("no_frames", words)
        require_size(first.width, first.height, limits.max_pixels)
        turn = rotation(first)
        lying = turn in (QUARTER, 3 * QUARTER)
        width, height = first.width, first.height
        upright = (height, width) if lying else (width, height)
        ToImage(width=upright[0], height=upright[1], turn=turn).image(first)
        shape = decoder.stream.sample_aspect_ratio or Fraction(0)
        known = 1 / OBLONG <= shape <= OBLONG
        fps = _fps(decoder)
        return FilmInfo(
            container=decoder.format,
            codec=decoder.stream.codec_context.name,
            width=upright[0],
            height=upright[1],
            rotation=turn,
            fps=None if fps is None else float(fps),
            duration_s=duration_s,
            frames=_frames(decoder, duration_s, fps),
            has_audio=decoder.audio is not None,
            sample_aspect_ratio=(1 / shape if lying else shape) if known else None,
        )


def _duration_s(decoder: Decoder) -> float | None:
    stream, container = decoder.stream, decoder.container
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * decoder.time_base)
    if container.duration is not None and container.duration > 0:
        return container.duration / av.time_base
    return None


def _fps(decoder: Decoder) -> Fraction | None:
    """Return the rate if the file has counted its frames, or if the next packets bear it out."""
    told, times = decoder.fps, list[int]()
    if told is None or decoder.stream.frames > 0:
        return told
    with contextlib.suppress(av.FFmpegError):  # it breaks here: the reader will say where
        for _, packet in zip(range(SEEN), decoder.packets(decoder.stream), strict=False):
            times += [] if packet.pts is None else [packet.pts]
    if len(times) < FEWEST or max(times) == min(times):
        return told
    seen = (len(times) - 1) / ((max(times) - min(times)) * decoder.time_base)
    return told if abs(seen / told - 1) <= NEAR else None


def _frames(decoder: Decoder, duration_s: float | None, fps: Fraction | None) -> int | None:
    if decoder.stream.frames > 0:
        return decoder.stream.frames
    if duration_s is None or fps is None:
        return None
    return max(1, round(duration_s * fps))


def _require_room(duration_s: float | None, frames: int, limits: MediaLimits) -> None:
    if frames > limits.max_frames:
        words = f"the video has {frames} frames, more than {limits.max_frames}; send it in parts"
        raise MediaError("too_long", words)
    if duration_s is not None and duration_s > limits.max_seconds:
        words = f"the video is {duration_s:.0f} s long, more than {limits.max_seconds:g} s"
        raise MediaError("too_long", f"{words}; send it in parts")
