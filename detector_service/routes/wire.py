"""Bytes and headers to values, values and errors to answers; shared by all routes.

Surprise: bodies are read by hand, with a cap, and parsed here, so that a body larger than allowed
is refused while it arrives, and an Idempotency-Key can be tied to the exact bytes it came with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from detector_service.errors import DeviceLostError, MediaError, RefusedError, StateWriteError
from detector_service.routes.parts import SICK_RETRY_S, parts_of
from detector_service.settings import is_loopback
from detector_service.tunables import Preconditions, Reply

CONTROL_BODY_BYTES = 64 * 1024
MAX_KEY_LENGTH = 255

Model = TypeVar("Model", bound=BaseModel)


def require_control(request: Request) -> None:
    """Let only those in who may change settings: token bearers, or without a token, loopback.

    Raises:
        RefusedError: 401 wrong or no token, 403 not from this machine (or by way of a web page,
            which may have given its own name our address).
    """
    token = parts_of(request).token
    if token is not None:
        given = request.headers.get("authorization", "")
        # Headers come as Latin-1 of the bytes sent (ASGI); the token's bytes are UTF-8.
        if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode()):
            raise RefusedError(401, "unauthorized", "send Authorization: Bearer <control token>")
        return
    if request.client is None or not is_loopback(request.client.host):
        raise RefusedError(403, "forbidden", "without a control token only loopback may do this")
    host = request.headers.get("host", "")
    if not _names_loopback(host):
        words = (
            f"without a control token, call this service localhost or by its address, not {host!r}"
        )
        raise RefusedError(403, "forbidden", words)
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise RefusedError(403, "forbidden", "a page of another origin may not do this")


async def read_capped(request: Request, limit: int) -> bytes:
    """Read the whole body, at most ``limit`` bytes.

    Raises:
        RefusedError: 413 ``too_large``.
        ClientDisconnect: the client left.
    """
    require_length(request, limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def require_length(request: Request, limit: int) -> None:
    """Refuse by ``Content-Length``, before anything is read.

    Raises:
        RefusedError: 413 ``too_large``.
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > limit:
        raise _too_large(limit)


async def read_model(request: Request, model: type[Model]) -> tuple[Model, Preconditions]:
    """Read a JSON body (or, where it is empty, the query) and the precondition headers.

    Raises:
        RefusedError: 422 ``invalid`` with a problem per field, 413 ``too_large``.
    """
    raw = await read_capped(request, CONTROL_BODY_BYTES)
    try:
        if raw:
            parsed = model.model_validate_json(raw)
        else:
            parsed = model.model_validate(dict(request.query_params))
    except ValidationError as exc:
        raise invalid(exc) from exc
    return parsed, preconditions(request, raw)


def preconditions(request: Request, raw: bytes) -> Preconditions:
    """Return what the headers ask for.

    Raises:
        RefusedError: 422 for a fencing token that is no number, or an overlong key.
    """
    token = request.headers.get("x-fencing-token")
    if token is not None and not (
        token.isascii() and token.isdigit() and len(token) <= MAX_KEY_LENGTH
    ):
        raise RefusedError(422, "invalid", f"X-Fencing-Token must be a number, got {token!r}")
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        words = f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters"
        raise RefusedError(422, "invalid", words)
    line = f"{request.method} {request.url.path}?{request.url.query}\n"
    return Preconditions(
        if_match=request.headers.get("if-match"),
        fencing_token=None if token is None else int(token),
        key=key,
        fingerprint=hashlib.sha256(line.encode() + raw).hexdigest(),
    )


def invalid(exc: ValidationError) -> RefusedError:
    """Return a 422 with one problem per field."""
    problems = {
        ".".join(str(part) for part in error["loc"]) or "body": error["msg"]
        for error in exc.errors(include_url=False, include_context=False, include_input=False)
    }
    words = "; ".join(f"{where}: {what}" for where, what in problems.items())
    return RefusedError(422, "invalid", words, evidence={"problems": problems})


def media_refusal(exc: MediaError) -> RefusedError:
    """Return the answer to a film or picture: 413 where it is more than allowed, else 422."""
    too_much = exc.reason.startswith("too_")
    return RefusedError(413 if too_much else 422, exc.reason, str(exc))


def json_answer(
    body: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON answer."""
    return JSONResponse(dict(body), status_code=status, headers=headers)


def reply_answer(reply: Reply) -> Response:
    """Return the answer to a write: the body, the generation as ETag, whether it was replayed."""
    headers = {"ETag": f'"{reply.generation}"'}
    if reply.replayed:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(reply.body, headers=headers)


async def answer_refused(_request: Request, exc: Exception) -> Response:
    """Turn a ``RefusedError`` into its answer."""
    if not isinstance(exc, RefusedError):
        raise exc
    headers = {}
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(exc.retry_after_s)
    if exc.status == 401:  # noqa: PLR2004 - the HTTP status
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(exc.body(), status=exc.status, headers=headers)


async def answer_unwritable(_request: Request, exc: Exception) -> Response:
    """Turn a ``StateWriteError`` into 507 (disk full), 503, or 500 (it was applied all the same).

    A 503 promises that nothing was changed; only a 500 leaves the outcome open.
    """
    if not isinstance(exc, StateWriteError):
        raise exc
    status, reason = 503, "state_unwritable"
    if exc.replaced:
        status, reason = 500, "state_unsynced"
    elif exc.disk_full:
        status, reason = 507, "disk_full"
    return json_answer({"error": str(exc), "reason": reason}, status=status)


async def answer_failed(_request: Request, exc: Exception) -> Response:
    """Turn an ``InferenceError`` into 500, or into 503 where the device itself is gone."""
    if isinstance(exc, DeviceLostError):
        body = {"error": str(exc), "reason": "sick"}
        return json_answer(body, status=503, headers={"Retry-After": str(SICK_RETRY_S)})
    return json_answer({"error": str(exc), "reason": "inference_failed"}, status=500)


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        RefusedError: 422, it is none.
    """
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise RefusedError(422, "invalid", f"the body is no JSON: {exc}") from exc
    if not isinstance(parsed, dict):
        raise RefusedError(422, "invalid", "the body must be a JSON object")
    return parsed


def _names_loopback(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _too_large(limit: int) -> RefusedError:
    words = f"the body is larger than {limit} bytes; send less"
    return RefusedError(413, "too_large", words, evidence={"max_bytes": limit})
