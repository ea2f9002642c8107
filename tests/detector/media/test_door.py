"""What a stranger may send that is no film, or wants to be more than one."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image as Pillow

from detector_service.errors import MediaError
from detector_service.media import MediaLimits, probe
from tests.detector.films import LIMITS, RATE, make_film


def reason(path: Path, limits: MediaLimits = LIMITS) -> str:
    with pytest.raises(MediaError) as told:
        probe(path, limits)
    assert len(str(told.value)) > 20
    return told.value.reason


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return make_film(tmp_path / "film.mp4", frames=5)


@pytest.fixture
def server(film: Path) -> Iterator[tuple[str, list[str]]]:
    """A server that would hand out a film, and the paths it was asked for."""
    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(film.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", asked
    listening.shutdown()
    thread.join()
    listening.server_close()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\n{url}\n',
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:{url}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "subtitles": "WEBVTT\n\n00:00.000 --> 00:01.000\n{url}\n",
    "smil": '<?xml version="1.0"?><smil><body><video src="{url}"/></body></smil>',
    "asx-reference": "[Reference]\nRef1={url}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["", ".m3u8", ".mp4"])
def test_a_playlist_never_makes_us_ask_a_server_or_read_another_file(
    kind: str, suffix: str, film: Path, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = server
    for url in (f"{address}/film.mp4", str(film), f"file:{film}", film.name):
        playlist = tmp_path / f"playlist{suffix}"
        playlist.write_text(PLAYLISTS[kind].format(url=url))
        assert reason(playlist) == "not_a_video"
    assert asked == []


def atom(name: bytes, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + name + body


def test_a_movie_that_refers_to_another_one_is_refused(film: Path, tmp_path: Path) -> None:
    """A QuickTime reference movie: ``rmra`` names where the film is."""
    reference = atom(b"rdrf", bytes(4) + b"url " + len(str(film)).to_bytes(4, "big"))
    reference += str(film).encode()
    movie = atom(b"moov", atom(b"rmra", atom(b"rmda", reference)))
    path = tmp_path / "reference.mov"
    path.write_bytes(atom(b"ftyp", b"qt  \0\0\0\0qt  ") + movie)
    assert reason(path) in {"not_a_video", "no_video_stream"}


def test_an_empty_file_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert reason(path) == "empty"


@pytest.mark.parametrize("content", [b"x", b"hello\n" * 500, bytes(5000), b"\xff\xfb\x90\x00" * 99])
def test_what_is_no_film_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert reason(path) == "not_a_video"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_still_image_is_no_film(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    buffer = io.BytesIO()
    Pillow.new("RGB", (64, 48), (9, 99, 199)).save(buffer, kind)
    path.write_bytes(buffer.getvalue())
    assert reason(path) == "not_a_video"


def write_sound(path: Path, codec: str, *, cover: bool = False) -> Path:
    with av.open(str(path), "w") as film:
        track = film.add_stream(codec, RATE, layout="stereo")
        if cover:
            art = film.add_stream("mjpeg", 25)
            art.width, art.height, art.pix_fmt = 64, 48, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
            picture = np.zeros((48, 64, 3), np.uint8)
            film.mux(art.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
            film.mux(art.encode(None))
        for at in range(0, RATE, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts = RATE, at
            film.mux(track.encode(frame))
        film.mux(track.encode(None))
    return path


def test_sound_alone_is_no_film(tmp_path: Path) -> None:
    assert reason(write_sound(tmp_path / "a.m4a", "aac")) == "no_video_stream"
    assert reason(write_sound(tmp_path / "a.mka", "libopus")) == "no_video_stream"


def test_a_song_with_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    assert reason(write_sound(tmp_path / "song.mp4", "aac", cover=True)) == "no_video_stream"


def test_an_mp4_cut_off_before_its_index_is_refused(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(film.read_bytes()[:600])
    assert reason(path) == "not_a_video"


def test_a_film_without_a_frame_is_refused(film: Path) -> None:
    content = bytearray(film.read_bytes())
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    content[start : start + size] = b"\xff" * size
    film.write_bytes(content)
    assert reason(film) == "no_frames"


def test_a_size_too_large_is_refused_before_a_frame_is_decoded(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=2)
    content = bytearray(film.read_bytes())
    at = content.index(b"avc1", content.index(b"stsd")) + 28  # width and height of the entry
    content[at : at + 4] = (30_000).to_bytes(2, "big") * 2
    film.write_bytes(content)
    small = MediaLimits(max_pixels=96 * 64 - 1, max_seconds=10, max_frames=10)
    assert reason(film, small) == "too_many_pixels"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_a_picture_above_the_limit_is_refused_in_every_container(
    suffix: str, tmp_path: Path
) -> None:
    film = make_film(tmp_path / f"film{suffix}", frames=3, size=(320, 240), codec="mpeg4")
    limits = MediaLimits(max_pixels=320 * 239, max_seconds=10, max_frames=10)
    assert reason(film, limits) == "too_many_pixels"


def test_a_declared_length_above_the_limit_is_refused(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=50)
    assert reason(film, MediaLimits(10**6, 1.9, 100)) == "too_long"
    assert reason(film, MediaLimits(10**6, 10, 49)) == "too_long"


def claim(film: Path, table: bytes, offset: int, number: int) -> None:
    content = bytearray(film.read_bytes())
    at = content.index(table) + offset
    content[at : at + 4] = number.to_bytes(4, "big")
    film.write_bytes(content)


@pytest.mark.parametrize(
    ("container", "table", "offset"),
    [({}, b"stsz", 12), ({"movflags": "frag_keyframe+empty_moov"}, b"trun", 8)],
)
def test_an_index_that_claims_millions_of_samples_is_refused_unread(
    container: dict[str, str], table: bytes, offset: int, tmp_path: Path
) -> None:
    film = make_film(tmp_path / "film.mp4", frames=5, container=container)
    claim(film, table, offset, 60_000_000)
    assert reason(film) == "too_long"


def test_chunks_that_claim_millions_of_samples_are_refused(film: Path) -> None:
    claim(film, b"stsc", 16, 2**32 - 1)
    claim(film, b"stco", 8, 1000)
    assert reason(film) == "too_long"


def test_a_claim_is_seen_wherever_it_hides(film: Path) -> None:
    for name in (b"wide", b"uuid", b"xxxx"):
        hidden = b"stsz" + bytes(8) + b"\xff" * 4
        film.write_bytes(film.read_bytes() + atom(name, hidden))
        assert reason(film) == "too_long"


def test_a_compressed_index_is_refused(film: Path) -> None:
    film.write_bytes(film.read_bytes() + atom(b"moov", atom(b"cmov", bytes(40))))
    assert reason(film) == "not_a_video"


def test_small_claims_add_up(film: Path) -> None:
    piece = atom(b"moof", b"trun" + bytes(4) + (100_000).to_bytes(4, "big"))
    film.write_bytes(film.read_bytes() + piece * 41)
    assert reason(film) == "too_long"


def test_an_index_of_very_many_tables_is_refused(film: Path) -> None:
    film.write_bytes(film.read_bytes() + atom(b"uuid", b"stsc" * 5000))
    assert reason(film) == "not_a_video"


def test_a_film_that_pretends_to_be_another_format_is_read_as_what_it_begins_with(
    film: Path,
) -> None:
    film.write_bytes(b"\x1a\x45\xdf\xa3" + film.read_bytes())
    assert reason(film) == "not_a_video"
