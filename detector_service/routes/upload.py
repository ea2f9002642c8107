"""The body of a request to a file: raw or a form, in constant memory; used by ``videos``.

Surprise: a form is parsed as it arrives and its file goes straight to its place. The usual way
would first put the whole film into the system's folder for temporary files, which is often memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from detector_service.errors import RefusedError
from detector_service.jobs.incoming import Arrived, Incoming, too_large
from detector_service.routes.wire import require_length

FORM_BYTES: Final = 64 * 1024  # of a form round its file: boundaries, headers
HEADER_BYTES: Final = 4096  # of one header in a form
IDLE_S: Final = 60.0
LEAST_BYTES_PER_S: Final = 4096  # on the whole, after the first IDLE_S

Body = AsyncIterator[bytes]


def is_form(request: Request) -> bool:
    """Say whether the body is a form."""
    return media_type(request) == "multipart/form-data"


def media_type(request: Request) -> str:
    """Return the content type without its parameters, lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_room(request: Request, max_bytes: int) -> None:
    """Refuse by ``Content-Length``, before anything is read.

    Raises:
        RefusedError: 413 ``too_large``.
    """
    require_length(request, max_bytes + (FORM_BYTES if is_form(request) else 0))


async def receive(request: Request, path: Path, max_bytes: int) -> Arrived:
    """Write the film in the body to ``path``, synced; if that fails, nothing stays there.

    Raises:
        RefusedError: 408 ``too_slow``, 422 ``multipart``.
        MediaError: ``too_large``.
        StateWriteError: the disk is full or fails.
        ClientDisconnect: the client left.
    """
    body = paced(request)
    if is_form(request):
        body = file_of(request.headers["content-type"], body, max_bytes)
    async with Incoming(path, max_bytes) as incoming:
        async for data in body:
            await incoming.add(data)
        return await incoming.finish()


async def paced(request: Request) -> Body:
    """Yield the body, as long as it keeps coming.

    Raises:
        RefusedError: 408 ``too_slow``: not a byte for ``IDLE_S``, or a trickle.
    """
    stream = request.stream()
    began, received = time.monotonic(), 0
    while True:
        left = began + IDLE_S + received / LEAST_BYTES_PER_S - time.monotonic()
        try:
            async with asyncio.timeout(min(IDLE_S, left)):
                data = await anext(stream, None)
        except TimeoutError as exc:
            words = f"the film stopped arriving after {received} bytes; send it again, or faster"
            raise RefusedError(408, "too_slow", words) from exc
        if data is None:
            return
        received += len(data)
        yield data


async def file_of(content_type: str, body: Body, max_bytes: int) -> Body:
    """Yield the bytes of the file in a form.

    Raises:
        RefusedError: 422 ``multipart``: it is torn, or not one file in the field ``file``.
        MediaError: ``too_large``, with all that is round the file.
    """
    form, received = _Form(content_type), 0
    async for data in body:
        received += len(data)
        if received > max_bytes + FORM_BYTES:
            raise too_large(max_bytes)
        yield form.feed(data)
    form.require_whole()


class _Form:
    """Finds the one file in a form that arrives in pieces."""

    def __init__(self, content_type: str) -> None:
        _kind, options = parse_options_header(content_type)
        self._name, self._value, self._disposition = b"", b"", b""
        self._pieces: list[bytes] = []
        self._files = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_header_field": self._on_name,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_part,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as exc:
            raise _torn(f"the form cannot be read: {exc}") from exc
        if not options.get(b"boundary"):
            raise _torn("the form names no boundary in its Content-Type")

    def feed(self, data: bytes) -> bytes:
        """Return what of the file is in the next piece of the form."""
        self._pieces = []
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise _torn(f"the form cannot be read: {exc}") from exc
        return b"".join(self._pieces)

    def require_whole(self) -> None:
        """Refuse a form that ended too early."""
        if not self._ended:
            raise _torn("the form ends before its last boundary")
        if not self._files:
            raise _torn("the form has no file in its field 'file'")

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name = (self._name + data[start:end])[:HEADER_BYTES]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > HEADER_BYTES:
            raise _torn(f"the form has a header of more than {HEADER_BYTES} bytes")

    def _on_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = b"", b""

    def _on_part(self) -> None:
        _kind, options = parse_options_header(self._disposition)
        self._disposition = b""
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != "file" or self._files:
            raise _torn(
                f"the form may have one file, in its field 'file', and nothing else; got {name!r}"
                " (options go into the query)"
            )
        self._files = 1

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def _on_end(self) -> None:
        self._ended = True


def _torn(words: str) -> RefusedError:
    return RefusedError(422, "multipart", words)
