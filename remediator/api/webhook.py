"""`POST /webhooks/alertmanager`: durable before 2xx, and nothing else happens in the request.

Called by Alertmanager. What it sends and how it retries is measured in docs/alertmanager.md. The
surprises: the top-level `status` is never read, because it lies when the payload is truncated; and
a body that can never be a webhook is answered 400 but kept, so that a person can see it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import ClientDisconnect

from remediator.api.access import Access
from remediator.engine import intake
from remediator.errors import PayloadError, StoreUnavailableError
from remediator.model.alert import Alert
from remediator.model.pace import Pace
from remediator.store.database import Database
from remediator.telemetry import Metrics

# Alertmanager closes a notification after 10 s at the earliest; a body that takes longer to arrive
# is an attack or a dead peer.
BODY_WITHIN_S = 10.0
KEPT_OF_REJECTED = 64 * 1024
# A problem may quote what was posted (the name of a label), and that may be megabytes.
LONGEST_PROBLEM = 300
# What both databases can count to.
LARGEST = 2**31 - 1
YEAR_ONE = 1
# How a refused post is counted, by its answer.
OUTCOMES = {
    400: "incomplete",
    401: "unauthorized",
    403: "unauthorized",
    408: "incomplete",
    413: "too_large",
    503: "unavailable",
}


class _Wire(BaseModel):
    # Newer Alertmanagers add fields (0.32 notification_reason, 0.34 routeLabels).
    model_config = ConfigDict(extra="ignore")


class WireAlert(_Wire):
    """One alert of a webhook payload."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: AwareDatetime = Field(alias="startsAt")
    ends_at: AwareDatetime | None = Field(alias="endsAt", default=None)
    generator_url: str = Field(alias="generatorURL", default="")
    fingerprint: Annotated[str, StringConstraints(min_length=1, max_length=64)]

    def to_model(self) -> Alert:
        """Return the alert as the engine knows it; year 1 means "not ended"."""
        ended: datetime | None = self.ends_at
        if ended is not None and ended.year <= YEAR_ONE:
            ended = None
        return Alert(
            fingerprint=self.fingerprint,
            firing=self.status == "firing",
            labels=self.labels,
            annotations=self.annotations,
            starts_at=self.starts_at,
            ends_at=ended,
            generator_url=self.generator_url,
        )


class WirePayload(_Wire):
    """An Alertmanager webhook payload, version 4."""

    version: Literal["4"]
    receiver: str = ""
    group_key: str = Field(alias="groupKey", default="")
    truncated: int = Field(alias="truncatedAlerts", default=0, ge=0, le=LARGEST)
    alerts: list[WireAlert]


def understand(body: bytes) -> intake.Delivery:
    """Turn a body into a delivery.

    Raises:
        PayloadError: it can never be a version 4 webhook; the message says what is wrong.
    """
    try:
        payload = WirePayload.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise PayloadError(f"{where}: {first['msg']}"[:LONGEST_PROBLEM]) from error
    return intake.Delivery(
        body=body,
        receiver=payload.receiver,
        group_key=payload.group_key,
        truncated=payload.truncated,
        alerts=tuple(alert.to_model() for alert in payload.alerts),
    )


def build_router(
    *,
    db: Database,
    access: Access,
    pace: Pace,
    metrics: Metrics,
    limit_bytes: int,
    poke: Callable[[str], None],
) -> APIRouter:
    """Return the webhook's router."""
    router = APIRouter(tags=["webhook"])

    @router.post("/webhooks/alertmanager")
    async def receive(request: Request) -> dict[str, object]:
        """Store an Alertmanager notification; answer once it is durable."""
        try:
            access.check(request)
            body = await _read_body(request, limit_bytes)
            delivery = understand(body)
            counts = await intake.accept(db, delivery, pace)
        except HTTPException as error:
            metrics.webhooks.labels(outcome=OUTCOMES[error.status_code]).inc()
            raise
        except PayloadError as error:
            metrics.webhooks.labels(outcome="rejected").inc()
            await intake.reject(db, body[:KEPT_OF_REJECTED], str(error))
            raise HTTPException(400, f"not an Alertmanager v4 webhook: {error}") from error
        except StoreUnavailableError:
            metrics.webhooks.labels(outcome="unavailable").inc()
            raise
        metrics.webhooks.labels(outcome="stored").inc()
        for meaning, number in counts.items():
            metrics.alerts.labels(meaning=meaning.value).inc(number)
        poke("dispatch")
        if delivery.truncated:
            # The payload does not hold them all: read the level instead.
            poke("reconcile")
        return {"stored": len(delivery.alerts), "truncated": delivery.truncated}

    return router


async def _read_body(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise HTTPException(413, f"the body is larger than {limit} bytes")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise HTTPException(413, f"the body is larger than {limit} bytes")
                parts.append(part)
    except ClientDisconnect as error:
        raise HTTPException(400, "the caller left before the body had arrived") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {BODY_WITHIN_S:g} s") from error
    return b"".join(parts)
