"""A wire that can be cut: passes single HTTP exchanges on to a service, and misbehaves on request.

Between controller and target, and between controller and supervisord. `meddle` sees each request
before it is passed on and says what becomes of it; it may also kill the sender, which is how a
controller dies in the middle of a call. One exchange a connection, as the actuators do it.
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

Dial = Callable[[], socket.socket]
PATIENCE_S = 60.0


class Fate(Enum):
    """What becomes of one exchange."""

    PASS = "pass"
    HANG = "hang"  # nothing is passed on and nothing comes back
    CUT = "cut"  # reset before anything is passed on
    CUT_ANSWER = "cut answer"  # the service answers, and the answer is lost


@dataclass
class Relay:
    """One wire.

    Attributes:
        url: where to call.
        meddle: decides by the request's text.
        seen: the first line of every request, or the method of an XML-RPC call, in order.
    """

    url: str
    meddle: Callable[[str], Fate] = field(default=lambda _request: Fate.PASS)
    seen: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


def changes(request: str) -> str:
    """Return the verb of a request that changes the target, or an empty text."""
    first = request.partition("\r\n")[0]
    for mark, verb in (
        ("<methodName>supervisor.stopProcess", "stop"),
        ("<methodName>supervisor.startProcess", "start"),
    ):
        if mark in request:
            return verb
    for mark, verb in (
        ("PATCH /v1/settings", "set"),
        ("DELETE /v1/leases", "release"),
        ("POST /v1/drain", "drain"),
        ("DELETE /v1/drain", "undrain"),
        ("POST /v1/canary", "canary"),
    ):
        if first.startswith(mark):
            return verb
    return ""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64


@contextmanager
def relay(dial: Dial) -> Iterator[Relay]:
    """Listen on a free port and pass on to whatever `dial` reaches, until the block ends."""

    class Exchange(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                _exchange(self.request, wire, dial)

    server = _Server(("127.0.0.1", 0), Exchange)
    wire = Relay(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield wire
    finally:
        wire.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _exchange(caller: socket.socket, wire: Relay, dial: Dial) -> None:
    caller.settimeout(PATIENCE_S)
    request = _request(caller)
    text = request.decode("utf-8", "replace")
    wire.seen.append(changes(text) or text.partition("\r\n")[0])
    fate = wire.meddle(text)
    if fate is Fate.HANG:
        wire.closing.wait(PATIENCE_S)
    if fate in {Fate.HANG, Fate.CUT}:
        _reset(caller)
        return
    try:
        service = dial()
    except OSError:
        _reset(caller)
        return
    with service:
        service.settimeout(PATIENCE_S)
        service.sendall(request)
        while part := service.recv(65536):
            if fate is Fate.PASS:
                caller.sendall(part)
    if fate is Fate.CUT_ANSWER:
        _reset(caller)


def _request(caller: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(caller)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += _more(caller)
    return head + b"\r\n\r\n" + body


def _more(caller: socket.socket) -> bytes:
    part = caller.recv(65536)
    if not part:
        raise ConnectionResetError
    return part


def _reset(caller: socket.socket) -> None:
    # Lingering for no time makes the close a reset.
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()
