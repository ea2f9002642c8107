"""A Prometheus and an Alertmanager in one small server, whose answers a test scripts.

A test sets `answer`, a function of the query, so that what is measured can depend on what the
controller did to the target: the loop is closed. Formats as the real ones (docs/alertmanager.md).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass(frozen=True)
class Raw:
    """An answer as it goes out, for what a healthy Prometheus would not say."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Scalar:
    """A number that is not a vector."""

    value: float


HANG = object()
EMPTY = object()
CUT = object()
Answer = Callable[[str], Any]


@dataclass
class Facts:
    """What the two say.

    Attributes:
        answer: a query's value: a number, EMPTY, Scalar, Raw, HANG or CUT.
        active: what Alertmanager lists, as `/api/v2/alerts` spells it; None = it is broken.
        silences: what it lists as `/api/v2/silences`.
        polls: how often Alertmanager was asked.
        asked: every query, in order.
    """

    url: str
    answer: Answer = field(default=lambda _query: EMPTY)
    active: list[dict[str, Any]] | None = field(default_factory=list)
    silences: list[dict[str, Any]] = field(default_factory=list)
    polls: int = 0
    asked: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def reply(self, path: str, form: dict[str, str]) -> Raw | None:
        """Answer one request of Prometheus' query API; None hangs up."""
        query = form.get("query", "")
        if not query:
            return None  # whoever asked was killed in the middle of the question
        self.asked.append(query)
        value = self.answer(query)
        if value is HANG:
            self.closing.wait(60)
        if value is HANG or value is CUT:
            return None
        if isinstance(value, Raw):
            return value
        kind = "vector"
        result: list[Any] = []
        if path.endswith("query_range"):
            kind, result = "matrix", _series(value, form)
        elif isinstance(value, Scalar):
            kind, result = "scalar", [time.time(), str(value.value)]
        elif value is not EMPTY:
            result = [{"metric": {}, "value": [time.time(), _spelled(value)]}]
        body = {"status": "success", "data": {"resultType": kind, "result": result}}
        return Raw(200, json.dumps(body).encode())


def _series(value: Any, form: dict[str, str]) -> list[dict[str, Any]]:
    if not isinstance(value, int | float):
        return []
    start, end, step = (float(form[name]) for name in ("start", "end", "step"))
    points = int((end - start) / step) + 1
    values = [[start + n * step, _spelled(value)] for n in range(points)]
    return [{"metric": {}, "values": values}]


def _spelled(value: float) -> str:
    return "NaN" if value != value else str(value)  # noqa: PLR0124 - NaN differs from itself


def broken(status: int, kind: str, error: str) -> Raw:
    """Return a refusal as Prometheus words it."""
    body = {"status": "error", "errorType": kind, "error": error}
    return Raw(status, json.dumps(body).encode())


class _Requests(BaseHTTPRequestHandler):
    facts: Facts

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        form = parse_qs(self.rfile.read(length).decode())
        self._send(self.facts.reply(self.path, {name: v[-1] for name, v in form.items()}))

    def do_GET(self) -> None:
        if "/silences" in self.path:
            self._send(Raw(200, json.dumps(self.facts.silences).encode()))
            return
        self.facts.polls += 1
        listed = self.facts.active
        self._send(Raw(503 if listed is None else 200, json.dumps(listed).encode()))

    def _send(self, answer: Raw | None) -> None:
        if answer is None:
            self.close_connection = True
            return
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except OSError:
            self.close_connection = True  # whoever asked was killed meanwhile

    def log_message(self, *_: object) -> None:
        """Say nothing: pytest shows what matters."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def facts() -> Iterator[Facts]:
    """Serve on a free port until the block ends."""
    server = _Server(("127.0.0.1", 0), _Requests)
    served = Facts(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("_Bound", (_Requests,), {"facts": served})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        served.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
