"""What people are asked: the open questions, and yes or no to one. The first decision wins."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends, HTTPException

from remediator.api import schemas
from remediator.model.run import ApprovalRow, Decided
from remediator.store import approvals, runs
from remediator.store.database import Database, Tx


def build_router(
    *,
    db: Database,
    may_read: Callable[..., None],
    may_write: Callable[..., None],
    poke: Callable[[str], None],
) -> APIRouter:
    """Return the approvals' router."""
    router = APIRouter(prefix="/api/v1", tags=["approvals"])

    @router.get("/approvals", dependencies=[Depends(may_read)])
    async def list_open() -> list[schemas.QuestionOut]:
        """List what runs ask and nobody has decided yet, oldest first."""
        return await db.read(_open)

    async def decide(run_id: int, wanted: schemas.DecideIn, decision: Decided) -> ApprovalRow:
        decided = await db.write(
            _decide, run_id, decision=decision, by=wanted.by, reason=wanted.reason
        )
        poke("dispatch")
        return decided

    @router.post("/runs/{run_id}/approve", status_code=202, dependencies=[Depends(may_write)])
    async def approve(run_id: schemas.Id, wanted: schemas.DecideIn) -> schemas.ApprovalOut:
        """Say yes: it goes on once the guards, asked again, say yes too."""
        return schemas.ApprovalOut.model_validate(await decide(run_id, wanted, Decided.APPROVED))

    @router.post("/runs/{run_id}/reject", status_code=202, dependencies=[Depends(may_write)])
    async def reject(run_id: schemas.Id, wanted: schemas.DecideIn) -> schemas.ApprovalOut:
        """Say no: a proposal ends; an `approve` step goes where its playbook says."""
        return schemas.ApprovalOut.model_validate(await decide(run_id, wanted, Decided.REJECTED))

    return router


def _open(tx: Tx) -> list[schemas.QuestionOut]:
    found = []
    for row in approvals.open_questions(tx):
        run = runs.get_run(tx, row.run_id)
        if run is not None:
            asked = schemas.ApprovalOut.model_validate(row).model_dump()
            found.append(schemas.QuestionOut(**asked, playbook=run.playbook, target=run.target))
    return found


def _decide(tx: Tx, run_id: int, *, decision: Decided, by: str, reason: str) -> ApprovalRow:
    run = runs.get_run(tx, run_id)
    if run is None:
        raise HTTPException(404, f"there is no run R{run_id}")
    asked = approvals.of_run(tx, run_id)
    if not asked:
        raise HTTPException(409, f"run R{run_id} asks nothing; it is {run.state}")
    over = run.stop_reason or (None if run.state.is_open else f"it is {run.state}: {run.reason}")
    question = asked[-1]
    if question.decision is None and over is not None:
        raise HTTPException(409, f"run R{run_id} does not ask any more: {over}")
    done = approvals.decide(tx, question.id, decision=decision, by=by, reason=reason)
    stands = approvals.get(tx, question.id) or question
    if not done:
        raise HTTPException(409, _too_late(stands))
    return stands


def _too_late(stands: ApprovalRow) -> str:
    if stands.decided_at is None or stands.decision is Decided.EXPIRED:
        return f"too late: it was open until {stands.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{stands.by} {stands.decision} it already, at {stands.decided_at:%Y-%m-%d %H:%M:%S} UTC"
