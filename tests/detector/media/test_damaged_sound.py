"""Damaged sound in a joined film: what reaches a player decodes there, whatever it was before."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import av
import pytest

from detector_service.media import join
from detector_service.media.sound import STRICT
from tests.browser import NAMES, chromium
from tests.detector.films import make_film

KINDS = [("aac", "mp4"), ("aac", "ts"), ("libmp3lame", "mkv"), ("flac", "mkv")]
PLAY = """async (source) => {
    const video = document.createElement('video');
    document.body.append(video);
    const over = new Promise((done) => {
        video.addEventListener('ended', () => done('ended'));
        video.addEventListener('error', () => done(video.error.message));
    });
    video.src = source;
    video.play().catch(() => null);
    return {over: await over, sound: video.webkitAudioDecodedByteCount};
}"""


def film_with_sound(folder: Path, codec: str, suffix: str) -> Path:
    return make_film(folder / f"{codec}.{suffix}", sound=codec, options={"bf": "0"})


def damage(film: Path, flips: int = 20) -> Path:
    """Flip bits near the head of packets of the sound."""
    random, content = Random(1), bytearray(film.read_bytes())
    with av.open(str(film)) as opened:
        packets = opened.demux(opened.streams.audio[0])
        heads = [packet.pos for packet in packets if packet.size and packet.pos is not None]
    for _ in range(flips):
        content[random.choice(heads) + random.randrange(40)] ^= 1 << random.randrange(8)
    film.write_bytes(content)
    return film


def joined(folder: Path, source: Path) -> Path:
    segment, out = make_film(folder / "segment.mp4", options={"bf": "0"}), folder / "out.mp4"
    assert join([segment], source, out)
    return out


def blocks(film: Path) -> tuple[str, list[bytes]]:
    """Return the codec of a film's sound and its packets, all of which decode."""
    with av.open(str(film)) as opened:
        track = opened.streams.audio[0]
        track.codec_context.options = STRICT
        packets = list(opened.demux(track))
        assert sum(len(track.decode(packet)) for packet in packets) > 0
        return track.codec_context.codec.canonical_name, [bytes(packet) for packet in packets]


@pytest.mark.parametrize(("codec", "suffix"), KINDS)
def test_a_damaged_track_is_encoded_anew_and_all_of_it_decodes(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    source = damage(film_with_sound(tmp_path, codec, suffix))
    assert blocks(joined(tmp_path, source))[0] == "aac"


@pytest.mark.parametrize(("codec", "suffix"), [KINDS[0], *KINDS[2:]])
def test_a_sane_track_is_copied(codec: str, suffix: str, tmp_path: Path) -> None:
    source = film_with_sound(tmp_path, codec, suffix)
    (name, told), (kept, copied) = blocks(source), blocks(joined(tmp_path, source))
    assert kept == name
    assert copied[:-1] == told[: len(copied) - 1]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.real
@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize(("codec", "suffix"), KINDS)
async def test_a_film_with_damaged_sound_plays_to_its_end_in_a_browser(
    codec: str, suffix: str, tmp_path: Path, address: str, daemon: Callable[..., str]
) -> None:
    joined(tmp_path, damage(film_with_sound(tmp_path, codec, suffix)))
    async with chromium(daemon(*NAMES)) as browser:
        page = await browser.new_page()
        await page.goto(address)
        played = await page.evaluate(PLAY, f"{address}out.mp4")
    assert played["over"] == "ended"
    assert played["sound"] > 0
