"""What a run saw when it looked: kept with it, shown by `explain`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select

from remediator.model.run import Run
from remediator.store import runs
from remediator.store.database import Tx
from remediator.store.tables import diagnoses


def looked(tx: Tx, run_id: int) -> frozenset[int]:
    """Return the steps of a run that have looked."""
    rows = tx.conn.execute(select(diagnoses.c.pc).where(diagnoses.c.run_id == run_id))
    return frozenset(row.pc for row in rows)


def keep(tx: Tx, run: Run, *, pc: int, seen: dict[str, Any]) -> None:
    """Keep what one step saw; the first look is the one that counts.

    Raises:
        FencedError: the run is no longer ours.
    """
    runs.fenced_update(tx, run, epoch=run.epoch)
    if pc not in looked(tx, run.id):
        tx.conn.execute(insert(diagnoses).values(run_id=run.id, pc=pc, at=tx.now, seen=seen))


def of_run(tx: Tx, run_id: int) -> list[dict[str, Any]]:
    """Return everything a run saw, oldest first: `pc`, `at`, `seen`."""
    rows = tx.conn.execute(
        select(diagnoses.c.pc, diagnoses.c.at, diagnoses.c.seen)
        .where(diagnoses.c.run_id == run_id)
        .order_by(diagnoses.c.id)
    )
    return [dict(row._mapping) for row in rows]
