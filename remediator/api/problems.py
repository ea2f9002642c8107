"""Errors on the wire: `application/problem+json` (RFC 9457), one shape for all of them."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from remediator.errors import StoreUnavailableError

RETRY_AFTER_S = "1"


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return one problem document."""
    return JSONResponse(
        {"title": HTTPStatus(status).phrase, "status": status, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem document."""

    @app.exception_handler(StoreUnavailableError)
    async def _unavailable(_request: Request, error: StoreUnavailableError) -> JSONResponse:
        # 503 and not 4xx: Alertmanager retries 5xx within half a second, anything else only at
        # its next group_interval.
        return problem(503, str(error), {"Retry-After": RETRY_AFTER_S})

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        return problem(422, said)
