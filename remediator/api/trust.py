"""The trust ladder under `/api/v1/trust`: what each playbook's record says about its mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from remediator.model.playbook import Mode, Pinned
from remediator.model.trust import Record, Share, advise
from remediator.store import trust
from remediator.store.database import Database, Tx


class ShareOut(BaseModel):
    """A share of runs with its 95% confidence interval (Wilson)."""

    count: int
    of: int
    share: float | None = Field(description="0 to 1; null without a run.")
    low: float
    high: float

    @classmethod
    def of_share(cls, share: Share) -> ShareOut:
        """Say a share in JSON."""
        low, high = share.interval
        return cls(count=share.count, of=share.of, share=share.value, low=low, high=high)


class TrustOut(BaseModel):
    """One playbook's record since its text last changed, and what it supports."""

    playbook: str
    mode: Mode = Field(description="What its file says; a cap in force may make it more careful.")
    improved: ShareOut = Field(description="Of the runs that acted.")
    natural: ShareOut = Field(description="Of the runs that only watched: over by itself.")
    verdicts: dict[str, int]
    approved: int
    rejected: int
    expired: int
    advice: Mode
    reason: str


def build_router(
    *,
    db: Database,
    library: Callable[[], Mapping[str, Pinned]],
    may_read: Callable[..., None],
) -> APIRouter:
    """Return the router; `library` returns what is being served."""
    router = APIRouter(prefix="/api/v1", tags=["read"], dependencies=[Depends(may_read)])

    @router.get("/trust")
    async def ladder() -> list[TrustOut]:
        """Say of every playbook what its runs came to and which mode that supports."""
        return [_told(record) for record in await db.read(_records, list(library().values()))]

    return router


def _records(tx: Tx, served: list[Pinned]) -> list[Record]:
    return [trust.record_of(tx, pinned) for pinned in served]


def _told(record: Record) -> TrustOut:
    advice = advise(record)
    return TrustOut(
        playbook=record.playbook,
        mode=record.mode,
        improved=ShareOut.of_share(record.improved),
        natural=ShareOut.of_share(record.natural),
        verdicts=record.verdicts,
        approved=record.approved,
        rejected=record.rejected,
        expired=record.expired,
        advice=advice.mode,
        reason=advice.reason,
    )
