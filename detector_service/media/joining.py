"""The finished film: segments one after the other, the source's sound beside them, nothing redone.

Called by the jobs when the last chunk is done; run again after a crash, it makes the same file.
Surprise: sound never costs the film. Whatever is wrong with it, the film is written, without it
if need be, and a warning says so.
"""

from __future__ import annotations

import heapq
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from detector_service.disk import sync
from detector_service.errors import MediaError
from detector_service.media.film import CLOCK
from detector_service.media.segments import MP4
from detector_service.media.sound import Sound, Timed, opened_sound

log = logging.getLogger(__name__)

TICK = Fraction(1, CLOCK)


def _always() -> bool:
    return True


def join(
    segments: Sequence[Path], source: Path, out: Path, wanted: Callable[[], bool] = _always
) -> bool:
    """Write the film; ``out`` appears whole and durable, or not at all.

    Args:
        segments: what ``SegmentWriter`` wrote, in order, at least one.
        source: the film whose sound is wanted.
        out: an MP4 file that a browser can start to play before it is all there.
        wanted: asked before every packet, on this thread; what comes after the last one, or after
            a no, takes as long as copying once what is written.

    Returns:
        Whether the film is there; False: it was not wanted any more, and nothing is left of it.

    Raises:
        MediaError: ``segments``; one is damaged, or written with other settings than the first.
        OSError: the disk is full, say.
    """
    part = out.with_name(f"{out.name}.part")
    try:
        if not _write(segments, source, part, wanted):
            return False
        sync(part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    sync(out.parent)
    return True


def _write(segments: Sequence[Path], source: Path, part: Path, wanted: Callable[[], bool]) -> bool:
    """Write with sound; without, where that fails for whatever reason the sound has."""
    try:
        with opened_sound(source, wanted) as sound:
            return _mux(segments, sound, part, wanted)
    except OSError:  # the disk's fault, and not the sound's
        raise
    except (av.FFmpegError, MediaError, ValueError, OverflowError) as exc:
        log.warning("the film is joined without its sound: %s", exc)
        return _mux(segments, None, part, wanted)


def _mux(
    segments: Sequence[Path], sound: Sound | None, part: Path, wanted: Callable[[], bool]
) -> bool:
    options = {**MP4, "movflags": "+faststart"}
    with av.open(str(part.resolve()), "w", format="mp4", options=options) as film:
        with _segment(segments[0]) as first:
            template = first.streams.video[0]
            video, header = (
                film.add_stream_from_template(template),
                template.codec_context.extradata,
            )
        pieces = [_pictures(segments, video, header)]
        if sound is not None:
            pieces.append(sound.into(film, _end(segments[-1])))
        for _, packet in heapq.merge(*pieces, key=operator.itemgetter(0)):
            if not wanted():
                return False
            film.mux(packet)
    return True


def _pictures(
    segments: Sequence[Path], stream: VideoStream, header: bytes | None
) -> Iterator[Timed]:
    for path in segments:
        with _segment(path) as segment:
            found = segment.streams.video[0]
            if found.codec_context.extradata != header:
                words = f"{path.name} was encoded with other settings than the first segment"
                raise MediaError("segments", words)
            for packet in segment.demux(found):
                if packet.pts is not None:
                    packet.stream = stream
                    yield packet.pts * TICK, packet


def _end(path: Path) -> Fraction:
    """Return the time in s at which the last frame of a segment has been shown."""
    with _segment(path) as segment:
        stream = segment.streams.video[0]
        return ((stream.start_time or 0) + (stream.duration or 0)) * TICK


def _segment(path: Path) -> InputContainer:
    try:
        return av.open(str(path.resolve()), "r", format="mp4")
    except av.FFmpegError as exc:
        raise MediaError("segments", f"{path.name} cannot be read: {exc}") from exc
