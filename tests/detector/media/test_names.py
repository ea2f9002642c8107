"""Where names stand in an MP4: all are found, pictures are not looked at, and it is never long."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest

from detector_service.errors import MediaError
from detector_service.media.names import MOST_BOXES, MOST_BYTES, Names

HEADER = 8


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + HEADER, name) + content


def names(path: Path, content: bytes, size: int | None = None) -> Names:
    with path.open("wb+") as file:
        file.write(content)
        file.truncate(size)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return Names(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


@pytest.mark.parametrize("before", range(5))
def test_a_name_is_found_at_every_place(before: int, path: Path) -> None:
    content = b"x" * before + b"stsz" + b"x" * 2**20 + b"stsz" + b"xstsz"
    at = [HEADER + before, HEADER + before + 4 + 2**20, HEADER + before + 4 + 2**20 + 5]
    found = names(path, box(b"uuid", content))
    assert found.places(b"stsz", 0, 2**30) == at
    assert found.places(b"stsz", at[1], at[2] + 4) == at[1:]
    assert found.places(b"stsz", at[0] + 1, at[2] + 3) == [at[1]]
    assert found.places(b"stts", 0, 2**30) == []


@pytest.mark.parametrize("kind", [b"mdat", b"free", b"skip"])
def test_pictures_and_free_room_are_passed_over_and_places_are_the_files(
    kind: bytes, path: Path
) -> None:
    passed = box(kind, b"stsz" * 99)
    content = box(b"moof", b"trun") + passed + box(b"moof", b"trun")
    found = names(path, content)
    assert found.places(b"trun", 0, 2**30) == [HEADER, 2 * HEADER + 4 + len(passed)]
    assert found.places(b"stsz", 0, 2**30) == []


def test_two_halves_around_a_picture_are_no_name(path: Path) -> None:
    after = b"sz\0\0xxxx"  # a box that says it is larger than the file
    whole = box(b"uuid", b"st") + box(b"mdat", b"x") + after
    assert names(path, whole).indexes[1] == (len(whole) - HEADER, len(whole))
    assert names(path, whole).places(b"stsz", 0, 2**30) == []


def test_a_movie_in_free_room_is_seen(path: Path) -> None:
    movie = box(b"free", box(b"mvhd", b"stsz"))
    assert names(path, movie).places(b"stsz", 0, 2**30) == [2 * HEADER]


@pytest.mark.parametrize("kind", [b"mdat", b"free", bytes(4)])
def test_a_gigabyte_of_pictures_or_of_room_is_no_index(kind: bytes, path: Path) -> None:
    content = box(b"moov", b"stsz") + struct.pack(">I4s", 0, kind)
    assert names(path, content, 2**30).places(b"stsz", 0, 2**30) == [HEADER]


def test_an_index_of_very_many_bytes_or_boxes_is_refused(path: Path) -> None:
    for content, size in (
        (struct.pack(">I4s", 0, b"uuid"), MOST_BYTES + 1),
        (box(b"free", b"") * (MOST_BOXES + 1), None),
        (box(b"mdat", b"") * (MOST_BOXES + 1), None),
        (box(b"moof", b"trun" * (MOST_BOXES + 1)), None),
    ):
        with pytest.raises(MediaError, match="save it anew") as told:
            names(path, content, size)
        assert told.value.reason == "not_a_video"
    assert names(path, box(b"free", b"") * MOST_BOXES).indexes == []
