"""What people may change: pause, resume, cancel. Each names who and why, and is on record.

When a pause call returns, no further forward intent can commit on any replica, because the intent
transaction looks at the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta

from fastapi import APIRouter, Depends, HTTPException

from remediator.api import schemas
from remediator.engine.settle import CANCELLED
from remediator.store import controls, runs
from remediator.store.database import Database, Tx


def build_router(
    *,
    db: Database,
    known: Callable[[str], Collection[str]],
    may_read: Callable[..., None],
    may_write: Callable[..., None],
    poke: Callable[[str], None],
) -> APIRouter:
    """Return the control API's router; `known` names the targets or playbooks there are."""
    router = APIRouter(prefix="/api/v1", tags=["control"])

    @router.get("/pauses", dependencies=[Depends(may_read)])
    async def list_pauses() -> list[schemas.PauseOut]:
        """List the pauses in force."""
        return [schemas.PauseOut.model_validate(p) for p in await db.read(controls.active_pauses)]

    @router.post("/pauses", status_code=201, dependencies=[Depends(may_write)])
    async def pause(wanted: schemas.PauseIn) -> schemas.PauseOut:
        """Start no new forward action in a scope, until it ends or is lifted."""
        if (wanted.scope == "all") != (wanted.name == ""):
            raise HTTPException(422, "scope all takes no name; playbook and target need one")
        names = sorted(known(wanted.scope))
        if wanted.name and wanted.name not in names:
            # A pause that matches nothing would let somebody believe that it holds.
            told = ", ".join(names) or "none"
            raise HTTPException(
                422, f"there is no {wanted.scope} {wanted.name!r} to pause; known: {told}"
            )
        return schemas.PauseOut.model_validate(await db.write(_pause, wanted))

    @router.post("/resume", dependencies=[Depends(may_write)])
    async def resume(wanted: schemas.ResumeIn) -> dict[str, int]:
        """Lift the pauses of exactly this scope."""
        lifted = await db.write(
            controls.lift_pauses, scope=wanted.scope, name=wanted.name, by=wanted.by
        )
        poke("dispatch")
        return {"lifted": lifted}

    @router.post("/runs/{run_id}/cancel", status_code=202, dependencies=[Depends(may_write)])
    async def cancel(run_id: schemas.Id, wanted: schemas.CancelIn) -> schemas.RunOut:
        """Stop a run at its next step boundary and take back what can be taken back."""
        found = await db.write(_cancel, run_id, f"{CANCELLED} by {wanted.by}: {wanted.reason}")
        if found is None:
            raise HTTPException(404, f"there is no run R{run_id}")
        if isinstance(found, str):
            raise HTTPException(409, f"run R{run_id} is closed already: {found}")
        poke("dispatch")
        return found

    return router


def _pause(tx: Tx, wanted: schemas.PauseIn) -> controls.Control:
    return controls.add_pause(
        tx,
        scope=wanted.scope,
        name=wanted.name,
        reason=wanted.reason,
        by=wanted.by,
        length=timedelta(seconds=wanted.length_s),
    )


def _cancel(tx: Tx, run_id: int, reason: str) -> schemas.RunOut | str | None:
    run = runs.get_run(tx, run_id)
    if run is None:
        return None
    if not run.state.is_open:
        return run.state.value
    if not (run.stop_reason or "").startswith(CANCELLED):
        runs.ask_to_stop(tx, run_id, reason=reason, insists=True)
    stopped = runs.get_run(tx, run_id)
    return None if stopped is None else schemas.RunOut.model_validate(stopped)
