"""What people may stop: pause, resume, cancel, stop, kill. Each names who and why, on record.

When a call returns that holds something back, no further forward intent can commit on any replica,
because the intent transaction looks at the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query

from remediator.api import schemas
from remediator.api.scopes import Known, check_scope
from remediator.engine import stopping
from remediator.engine.settle import CANCELLED, TAKE_ALL_BACK
from remediator.model.run import Run, RunKind
from remediator.store import controls, runs
from remediator.store.controls import Kind
from remediator.store.database import Database, Tx

By = Annotated[schemas.By, Query(description="Who; it goes on record.")]


def build_router(
    *,
    db: Database,
    known: Known,
    may_read: Callable[..., None],
    may_write: Callable[..., None],
    poke: Callable[[str], None],
) -> APIRouter:
    """Return the router of what stops; `known` names the targets, playbooks, ... there are."""
    router = APIRouter(prefix="/api/v1", tags=["control"])
    writes = [Depends(may_write)]

    @router.get("/controls", dependencies=[Depends(may_read)])
    async def list_controls() -> list[schemas.ControlOut]:
        """List everything that people set and that is in force: pauses, the kill switch, ..."""
        return [schemas.ControlOut.model_validate(one) for one in await db.read(controls.in_force)]

    @router.get("/pauses", dependencies=[Depends(may_read)])
    async def list_pauses() -> list[schemas.ControlOut]:
        """List the pauses in force."""
        found = await db.read(controls.active_pauses)
        return [schemas.ControlOut.model_validate(one) for one in found]

    @router.post("/pauses", status_code=201, dependencies=writes)
    async def pause(wanted: schemas.PauseIn) -> schemas.ControlOut:
        """Start no new forward action in a scope, until it ends or is lifted."""
        await check_scope(db, known, wanted.scope, wanted.name)
        made = await db.write(
            controls.add_pause,
            scope=wanted.scope,
            name=wanted.name,
            reason=wanted.reason,
            by=wanted.by,
            length=timedelta(seconds=wanted.length_s),
        )
        return schemas.ControlOut.model_validate(made)

    @router.post("/resume", dependencies=writes)
    async def resume(wanted: schemas.ResumeIn) -> schemas.Lifted:
        """Lift the pauses of exactly this scope."""
        lifted = await db.write(
            controls.lift_pauses, scope=wanted.scope, name=wanted.name, by=wanted.by
        )
        poke("dispatch")
        return schemas.Lifted(lifted=lifted)

    @router.post("/runs/{run_id}/cancel", status_code=202, dependencies=writes)
    async def cancel(run_id: schemas.Id, wanted: schemas.CancelIn) -> schemas.RunOut:
        """Stop a run at its next step boundary and take back what can be taken back."""
        found = await db.write(_cancel, run_id, f"{CANCELLED} by {wanted.by}: {wanted.reason}")
        poke("dispatch")
        return schemas.RunOut.model_validate(found)

    @router.post("/runs/{run_id}/stop", status_code=202, dependencies=writes)
    async def stop_run(run_id: schemas.Id, wanted: schemas.CancelIn) -> schemas.StoppedOut:
        """Roll back now what a run does, or has left on its target after it ended."""
        stopped = await db.write(_stop_run, run_id, by=wanted.by, reason=wanted.reason)
        poke("dispatch")
        return schemas.StoppedOut.model_validate(stopped)

    @router.post("/stop", status_code=202, dependencies=writes)
    async def stop(wanted: schemas.StopIn) -> schemas.StoppedOut:
        """Roll back now what runs do, or have left, in a scope. New runs may begin: pause first."""
        await check_scope(db, known, wanted.scope, wanted.name)
        stopped = await db.write(
            stopping.stop_scope,
            scope=wanted.scope,
            name=wanted.name,
            by=wanted.by,
            reason=wanted.reason,
        )
        poke("dispatch")
        return schemas.StoppedOut.model_validate(stopped)

    @router.post("/kill", status_code=202, dependencies=writes)
    async def kill(wanted: schemas.KillIn) -> schemas.StoppedOut:
        """Pull the kill switch: nothing forward anywhere, and everything is rolled back now."""
        await db.write(stopping.pull, by=wanted.by, reason=wanted.reason)
        stopped = await db.write(stopping.kill, by=wanted.by, reason=wanted.reason)
        poke("dispatch")
        return schemas.StoppedOut.model_validate(stopped)

    @router.delete("/kill", dependencies=writes)
    async def unkill(by: By) -> schemas.Lifted:
        """Put the kill switch back."""
        lifted = await db.write(_unkill, by=by)
        poke("dispatch")
        return schemas.Lifted(lifted=lifted)

    return router


def _find(tx: Tx, run_id: int) -> Run:
    run = runs.get_run(tx, run_id)
    if run is None:
        raise HTTPException(404, f"there is no run R{run_id}")
    return run


def _cancel(tx: Tx, run_id: int, reason: str) -> Run:
    run = _find(tx, run_id)
    if not run.state.is_open:
        raise HTTPException(409, f"run R{run_id} is closed already: {run.state}")
    if not (run.stop_reason or "").startswith(TAKE_ALL_BACK):
        runs.ask_to_stop(tx, run_id, reason=reason, insists=True)
    return _find(tx, run_id)


def _stop_run(tx: Tx, run_id: int, *, by: str, reason: str) -> stopping.Stopped:
    run = _find(tx, run_id)
    if run.kind is RunKind.RESTORE:
        raise HTTPException(
            409, f"run R{run_id} gives back already; cancel it to keep what is still held"
        )
    stopped = stopping.stop_run(tx, run, by=by, reason=reason)
    if not stopped.runs and not stopped.changes:
        raise HTTPException(409, f"run R{run_id} is {run.state}, and nothing of it is held")
    return stopped


def _unkill(tx: Tx, *, by: str) -> int:
    return controls.lift(tx, controls.in_force(tx, Kind.KILL), by=by)
