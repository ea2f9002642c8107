"""Films of many packets and hardly a frame: given up soon, and left when nobody waits for them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from detector_service.errors import MediaError
from detector_service.media import Reader, probe
from detector_service.media.decoder import SILENT
from tests.detector.films import LIMITS, make_film

CLUSTER, BLOCK = b"\x1f\x43\xb6\x75", b"\xa3"  # Matroska's names (RFC 9559, 5.1.3)
SLICE = struct.pack(">I", 2) + b"\x41\x00"  # an H.264 slice that ends before it begins


def flood(path: Path, count: int, *, track: int = 1, payload: bytes = SLICE) -> Path:
    """Write a film whose ``count`` tiny blocks lie before its frames, or behind its 10 frames."""
    live = {"live": "1", "cluster_time_limit": "100000"}
    whole = make_film(path, frames=10, sound="aac", container=live).read_bytes()
    start = whole.index(CLUSTER)
    block = BLOCK + bytes([0x80 + 4 + len(payload), 0x80 + track, 0, 0, 0]) + payload
    body = b"\xe7\x84" + struct.pack(">I", 0 if path.stem == "before" else 10_000) + block * count
    tide = CLUSTER + (len(body) | 1 << 28).to_bytes(4, "big") + body
    path.write_bytes(
        whole[:start] + tide + whole[start:] if path.stem == "before" else whole + tide
    )
    return path


class Left(Exception):  # noqa: N818 - no error: a caller who does not wait any longer
    pass


def leaving_at(count: int) -> Callable[[], None]:
    calls: list[None] = []

    def on_packet() -> None:
        calls.append(None)
        if len(calls) >= count:
            raise Left

    return on_packet


def test_a_film_of_packets_without_frames_is_given_up(tmp_path: Path) -> None:
    film = flood(tmp_path / "before.mkv", 5 * SILENT)
    calls: list[None] = []
    with pytest.raises(MediaError, match="packets in a row hold no frame") as told:
        probe(film, LIMITS, on_packet=lambda: calls.append(None))
    assert told.value.reason == "undecodable"
    assert len(calls) < 2 * SILENT


def test_one_that_begins_well_ends_there(tmp_path: Path) -> None:
    film = flood(tmp_path / "behind.mkv", 5 * SILENT)
    with Reader(film, probe(film, LIMITS), LIMITS, pixels=lambda *_: False) as reader:
        assert [frame.index for frame in reader] == list(range(10))
        assert SILENT <= reader.decode_errors < 2 * SILENT


def test_a_stretch_without_frames_is_passed_over(tmp_path: Path) -> None:
    film = flood(tmp_path / "before.mkv", SILENT // 2)
    with Reader(film, probe(film, LIMITS), LIMITS, pixels=lambda *_: False) as reader:
        assert len(list(reader)) == 10
        assert reader.decode_errors >= SILENT // 2


def test_who_waits_for_the_first_frame_can_leave_at_any_packet(tmp_path: Path) -> None:
    film = flood(tmp_path / "before.mkv", SILENT // 2)
    for count in (1, 2, 3, 50, SILENT // 3):
        with pytest.raises(Left):
            probe(film, LIMITS, on_packet=leaving_at(count))


def test_who_reads_can_leave_inside_damage(tmp_path: Path) -> None:
    film = flood(tmp_path / "behind.mkv", SILENT // 2)
    leaving = leaving_at(SILENT // 3)
    with Reader(
        film, probe(film, LIMITS), LIMITS, pixels=lambda *_: False, on_packet=leaving
    ) as reader:
        assert next(reader).index == 0
        with pytest.raises(Left):
            list(reader)


def test_who_waits_can_leave_while_packets_of_the_sound_are_passed_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    film = flood(tmp_path / "before.mkv", 200_000, track=2, payload=b"\x21")
    calls: list[None] = []
    probe(film, LIMITS, on_packet=lambda: calls.append(None))
    for count in (3, len(calls) // 2):
        with pytest.raises(Left):
            probe(film, LIMITS, on_packet=leaving_at(count))
    assert capfd.readouterr().err == ""
