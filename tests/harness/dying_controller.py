"""`remediator serve` on a journal that kills the process at a chosen commit; see `nursery`.

It is built as the command builds it, but for the journal. With `--record` it writes the name of
every commit that changes something about a run, which is the list of places to die at. With
`--die "before NAME"` or `--die "after NAME"` the process gets SIGKILL there.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from remediator.app import build
from remediator.engine.moves import Send
from remediator.model.run import Run
from remediator.settings import load_settings
from remediator.store.database import Database, Tx
from remediator.store.steps import Intent
from remediator.telemetry import configure_logging

# The clock drives these, so their number means nothing; what they write is said again anyway.
BY_THE_CLOCK = {
    "runs.renew",
    "outbox.take_due",
    "outbox.told",
    "changes.take_renewals",
    "changes.renewed",
    "intake._observe",
    "alerts.review_again",
    "decisions.record",
    "admission.precheck",
    "admission._needs_decision",
}


def name_of(body: Callable[..., Any]) -> str:
    """Return what a transaction is called, such as `steps.begin`."""
    return f"{body.__module__.rpartition('.')[2]}.{body.__name__}"


def about(args: tuple[Any, ...], more: dict[str, Any], result: Any) -> str:
    """Return what tells it from others of its name: the run's kind, and the call or the role."""
    claimed = result if isinstance(result, list) else []
    kinds = [x.kind for x in (*args, *claimed) if isinstance(x, Run)]
    calls = [x.call for x in args if isinstance(x, Intent | Send)]
    words = [*kinds[:1], *calls, *([more["role"]] if "role" in more else [])]
    return ":".join(words)


class DyingDatabase(Database):
    """A journal that ends the process before or after the commit with a given name."""

    def __init__(self, url: str, *, die: str = "", record: Path | None = None) -> None:
        super().__init__(url)
        self._die = die
        self._record = record
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def transact(
        self, body: Callable[..., Any], *args: Any, writing: bool = True, **more: Any
    ) -> Any:
        """Run `body`, and die where it was asked to."""
        name = name_of(body)
        if not writing or name in BY_THE_CLOCK:
            return super().transact(body, *args, writing=writing, **more)
        place = ""

        def watched(tx: Tx, *inner: Any, **named: Any) -> Any:
            nonlocal place
            before = _changes(tx)
            result = body(tx, *inner, **named)
            if _changes(tx) != before:
                place = self._place(f"{name} {about(args, more, result)}".strip())
                self._reach(f"before {place}")
            return result

        result = super().transact(watched, *args, writing=writing, **more)
        if place:
            self._reach(f"after {place}")
            if self._record is not None:
                with self._record.open("a") as told:
                    told.write(f"{place}\n")
        return result

    def _place(self, name: str) -> str:
        with self._lock:
            self._seen[name] += 1
            return f"{name} {self._seen[name]}"

    def _reach(self, here: str) -> None:
        if here == self._die:
            os.kill(os.getpid(), signal.SIGKILL)


def _changes(tx: Tx) -> int:
    driver: Any = tx.conn.connection.driver_connection
    return int(driver.total_changes)


def main(argv: list[str]) -> None:
    """Serve until told to end, or until it dies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--die", default="")
    parser.add_argument("--record", type=Path)
    told = parser.parse_args(argv)
    settings = load_settings(told.config)
    configure_logging(json=settings.log_json)
    journal = DyingDatabase(settings.database, die=told.die, record=told.record)
    uvicorn.run(
        build(settings, db=journal),
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )
