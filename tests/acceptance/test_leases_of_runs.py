"""The lease that covers a call is not cut short by the lease renewal that runs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remediator.model.playbook import Mode
from remediator.model.run import RunKind
from remediator.store import runs
from remediator.store.database import Database

SHORT, LONG = timedelta(seconds=30), timedelta(seconds=64)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, length: timedelta) -> None:
        self.now += length


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/journal.db", clock=clock)
    made.migrate()
    yield made
    made.close()


def test_a_renewal_never_shortens_the_lease_that_covers_a_call(
    journal: Database, clock: Clock
) -> None:
    wanted = runs.NewRun(
        kind=RunKind.REMEDY,
        playbook="restart-dead",
        playbook_sha="0" * 64,
        plan={},
        mode=Mode.AUTO,
        priority=90,
        target="detector-1",
        alert_id=None,
        holds_slot=True,
    )
    journal.transact(runs.open_run, wanted)
    [run] = journal.transact(runs.claim_due, owner="a", lease=LONG, limit=1)
    clock.forward(SHORT / 3)
    journal.transact(runs.renew, [(run.id, run.epoch)], owner="a", lease=SHORT)

    clock.forward(LONG - SHORT / 3)
    assert journal.transact(runs.claim_due, owner="b", lease=SHORT, limit=1) == []
    clock.forward(timedelta(seconds=1))
    [taken] = journal.transact(runs.claim_due, owner="b", lease=SHORT, limit=1)
    assert taken.epoch == run.epoch + 1
