"""The command line as a person types it, and a controller that really listens."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from remediator import app as root
from remediator import cli
from remediator.settings import Settings
from remediator.store.database import Body, Database

PLAYBOOK = """\
apiVersion: remediator/v1
name: throttle-slow-detector
on: {alerts: ['alertname="DetectorSlow"']}
target: ${{ alert.labels.instance }}
steps:
  - notify: {message: it is slow}
"""


@dataclass(frozen=True)
class Said:
    """What one command answered."""

    code: int
    out: str
    err: str


Type = Callable[..., Said]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Run the command line in this process and return what it said."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("REMEDIATOR_URL", "REMEDIATOR_API_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["remediator", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        read = capsys.readouterr()
        code = end.value.code
        return Said(
            code=code if isinstance(code, int) else int(bool(code)), out=read.out, err=read.err
        )

    return run


@dataclass(frozen=True)
class Listening:
    """A controller that serves on a port of its own."""

    url: str
    db: Database

    def write(self, body: Body[..., int]) -> int:
        """Change its journal from beside, as another replica would."""
        return int(self.db.transact(body))


def serve(app: FastAPI) -> tuple[str, Callable[[], None]]:
    """Serve `app` from a thread; return its address and what ends it."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline, "the controller did not start to listen"
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def end() -> None:
        server.should_exit = True
        thread.join(30)

    return f"http://127.0.0.1:{port}", end


@contextmanager
def a_controller(tmp_path: Path) -> Iterator[Listening]:
    """Serve a controller whose journal lies in this folder."""
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "throttle.yaml").write_text(PLAYBOOK)
    settings = Settings(
        database=f"sqlite:///{tmp_path / 'journal.db'}",
        playbooks=folder,
        alertmanager=["http://127.0.0.1:9"],
        prometheus="http://127.0.0.1:9",
        tick_s=60,
    )
    with (tmp_path / "controller.log").open("w") as log:
        # It runs in this process, and must not write between the lines of the command line.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        url, end = serve(root.build(settings))
        beside = Database(settings.database)
        yield Listening(url=url, db=beside)
        beside.close()
        end()
        structlog.reset_defaults()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    """A controller with nothing on record."""
    with a_controller(tmp_path) as one:
        yield one
