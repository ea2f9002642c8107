"""The controller as a process of its own: over a real socket, on a disk that is really full."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.api.edge import WEBHOOK, a_payload, an_alert

pytestmark = pytest.mark.real

LIMIT = 200_000


def until(true: Callable[[], bool], what: str, within_s: float = 30) -> None:
    """Ask until it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@dataclass(frozen=True)
class Served:
    """A running controller."""

    pid: int
    port: int
    journal: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, body: bytes) -> httpx.Response:
        return httpx.post(self.url + WEBHOOK, content=body, timeout=30)

    def stored(self) -> tuple[int, int]:
        """Return how many deliveries and alerts are in the file, read past the controller."""
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True)) as beside:
            one = beside.execute("SELECT count(*) FROM deliveries").fetchone()[0]
            two = beside.execute("SELECT count(*) FROM alerts").fetchone()[0]
        return one, two

    def room(self, size: int) -> None:
        """Let no file that it writes grow beyond `size` bytes."""
        hard = resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))


def a_free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    port = a_free_port()
    config = tmp_path / "remediator.yaml"
    (tmp_path / "playbooks").mkdir()
    config.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f"database: sqlite:///{tmp_path / 'journal.db'}\n"
        f"playbooks: {tmp_path / 'playbooks'}\n"
        f"alertmanager: [http://127.0.0.1:9]\n"
        f"webhook_limit_bytes: {LIMIT}\n"
        f"tick_s: 60\n"
    )
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "remediator", "serve", "--config", str(config)],
            stderr=stream,
        )
    one = Served(pid=process.pid, port=port, journal=tmp_path / "journal.db", log=log)
    try:
        until(lambda: alive(one), "it does not answer")
        yield one
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait(10)
    assert "Traceback" not in log.read_text()


def alive(one: Served) -> bool:
    try:
        return httpx.get(one.url + "/livez", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def large(tag: str) -> bytes:
    alerts = [an_alert(f"{tag}-{i}", padding="x" * 400) for i in range(200)]
    return json.dumps(a_payload(*alerts)).encode()


def test_a_full_disk_refuses_loses_nothing_by_halves_and_heals(served: Served) -> None:
    small = json.dumps(a_payload(an_alert())).encode()
    assert served.post(small).status_code == 200
    before = served.stored()
    wal = served.journal.with_name("journal.db-wal")
    served.room(max(wal.stat().st_size, served.journal.stat().st_size) + 8192)
    refused = served.post(large("full"))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert served.stored() == before
    assert httpx.get(served.url + "/api/v1/alerts").status_code == 200
    served.room(resource.RLIM_INFINITY)
    assert served.post(large("full")).status_code == 200
    assert served.stored() == (before[0] + 1, before[1] + 200)


def a_head(header: str) -> bytes:
    return f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()


def raw(served: Served, *parts: bytes) -> bytes:
    """Send bytes as they are; return what came back until the other side closed."""
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=20)) as line:
        try:
            for part in parts:
                line.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and (more := line.recv(4096)):
                answer += more
        except ConnectionResetError:
            pass
        return answer


def test_a_body_over_the_limit_is_refused_before_it_is_sent(served: Served) -> None:
    assert raw(served, a_head(f"Content-Length: {LIMIT + 1}")).startswith(b"HTTP/1.1 413")
    assert served.stored() == (0, 0)


def test_a_chunked_body_is_cut_off_at_the_limit(served: Served) -> None:
    head = (
        f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert raw(served, head, *[chunk] * 8).startswith(b"HTTP/1.1 413")
    assert served.stored() == (0, 0)


def test_a_caller_that_dies_in_the_middle_stores_nothing(served: Served) -> None:
    body = json.dumps(a_payload(an_alert())).encode()
    head = a_head(f"Content-Length: {len(body)}")
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=20)) as line:
        line.sendall(head + body[:100])
    counted = 'remediator_webhooks_total{outcome="incomplete"} 1.0'
    until(lambda: counted in httpx.get(served.url + "/metrics").text, "it was not counted")
    assert served.stored() == (0, 0)
    assert served.post(body).status_code == 200


def test_five_hundred_connections_at_once_are_all_served(served: Served) -> None:
    """What an Alertmanager does with five hundred groups."""
    for index in range(3):
        assert served.post(large(f"warm-{index}")).status_code == 200
    bodies = [json.dumps(a_payload(an_alert(f"g{i}"))).encode() for i in range(500)]
    lines = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in bodies]
    try:
        for line, body in zip(lines, bodies, strict=True):
            head = (
                f"POST {WEBHOOK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            line.sendall(head.encode() + body)
        answers = {line.recv(4096).partition(b"\r\n")[0] for line in lines}
    finally:
        for line in lines:
            line.close()
    assert answers == {b"HTTP/1.1 200 OK"}
    assert served.stored() == (503, 1100)


def test_what_was_acknowledged_survives_a_kill(served: Served) -> None:
    assert served.post(large("kept")).status_code == 200
    os.kill(served.pid, signal.SIGKILL)
    until(lambda: not alive(served), "it is still there")
    assert served.stored() == (1, 200)
