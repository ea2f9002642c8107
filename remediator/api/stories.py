"""The read API under `/api/v1`: alerts, decisions, runs, targets, playbooks.

Called by the CLI and by whoever wants to know why. It never changes anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query

from remediator.api import schemas
from remediator.language.loader import Library
from remediator.model.playbook import Mode
from remediator.model.target import Inventory, Target
from remediator.store import alerts, diagnoses, queries, runs, steps
from remediator.store.database import Database, Tx

Before = Annotated[
    int | None, Query(ge=1, le=schemas.LARGEST_ID, description="Cursor: rows with a smaller id.")
]
OfAlert = Annotated[int | None, Query(ge=1, le=schemas.LARGEST_ID)]
OfRun = Annotated[int | None, Query(ge=1, le=schemas.LARGEST_ID)]
Limit = Annotated[int, Query(ge=1, le=500)]
Live = Callable[[Target], Awaitable[tuple[dict[str, Any] | None, str | None]]]


def build_router(
    *,
    db: Database,
    inventory: Inventory,
    library: Callable[[], Library],
    live: Live,
    may_read: Callable[..., None],
) -> APIRouter:
    """Return the read API's router."""
    router = APIRouter(prefix="/api/v1", tags=["read"], dependencies=[Depends(may_read)])

    @router.get("/alerts")
    async def list_alerts(
        firing: bool | None = None,
        name: str | None = None,
        fingerprint: str | None = None,
        before: Before = None,
        limit: Limit = 100,
    ) -> list[schemas.AlertOut]:
        """List alert episodes, newest first."""
        rows = await db.read(
            queries.list_alerts,
            firing=firing,
            name=name,
            fingerprint=fingerprint,
            before=before,
            limit=limit,
        )
        return [schemas.AlertOut.model_validate(row) for row in rows]

    @router.get("/alerts/{alert_id}")
    async def get_alert(alert_id: schemas.Id) -> schemas.AlertStory:
        """Return one alert with its decisions and runs."""
        story = await db.read(_alert_story, alert_id)
        if story is None:
            raise HTTPException(404, f"there is no alert A{alert_id}")
        return story

    @router.get("/decisions")
    async def list_decisions(
        alert_id: OfAlert = None,
        run_id: OfRun = None,
        reason: str | None = None,
        before: Before = None,
        limit: Limit = 100,
    ) -> list[schemas.DecisionOut]:
        """List decisions, newest first."""
        rows = await db.read(
            queries.list_decisions,
            alert_id=alert_id,
            run_id=run_id,
            reason=reason,
            before=before,
            limit=limit,
        )
        return [schemas.DecisionOut.model_validate(row) for row in rows]

    @router.get("/runs")
    async def list_runs(
        target: str | None = None,
        playbook: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        alert_id: OfAlert = None,
        before: Before = None,
        limit: Limit = 100,
    ) -> list[schemas.RunOut]:
        """List runs, newest first."""
        found = await db.read(
            queries.list_runs,
            target=target,
            playbook=playbook,
            state=state,
            kind=kind,
            alert_id=alert_id,
            before=before,
            limit=limit,
        )
        return [schemas.RunOut.model_validate(run) for run in found]

    @router.get("/runs/{run_id}")
    async def get_run(run_id: schemas.Id) -> schemas.RunStory:
        """Return one run with its steps, measurements, evidence and messages."""
        story = await db.read(_run_story, run_id)
        if story is None:
            raise HTTPException(404, f"there is no run R{run_id}")
        return story

    @router.get("/deliveries/rejected")
    async def list_rejected(limit: Limit = 100) -> list[schemas.RejectedOut]:
        """List what was posted to the webhook and can never be one, newest first."""
        rows = await db.read(queries.rejected_deliveries, limit=limit)
        return [schemas.RejectedOut.model_validate(row) for row in rows]

    @router.get("/targets")
    async def list_targets() -> list[schemas.TargetOut]:
        """List the inventory, with what is held and who acts."""
        return [await _target(db, target, None) for target in inventory]

    @router.get("/targets/{name}")
    async def get_target(name: str) -> schemas.TargetOut:
        """Return one target with its live settings, leases and pins."""
        target = inventory.find(name)
        if target is None:
            known = ", ".join(sorted(t.name for t in inventory)) or "none"
            raise HTTPException(404, f"there is no target {name!r}; known: {known}")
        return await _target(db, target, live)

    @router.get("/playbooks")
    async def list_playbooks() -> schemas.Playbooks:
        """List what is served, and every problem in the files."""
        return _playbooks(library())

    return router


