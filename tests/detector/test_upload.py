"""Bodies to files: raw and as a form, whole or not at all, and what stalls, lies or leaves."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from detector_service.errors import MediaError, RefusedError, StateWriteError
from detector_service.routes import upload
from detector_service.routes.upload import receive, require_room
from detector_service.routes.wire import (
    answer_refused,
    answer_unwritable,
    json_answer,
    media_refusal,
)

FILM = bytes(range(256)) * 5000
MOST = 2 * len(FILM)
FORM = {"content-type": "multipart/form-data; boundary=cut"}


def client(folder: Path, most: int = MOST) -> httpx.AsyncClient:
    """Return a client of an app that takes one film to ``folder/film``."""
    app = FastAPI()
    app.add_exception_handler(RefusedError, answer_refused)
    app.add_exception_handler(StateWriteError, answer_unwritable)

    @app.post("/")
    async def post(request: Request) -> Response:
        try:
            require_room(request, most)
            arrived = await receive(request, folder / "film", most)
        except MediaError as exc:
            raise media_refusal(exc) from exc
        except ClientDisconnect:
            return Response(status_code=499)
        return json_answer({"size": arrived.size, "sha256": arrived.sha256})

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://upload.test")


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def read(folder: Path) -> bytes:
    return (folder / "film").read_bytes()


def form(*parts: tuple[str, bytes]) -> bytes:
    head = '--cut\r\nContent-Disposition: form-data; name="{}"; filename="../../x"\r\n\r\n'
    pieces = [head.format(name).encode() + body + b"\r\n" for name, body in parts]
    return b"".join(pieces) + b"--cut--\r\n"


async def pieces_of(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("length", [0, 1, 2**20 - 1, 2**20, 2**20 + 1])
async def test_a_raw_body_is_the_film(tmp_path: Path, length: int) -> None:
    body = FILM[:length]
    async with client(tmp_path) as http:
        answer = await http.post("/", content=body)
    assert answer.json() == {"size": len(body), "sha256": sha256(body).hexdigest()}
    assert read(tmp_path) == body


@pytest.mark.parametrize("size", [7, 1000, 10**9])
async def test_the_file_of_a_form_is_the_film_however_it_is_cut(tmp_path: Path, size: int) -> None:
    film = FILM[:20_000] + b"\r\n--cu\r\n--cut" + FILM[:100]  # almost boundaries, inside the film
    film = film.replace(b"\r\n--cut", b"\r\n--cux")
    async with client(tmp_path) as http:
        body = pieces_of(form(("file", film)), size)
        answer = await http.post("/", content=body, headers=FORM)
    assert answer.json() == {"size": len(film), "sha256": sha256(film).hexdigest()}
    assert read(tmp_path) == film
    assert left_in(tmp_path) == ["film"]


async def test_a_form_as_clients_make_it_is_understood(tmp_path: Path) -> None:
    async with client(tmp_path) as http:
        answer = await http.post("/", files={"file": ("my film.mp4", FILM, "video/mp4")})
    assert answer.json()["size"] == len(FILM)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"hello",
        form(),
        form(("image", FILM[:10])),
        form(("file", b"a"), ("file", b"b")),
        form(("file", b"a"), ("conf", b"0.5")),
        form(("file", FILM[:1000]))[:-9],
        form(("file", FILM[:1000]))[:500],
        b"--cut\r\nContent-Type: video/mp4\r\n\r\nabc\r\n--cut--\r\n",
        b"--cut\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\nabc\r\n--cut--\r\n",
        b"--cut\r\nbad header\r\n\r\nabc\r\n--cut--\r\n",
    ],
)
async def test_a_form_that_is_torn_or_has_anything_else_is_refused(
    tmp_path: Path, body: bytes
) -> None:
    async with client(tmp_path) as http:
        answer = await http.post("/", content=body, headers=FORM)
    assert (answer.status_code, answer.json()["reason"]) == (422, "multipart")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * 300])
async def test_a_form_without_a_sane_boundary_is_refused(tmp_path: Path, boundary: str) -> None:
    headers = {"content-type": f"multipart/form-data{boundary}"}
    async with client(tmp_path) as http:
        answer = await http.post("/", content=form(("file", b"a")), headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (422, "multipart")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (lambda: bytes(MOST + 1), {}),
        (lambda: pieces_of(bytes(MOST + 1), 65536), {}),
        (lambda: pieces_of(form(("file", bytes(MOST + 1))), 65536), FORM),
        (lambda: pieces_of(form(("file", bytes(2 * MOST))), 65536), FORM),
        (lambda: pieces_of(bytes(2 * MOST), 65536), FORM),
    ],
)
async def test_more_than_is_allowed_is_refused_by_its_header_and_while_it_arrives(
    tmp_path: Path, body: Callable[[], Any], headers: dict[str, str]
) -> None:
    async with client(tmp_path) as http:
        answer = await http.post("/", content=body(), headers=headers)
    refused = (answer.status_code, answer.json()["reason"])
    assert refused in {(413, "too_large"), (422, "multipart")}
    assert left_in(tmp_path) == []


async def test_exactly_what_is_allowed_is_taken_also_in_a_form(tmp_path: Path) -> None:
    async with client(tmp_path) as http:
        raw = await http.post("/", content=bytes(MOST))
        formed = await http.post("/", files={"file": ("a", bytes(MOST))})
    assert raw.json() == formed.json()


async def stalling() -> AsyncIterator[bytes]:
    yield b"some"
    await asyncio.Event().wait()


async def trickling() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("body", [stalling, trickling])
async def test_a_sender_that_stalls_or_trickles_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Callable[[], AsyncIterator[bytes]]
) -> None:
    monkeypatch.setattr(upload, "IDLE_S", 0.1)
    async with client(tmp_path) as http:
        answer = await http.post("/", content=body())
    assert (answer.status_code, answer.json()["reason"]) == (408, "too_slow")
    assert re.search(r"after \d+ bytes", answer.json()["error"])
    assert left_in(tmp_path) == []


async def test_a_sender_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": FILM, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def heard() -> dict[str, Any]:
        return next(messages)

    request = Request({"type": "http", "headers": []}, heard)
    with pytest.raises(ClientDisconnect):
        await receive(request, tmp_path / "film", MOST)
    assert left_in(tmp_path) == []


async def test_a_folder_that_is_gone_is_told_and_not_a_crash(tmp_path: Path) -> None:
    async with client(tmp_path / "gone") as http:
        answer = await http.post("/", content=FILM)
    assert (answer.status_code, answer.json()["reason"]) == (503, "state_unwritable")


async def test_a_film_of_any_size_takes_the_memory_of_a_few_blocks(tmp_path: Path) -> None:
    size = 48 * 2**20

    async def body() -> AsyncIterator[bytes]:
        yield b'--cut\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(size // 2**16):
            yield bytes(2**16)
        yield b"\r\n--cut--\r\n"

    async with client(tmp_path, most=size) as http:
        tracemalloc.start()
        try:
            answer = await http.post("/", content=body(), headers=FORM)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answer.json()["size"] == size
    assert peak < 8 * 2**20
