"""A small real HTTP server on loopback that can answer, hang, reset or die in the middle.

Used by the contract suite and by the tests of the Prometheus clients. The surprise: it keeps what
it received in `seen`, because "sent once" is half of what the adapters promise.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exchange:
    """What a behaviour has to work with."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client_left: asyncio.Event


Behaviour = Callable[[Exchange], Awaitable[None]]


def answer(status: int = 200, body: Any = b"", **headers: str) -> Behaviour:
    """Answer with this status and body (bytes, or anything JSON can say)."""

    async def behave(exchange: Exchange) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange.writer.write(_head(status, len(raw), headers) + raw)

    return behave


def cut(status: int = 200) -> Behaviour:
    """Promise a hundred bytes, write ten and close."""

    async def behave(exchange: Exchange) -> None:
        exchange.writer.write(_head(status, 100, {}) + b"0123456789")

    return behave


def flood(size: int) -> Behaviour:
    """Answer 200 with more bytes than anybody wants."""

    async def behave(exchange: Exchange) -> None:
        exchange.writer.write(_head(200, size, {}) + b" " * size)

    return behave


async def hang(exchange: Exchange) -> None:
    """Never answer; notice when the client leaves."""
    await exchange.reader.read()
    exchange.client_left.set()


async def hang_mid_body(exchange: Exchange) -> None:
    """Answer 200, write ten of a hundred bytes and stall."""
    exchange.writer.write(_head(200, 100, {}) + b"0123456789")
    await hang(exchange)


async def hang_up(exchange: Exchange) -> None:
    """Close politely without a word."""


async def reset(exchange: Exchange) -> None:
    """Close with a RST."""
    connection = exchange.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _head(status: int, length: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Whatever"


@dataclass
class LocalServer:
    """A running server; `behaviour` may be replaced between calls."""

    behaviour: Behaviour
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    client_left: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._open.add(me)
        try:
            seen = await _receive(reader)
            if seen is not None:
                self.seen.append(seen)
                self.arrived.set()
                await self.behaviour(Exchange(seen, reader, writer, self.client_left))
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            self._open.discard(me)

    async def stop(self) -> None:
        for connection in list(self._open):
            connection.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


async def _receive(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in rest)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, body)


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[LocalServer]:
    """Run a server with this behaviour on a free loopback port."""
    local = LocalServer(behaviour)
    server = await asyncio.start_server(local.serve, "127.0.0.1", 0)
    local.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield local
    finally:
        server.close()
        await local.stop()
        await server.wait_closed()


@contextmanager
def closed_port() -> Iterator[str]:
    """Give a URL that refuses connections: bound, so nobody else takes it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def deaf_port() -> Iterator[str]:
    """Give a URL whose connections never come about: its queue of waiting connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        try:
            for _ in range(4):
                caller = socket.socket()
                caller.settimeout(0)
                waiting.append(caller)
                caller.connect_ex(address)
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for caller in waiting:
                caller.close()