async def _target(db: Database, target: Target, live: Live | None) -> schemas.TargetOut:
    acting, held = await db.read(_target_rows, target.name)
    said, error = (None, None) if live is None else await live(target)
    return schemas.TargetOut(
        name=target.name,
        instance=target.instance,
        job=target.job,
        pool=target.pool,
        actuators=target.actuators,
        caps=target.caps,
        acting=acting,
        changes=held,
        live=said,
        live_error=error,
    )


def _target_rows(tx: Tx, name: str) -> tuple[schemas.RunOut | None, list[schemas.ChangeOut]]:
    acting = runs.acting_run(tx, name, Mode.AUTO)
    held = queries.changes_of(tx, target=name)
    return (
        None if acting is None else schemas.RunOut.model_validate(acting),
        [schemas.ChangeOut.model_validate(row) for row in held],
    )


def _alert_story(tx: Tx, alert_id: int) -> schemas.AlertStory | None:
    alert = alerts.get_alert(tx, alert_id)
    if alert is None:
        return None
    decisions = queries.list_decisions(tx, alert_id=alert_id, limit=500)
    found = queries.list_runs(tx, alert_id=alert_id, limit=500)
    return schemas.AlertStory(
        **schemas.AlertOut.model_validate(alert).model_dump(),
        decisions=[schemas.DecisionOut.model_validate(row) for row in decisions],
        runs=[schemas.RunOut.model_validate(run) for run in found],
    )


def _run_story(tx: Tx, run_id: int) -> schemas.RunStory | None:
    run = runs.get_run(tx, run_id)
    if run is None:
        return None
    history = steps.history(tx, run_id)
    decisions = queries.list_decisions(
        tx, alert_id=None, run_id=run_id, reason=None, before=None, limit=100
    )
    return schemas.RunStory(
        **schemas.RunOut.model_validate(run).model_dump(),
        plan=run.plan,
        playbook_text=queries.playbook_text(tx, run.playbook_sha),
        steps=[schemas.StepOut.model_validate(row) for row in history.steps],
        measurements=[
            schemas.MeasurementOut(
                pc=m.pc,
                role=m.role,
                query=m.reading.query,
                at=m.reading.at,
                status=m.reading.status,
                value=m.reading.value,
                detail=m.reading.detail,
            )
            for m in history.measurements
        ],
        decisions=[schemas.DecisionOut.model_validate(row) for row in decisions],
        changes=[
            schemas.ChangeOut.model_validate(row) for row in queries.changes_of(tx, run_id=run_id)
        ],
        messages=[
            schemas.MessageOut.model_validate(row) for row in queries.messages_of(tx, run_id)
        ],
        diagnoses=[
            schemas.DiagnosisOut.model_validate(row) for row in diagnoses.of_run(tx, run_id)
        ],
        approvals=[schemas.ApprovalOut.model_validate(row) for row in history.approvals],
    )


def _playbooks(library: Library) -> schemas.Playbooks:
    served = [
        schemas.PlaybookOut(
            name=loaded.playbook.name,
            description=loaded.playbook.description,
            mode=loaded.playbook.mode,
            priority=loaded.playbook.priority,
            sha256=loaded.sha256,
            path=loaded.path,
            status=loaded.status,
            text=loaded.text,
        )
        for loaded in library.by_name.values()
        if loaded.playbook is not None
    ]
    return schemas.Playbooks(
        playbooks=served,
        problems=[schemas.PlaybookProblem.model_validate(p) for p in library.problems],
    )
