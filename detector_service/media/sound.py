"""The sound track of a film, on the film's own clock, as MP4 and browsers take it; for ``join``.

Copied where all of it plays as it is, else made AAC: one damaged packet ends a browser's playing.
Surprise: what lies before the first frame or after the last is cut, for nobody would see it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Discard

from detector_service.media.decoder import Decoder, is_usual
from detector_service.media.film import CLOCK

COPIED: Final = ("aac", "mp3", "opus", "flac")
RATE: Final = 48_000
BIT_RATE: Final = 128_000
BLOCK: Final = 1024
DRIFT: Final = RATE // 10
"""Samples by which sound may be off before it is put right: a tenth of a second."""
LEAD: Final = Fraction(1, 10)
"""Seconds before the first frame that are kept, to warm the player's decoder up."""
LONGEST_S: Final = 60
"""Seconds of sound in one frame; more is damage. A player's buffer holds less."""
STRICT: Final = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""What libavcodec overlooks by itself, and browsers do not."""
ANY_SIZE: Final = 2**28
"""Pixels; the reader has checked the film against its real limit."""

Samples = npt.NDArray[np.float32]
Piece = tuple[int | None, Samples]
Timed: TypeAlias = "tuple[Fraction, Packet[Any]]"


class Sound:
    """The sound track of one source, readable once."""

    def __init__(
        self, decoder: Decoder, stream: AudioStream, origin: Fraction, *, sane: bool
    ) -> None:
        """Keep the opened film.

        Args:
            decoder: the film.
            stream: its track.
            origin: the first frame's time on the file's clock, in s.
            sane: whether players take every packet of the track as it is.
        """
        self._sane = sane
        self._decoder = decoder
        self._stream = stream
        self._origin = origin
        self._unit = stream.time_base or Fraction(1, CLOCK)

    def into(self, film: OutputContainer, end: Fraction) -> Iterator[Timed]:
        """Add a stream to ``film`` and return its packets with their times in s, up to ``end``."""
        if self._sane:
            copy = film.add_stream_from_template(self._stream)
            return self._copied(copy, end)
        layout = "mono" if self._stream.codec_context.layout.nb_channels == 1 else "stereo"
        made = film.add_stream("aac", RATE, layout=layout)
        made.codec_context.bit_rate = BIT_RATE
        return self._encoded(made, layout, end)

    def _copied(self, stream: AudioStream, end: Fraction) -> Iterator[Timed]:
        shift, last = round(self._origin / self._unit), None
        for packet in self._packets():
            if packet.dts is None or packet.pts is None:
                continue
            if last is not None and packet.dts - shift < last - 1 / self._unit:
                shift = packet.dts - last - (packet.duration or 1)
            packet.pts -= shift
            packet.dts -= shift
            at = packet.dts * self._unit
            if at < -LEAD or at >= end or (last is not None and packet.dts <= last):
                continue
            last = packet.dts
            packet.stream = stream
            yield at, packet

    def _encoded(self, stream: AudioStream, layout: str, end: Fraction) -> Iterator[Timed]:
        frames: Iterator[AudioFrame | None] = _contiguous(self._pieces(layout), layout, end)
        for frame in itertools.chain(frames, (None,)):
            for packet in stream.encode(frame):
                yield (packet.dts or 0) * (packet.time_base or Fraction(1, RATE)), packet

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        """Yield what can be read; where the file breaks, the sound ends."""
        with contextlib.suppress(av.FFmpegError):
            yield from self._decoder.packets(self._stream)

    def _pieces(self, layout: str) -> Iterator[Piece]:
        shape, resampler = None, AudioResampler("fltp", layout, RATE)
        for frame in self._frames():
            told = frame.format.name, frame.layout.name, frame.sample_rate
            if shape != told:
                shape, resampler = told, AudioResampler("fltp", layout, RATE)
            place = None
            if frame.pts is not None:
                place = round((frame.pts * self._unit - self._origin) * RATE)
            for piece in resampler.resample(frame):
                yield place, piece.to_ndarray().astype(np.float32, copy=False)
                place = None

    def _frames(self) -> Iterator[AudioFrame]:
        for packet in self._packets():
            with contextlib.suppress(av.FFmpegError):
                yield from filter(_fits, packet.decode())


def _fits(frame: AudioFrame) -> bool:
    """Return whether a frame is small enough to be resampled in memory."""
    return is_usual(frame) and frame.samples <= LONGEST_S * frame.sample_rate


def _contiguous(pieces: Iterator[Piece], layout: str, end: Fraction) -> Iterator[AudioFrame]:
    """Return frames without a hole from 0 to ``end``: gaps are silence, overlaps are cut."""
    last, written, shift, before = int(end * RATE), 0, 0, None
    for place, samples in pieces:
        at = written if place is None else place + shift
        if before is not None and at < min(before, written - RATE):  # the clock was restarted
            shift, at = shift + written - at, written
        before = at
        if at - written > (DRIFT if written else 0):
            quiet = np.zeros((samples.shape[0], BLOCK), np.float32)
            while written < min(at, last):
                count = min(BLOCK, at - written, last - written)
                yield _frame(quiet[:, :count], layout, written)
                written += count
        elif written - at > (DRIFT if written else 0):
            samples = samples[:, written - at :]  # noqa: PLW2901 - the rest of this piece
        kept = samples[:, : max(0, last - written)]
        if kept.shape[1]:
            yield _frame(kept, layout, written)
            written += kept.shape[1]
        if written >= last:
            return


def _frame(samples: Samples, layout: str, at: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    return frame


def _is_sane(source: Path, wanted: Callable[[], bool]) -> bool:
    """Return whether players take the track as it is: all of it decodes, and is what it declares.

    Reads the whole track; ends early, whatever it says, when it is not ``wanted`` any more.
    """
    with _track(source) as (decoder, stream):
        if stream is None or stream.codec_context.codec.canonical_name not in COPIED:
            return False
        stream.codec_context.options = STRICT
        declared = stream.codec_context.sample_rate, stream.codec_context.layout.name
        try:
            return all(
                (frame.sample_rate, frame.layout.name) == declared
                for packet in itertools.takewhile(lambda _: wanted(), decoder.packets(stream))
                for frame in stream.decode(packet)
            )
        except av.FFmpegError:
            return False


@contextlib.contextmanager
def opened_sound(source: Path, wanted: Callable[[], bool]) -> Iterator[Sound | None]:
    """Open the sound track of a film; None where it has none.

    Args:
        source: the film.
        wanted: asked before every packet while the track is looked through.

    Raises:
        MediaError: the film cannot be read at all.
    """
    with Decoder(source, max_pixels=ANY_SIZE) as decoder:
        first = next(decoder.frames(), None)
        pts = first.pts if first is not None else None
        origin = (pts or 0) * decoder.time_base
    sane = _is_sane(source, wanted)
    with _track(source) as (decoder, stream):
        yield None if stream is None else Sound(decoder, stream, origin, sane=sane)


@contextlib.contextmanager
def _track(source: Path) -> Iterator[tuple[Decoder, AudioStream | None]]:
    """Open a film to read its sound track alone, where it has one."""
    with Decoder(source, max_pixels=ANY_SIZE) as decoder:
        stream = decoder.audio
        if stream is not None:
            decoder.stream.discard = Discard.all
            stream.discard = Discard.default
        yield decoder, stream
