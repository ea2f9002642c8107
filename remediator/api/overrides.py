"""What people may decide about guards, knobs and modes: override, pin, mode, breaker reset.

Each names who and why, and is one row of the controls that every transaction reads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query

from remediator.api import schemas
from remediator.api.control import By
from remediator.api.scopes import Known, check_name, check_scope
from remediator.model.target import Inventory
from remediator.store import controls, overrides
from remediator.store.controls import Control, Kind
from remediator.store.database import Database, Tx
from remediator.store.overrides import WAIVABLE, Ruling

Name = Annotated[str, Query(max_length=200)]


def build_router(
    *,
    db: Database,
    inventory: Inventory,
    known: Known,
    may_read: Callable[..., None],
    may_write: Callable[..., None],
    poke: Callable[[str], None],
) -> APIRouter:
    """Return the router; `known` names the targets, playbooks, ... there are."""
    router = APIRouter(prefix="/api/v1", tags=["control"])
    writes = [Depends(may_write)]

    @router.get("/overrides", dependencies=[Depends(may_read)])
    async def list_overrides() -> list[schemas.ControlOut]:
        """List the overrides in force."""
        return [_shown(one) for one in await db.read(controls.in_force, Kind.OVERRIDE)]

    @router.post("/overrides", status_code=201, dependencies=writes)
    async def override(wanted: schemas.OverrideIn) -> schemas.ControlOut:
        """Decide that nothing is done in a scope, or that some of its guards are not asked."""
        await check_scope(db, known, wanted.scope, wanted.name)
        _check_guards(wanted)
        made = await db.write(_override, wanted)
        poke("dispatch")
        return _shown(made)

    @router.delete("/overrides/{override_id}", dependencies=writes)
    async def lift_override(override_id: schemas.Id, by: By) -> schemas.Lifted:
        """End an override."""
        lifted = await db.write(_lift_override, override_id, by=by)
        if not lifted:
            raise HTTPException(404, f"there is no override {override_id} in force")
        poke("dispatch")
        return schemas.Lifted(lifted=lifted)

    @router.post("/pins", status_code=201, dependencies=writes)
    async def pin(wanted: schemas.PinIn) -> schemas.ControlOut:
        """Let no run move a knob; a change held on it is yielded to the human, untouched."""
        check_name(known, "target", wanted.target)
        made = _shown(await db.write(_pin, wanted))
        if wanted.knob not in known("knob"):
            moved = ", ".join(sorted(known("knob"))) or "none"
            made.warning = f"no playbook moves {wanted.knob!r}; they move: {moved}"
        return made

    @router.delete("/pins", dependencies=writes)
    async def unpin(target: Name, knob: Name, by: By) -> schemas.Lifted:
        """Let runs move a knob again."""
        lifted = await db.write(overrides.lift_pin, target=target, knob=knob, by=by)
        poke("dispatch")
        return schemas.Lifted(lifted=lifted)

    @router.put("/modes", dependencies=writes)
    async def cap_mode(wanted: schemas.ModeIn) -> schemas.ControlOut:
        """Allow no bolder mode than this in a scope, in place of what was allowed there."""
        await check_scope(db, known, wanted.scope, wanted.name)
        made = await db.write(_cap_mode, wanted)
        poke("dispatch")
        return _shown(made)

    @router.delete("/modes", dependencies=writes)
    async def lift_mode(scope: Name, by: By, name: Name = "") -> schemas.Lifted:
        """Let the playbooks' own modes hold again."""
        lifted = await db.write(overrides.lift_mode, scope=scope, name=name, by=by)
        poke("dispatch")
        return schemas.Lifted(lifted=lifted)

    @router.post("/breakers/reset", status_code=201, dependencies=writes)
    async def reset_breaker(wanted: schemas.BreakerResetIn) -> schemas.ControlOut:
        """Forget what failed before now. A mode that the breaker lowered stays: raise it apart."""
        check_name(known, "playbook", wanted.playbook)
        check_name(known, "target", wanted.target)
        target = inventory.find(wanted.target)
        made = await db.write(
            overrides.reset_breaker,
            playbook=wanted.playbook,
            target_class=(target.pool if target else "") or wanted.target,
            by=wanted.by,
            reason=wanted.reason,
        )
        poke("dispatch")
        return _shown(made)

    return router


def _shown(one: Control) -> schemas.ControlOut:
    return schemas.ControlOut.model_validate(one)


def _check_guards(wanted: schemas.OverrideIn) -> None:
    if wanted.decision is Ruling.HANDS_OFF and wanted.guards:
        raise HTTPException(422, "hands_off asks no guard: name guards with waive only")
    if wanted.decision is Ruling.WAIVE and not wanted.guards:
        raise HTTPException(422, f"waive names the guards: {', '.join(WAIVABLE)}")
    for guard in wanted.guards:
        if guard not in WAIVABLE:
            raise HTTPException(
                422, f"{guard!r} cannot be waived; these can: {', '.join(WAIVABLE)}"
            )


def _until(tx: Tx, length_s: float | None) -> datetime | None:
    return None if length_s is None else tx.now + timedelta(seconds=length_s)


def _override(tx: Tx, wanted: schemas.OverrideIn) -> Control:
    return overrides.add(
        tx,
        scope=wanted.scope,
        name=wanted.name,
        decision=wanted.decision,
        guards=wanted.guards,
        reason=wanted.reason,
        by=wanted.by,
        until=tx.now + timedelta(seconds=wanted.length_s),
    )


def _lift_override(tx: Tx, override_id: int, *, by: str) -> int:
    found = [one for one in controls.in_force(tx, Kind.OVERRIDE) if one.id == override_id]
    return controls.lift(tx, found, by=by)


def _pin(tx: Tx, wanted: schemas.PinIn) -> Control:
    return overrides.pin(
        tx,
        target=wanted.target,
        knob=wanted.knob,
        reason=wanted.reason,
        by=wanted.by,
        until=_until(tx, wanted.length_s),
    )


def _cap_mode(tx: Tx, wanted: schemas.ModeIn) -> Control:
    return overrides.cap_mode(
        tx,
        scope=wanted.scope,
        name=wanted.name,
        mode=wanted.mode,
        by=wanted.by,
        reason=wanted.reason,
        until=_until(tx, wanted.length_s),
    )
