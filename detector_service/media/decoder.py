"""The one place where untrusted video bytes are opened and decoded; used by probe, reader, join.

A file may name other files and servers (playlists, reference movies). Four doors are shut: the
demuxer is chosen by ``sniff`` from a short list, only decoders in ``VIDEO`` and ``AUDIO`` see the
bytes, no protocol is allowed, and the one way left to open something else always refuses.
Surprise: one thread decodes. Frame threads are faster, but what they make of a damaged film
depends on which thread was first; going on after a restart must give the very same pixels.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, NoReturn, Self

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from detector_service.errors import MediaError
from detector_service.media.sniff import HEAD, container_of, require_loadable

READABLE: Final = "MP4/MOV, Matroska/WebM, AVI, MPEG-TS, MPEG-PS, FLV, WMV or Ogg"
VIDEO: Final = (
    "h264,hevc,libdav1d,av1,vp8,vp9,mpeg4,mpeg2video,mpeg1video,mjpeg,msmpeg4,msmpeg4v2,h263,flv,"
    "wmv1,wmv2,wmv3,vc1,theora,prores,dnxhd,dvvideo,ffv1,huffyuv,ffvhuff,utvideo,rawvideo,png,"
    "qtrle,zmbv,tscc,tscc2,cscd,msrle,msvideo1,flashsv,flashsv2,vp6,vp6f"
)
"""Names of decoders: what browsers, phones, cameras, players and screen recorders write."""
AUDIO: Final = (
    "aac,aac_latm,ac3,eac3,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,flac,alac,wmav1,wmav2,"
    "wmapro,amrnb,amrwb,adpcm_ms,adpcm_ima_wav,adpcm_swf,nellymoser,pcm_s16le,pcm_s16be,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_f32le,pcm_u8,pcm_s8,pcm_alaw,pcm_mulaw"
)
RATES: Final = range(4_000, 384_001)
"""Samples a second of a sound track: telephones to studios. One that says 1 Hz would be made 48,000
times as large."""
CHANNELS: Final = range(1, 9)
PICTURES: Final = Disposition.attached_pic | Disposition.timed_thumbnails
STILLS: Final = ("avif", "heic", "heix", "heim", "heis", "mif1")
BUFFER: Final = 2**18
SILENT: Final = 10_000
"""Packets in a row without a frame after which a film is given up: nearly three minutes at 60 fps,
longer than any decoder needs to the next keyframe; a flood of tiny packets reaches it in 0.2 s."""


class Source(io.FileIO):
    """The film's file. What the disk refuses is raised; what the film makes of it is FFmpeg's."""

    def __init__(self, path: Path, on_read: Callable[[], object]) -> None:
        """Open; ``on_read`` is called before every read, and what it raises comes out of it."""
        super().__init__(path)
        self._on_read = on_read
        self._over = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; none after a failure, of which PyAV raises one only."""
        if self._over:
            return b""
        self._over = True
        self._on_read()
        found = super().read(size)
        self._over = False
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Return the place, or a negative error number for a place that no file has."""
        try:
            return super().seek(offset, whence)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            return -errno.EINVAL


class Decoder:
    """An opened film: its container, its first real video stream, and the frames of that."""

    def __init__(
        self, path: Path, *, max_pixels: int, on_packet: Callable[[], object] | None = None
    ) -> None:
        """Open the file and look at what it declares; nothing of the picture is decoded for it.

        Args:
            path: the film.
            max_pixels: width times height allowed, also for frames in the middle.
            on_packet: called at every packet of the picture and every read of the file, so it is
                heard wherever a film makes the way to the next frame long; what it raises comes
                out of here or of ``frames``.

        Raises:
            MediaError: ``empty``, ``not_a_video``, ``no_video_stream``, ``too_many_pixels``.
        """
        self._on_packet = on_packet or _nothing
        self.errors = 0
        """Packets that could not be decoded, and frames that came out damaged."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(Source(path, self._on_packet))
            self.format = _format(file)
            self.container = stack.enter_context(_open(file, self.format, max_pixels))
            self.stream = _first_video(self.container)
            require_size(self.stream.width, self.stream.height, max_pixels)
            self._ready(max_pixels)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing.close()

    def _ready(self, max_pixels: int) -> None:
        codec = self.stream.codec_context
        codec.options = {"max_pixels": str(max_pixels)}
        codec.thread_count = 1
        for other in self.container.streams:
            if other is not self.stream:
                other.discard = Discard.all

    @property
    def time_base(self) -> Fraction:
        """Return the seconds of one unit of the video's clock."""
        return self.stream.time_base or Fraction(1, av.time_base)

    @property
    def fps(self) -> Fraction | None:
        """Return the average frames a second, None where the file gives nothing to go by."""
        found = self.stream.average_rate or self.stream.guessed_rate
        return found if found and found > 0 else None

    @property
    def audio(self) -> AudioStream | None:
        """Return the first sound track that can be decoded, of a usual rate and 1 to 8 channels."""
        for stream in self.container.streams.audio:
            if _decoder(stream) in AUDIO.split(",") and is_usual(stream.codec_context):
                return stream
        return None

    def packets(self, stream: Stream) -> Iterator[Packet[Any]]:
        """Yield a stream's packets from where the file stands; the last one is empty.

        A stream that begins later than FFmpeg looks when it opens a film is passed over. PyAV
        fails on it, but only at the end, after all packets of the streams that it knows.

        Raises:
            av.FFmpegError: the film breaks.
            OSError: the disk fails.
        """
        with contextlib.suppress(IndexError):
            yield from self.container.demux(stream)

    def frames(self) -> Generator[VideoFrame]:
        """Decode from where the file stands, in display order; damage is counted and skipped.

        The film ends where ``SILENT`` packets in a row hold no frame.

        Raises:
            MediaError: ``undecodable``; they come before the first frame.
        """
        silent, begun = 0, False
        try:
            for packet in self.packets(self.stream):
                self._on_packet()
                silent += not packet.is_discard  # those a player decodes, and does not show
                for frame in self._decoded(packet):
                    silent, begun = 0, True
                    yield frame
                if silent > SILENT:
                    if begun:
                        self.errors += 1
                        yield from self._decoded(None)
                        return
                    words = f"{SILENT} packets in a row hold no frame; encode the video anew"
                    raise MediaError("undecodable", words)
        except av.FFmpegError:  # the film ends or breaks in the middle; a disk's error is no such
            self.errors += 1
            yield from self._decoded(None)

    def _decoded(self, packet: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.FFmpegError:
            self.errors += 1
            return
        for frame in frames:
            self.errors += frame.is_corrupt
            yield frame

    def seek(self, pts: int) -> bool:
        """Stand at a keyframe at or before ``pts`` of the video's clock; False: cannot seek."""
        try:
            self.container.seek(pts, stream=self.stream)
        except (av.FFmpegError, OverflowError):
            return False
        return True


def _nothing() -> None:
    pass


def _format(file: BinaryIO) -> str:
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise MediaError("empty", "the file is empty; send the whole video")
    name = container_of(head)
    if name is None:
        raise MediaError("not_a_video", f"the file is no video; send {READABLE}")
    if name == "mov":
        require_loadable(file)
    return name


def _open(file: BinaryIO, name: str, max_pixels: int) -> InputContainer:
    options = {
        "codec_whitelist": f"{VIDEO},{AUDIO}",
        "protocol_whitelist": "none",
        # Twice: a picture above this loses its size, and could not be named too large below.
        "max_pixels": str(2 * max_pixels),
    }
    try:
        return av.open(
            file,
            "r",
            format=name,
            options=options,
            metadata_errors="replace",
            buffer_size=BUFFER,
            io_open=_refuse,
        )
    except (av.FFmpegError, ValueError) as exc:
        told = getattr(exc, "strerror", None) or exc
        words = (
            f"the video cannot be opened ({told}); send it whole: an MP4 that was cut off, or is"
            " still being recorded, has no index"
        )
        raise MediaError("not_a_video", words) from exc


def _refuse(url: str, _flags: int, _options: dict[str, str]) -> NoReturn:
    words = f"the file refers to another one ({url[:80]!r}); send one file that holds the video"
    raise MediaError("not_a_video", words)


def _first_video(container: InputContainer) -> VideoStream:
    if container.metadata.get("major_brand", "").strip() in STILLS:
        words = "the file is a still image; send a video, or the image to the images' endpoint"
        raise MediaError("not_a_video", words)
    streams = [item for item in container.streams.video if not item.disposition & PICTURES]
    for stream in streams:
        if _decoder(stream) in VIDEO.split(","):
            return stream
    if streams:
        names = ", ".join(str(_decoder(item)) for item in streams)
        raise MediaError("no_video_stream", f"no decoder is allowed for its video: {names}")
    words = "the file has no video stream (sound only, or a cover picture); send a video"
    raise MediaError("no_video_stream", words)


def _decoder(stream: Stream) -> str | None:
    """Return the decoder's name, None where there is none."""
    codec = stream.codec_context
    return codec.codec.name if codec else None


def is_usual(sound: AudioCodecContext | AudioFrame) -> bool:
    """Return whether a sound has a rate and a number of channels that sound has."""
    return sound.sample_rate in RATES and sound.layout.nb_channels in CHANNELS


def require_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of more pixels than allowed.

    Raises:
        MediaError: ``too_many_pixels``.
    """
    if width * height > max_pixels:
        words = f"the video has {width}x{height} pixels, more than {max_pixels}; scale it down"
        raise MediaError("too_many_pixels", words)
