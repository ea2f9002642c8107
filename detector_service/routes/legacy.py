"""The article's two endpoints, as thin writers of the settings document.

They write as owner ``legacy``: they change the base, never pin, and are refused (409) on a knob
that is pinned or leased. Surprise: they take JSON, a form or the query, since callers of the
original used all three; numbers may arrive as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response

from detector_service.errors import RefusedError
from detector_service.routes.control import change
from detector_service.routes.parts import parts_of
from detector_service.routes.wire import (
    CONTROL_BODY_BYTES,
    parse_json_object,
    preconditions,
    read_capped,
    require_control,
)
from detector_service.tunables import LEGACY_OWNER, Author, Number, Preconditions, Write
from detector_service.tunables.changes import write

router = APIRouter(dependencies=[Depends(require_control)])

PARAM_ALIASES = {"confidence_threshold": "conf_threshold", "confidence": "conf_threshold"}
CONCURRENCY_ALIASES = {"concurrency": "max_concurrency", "max_concurrent": "max_concurrency"}


@router.post("/update-params")
async def update_params(request: Request) -> Response:
    """Change thresholds, or any other tunable."""
    given, asked = await _read(request, PARAM_ALIASES)
    return await _write(request, given, asked)


@router.post("/adjust-concurrency")
async def adjust_concurrency(request: Request) -> Response:
    """Change how many requests may run at once."""
    given, asked = await _read(request, CONCURRENCY_ALIASES)
    if set(given) != {"max_concurrency"}:
        raise RefusedError(422, "invalid", "send max_concurrency, and nothing else")
    return await _write(request, given, asked)


async def _write(request: Request, values: dict[str, Number], asked: Preconditions) -> Response:
    reason = f"POST {request.url.path}"
    wish = Write(values, LEGACY_OWNER, reason)
    return await change(
        parts_of(request),
        lambda document, now: write(document, wish, now),
        asked,
        author=Author("legacy", LEGACY_OWNER, reason),
    )


async def _read(
    request: Request, aliases: Mapping[str, str]
) -> tuple[dict[str, Number], Preconditions]:
    raw = await read_capped(request, CONTROL_BODY_BYTES)
    given: dict[str, Any] = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        given |= dict(parse_qsl(raw.decode("utf-8", "replace")))
    elif raw:
        given |= parse_json_object(raw)
    values = {aliases.get(name, name): _number(name, value) for name, value in given.items()}
    return values, preconditions(request, raw)


def _number(name: str, value: object) -> Number:
    try:
        number = float(str(value))
    except ValueError as exc:
        words = f"{name} must be a number, got {value!r}"
        raise RefusedError(422, "invalid", words, evidence={"problems": {name: words}}) from exc
    return int(number) if math.isfinite(number) and number.is_integer() else number
