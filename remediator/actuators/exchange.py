"""One HTTP request and its answer, sorted by the only question that matters: was it applied?

Called by every actuator that speaks HTTP. The surprise: each request uses a connection of its own
(`Connection: close`). A pooled connection that the target closed while it was idle fails *after*
the request was written, which would make a harmless hiccup an unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import httpx
from pydantic_core import from_json

from remediator.errors import (
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)

MAX_BODY_BYTES = 1 << 20
# An hour: a longer wait than any run has, so a wild Retry-After cannot overflow a date.
MAX_RETRY_AFTER_S = 3600.0
# Statuses with which a target says that it understood and will not.
REFUSALS = {
    401: "unauthorized",
    403: "forbidden",
    409: "conflict",
    412: "precondition",
    413: "too_large",
    422: "invalid",
}
# Answers that leave it open. A redirect after a POST says as a rule that it is done (RFC 9110,
# 15.4.2 to 15.4.4; 307 and 308 ask for the same once more), and whoever stood in between gave up
# waiting for it to be sent or answered (408; 499 is a proxy's).
MAY_BE_DONE = frozenset({301, 302, 303, 408, 499})


@dataclass(frozen=True)
class Request:
    """One HTTP request, complete.

    Attributes:
        method: GET, POST, PATCH, DELETE.
        url: absolute.
        headers: beside those that every request carries.
        body: JSON-ready, or bytes that go out as they are, or None.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any = None

    def build(self, client: httpx.AsyncClient, timeout_s: float) -> httpx.Request:
        """Return it as httpx wants it.

        Raises:
            PermanentError: it cannot be put into bytes.
        """
        raw = self.body if isinstance(self.body, bytes) else None
        as_json = None if raw is not None else self.body
        headers = {"Connection": "close", "Accept-Encoding": "identity", **self.headers}
        # Waiting and connecting take less than the whole, so that the overall deadline can only
        # pass once bytes may have been written.
        timeout = httpx.Timeout(timeout_s, connect=timeout_s / 2, pool=timeout_s / 4)
        try:
            return client.build_request(
                self.method, self.url, headers=headers, json=as_json, content=raw, timeout=timeout
            )
        except (TypeError, ValueError, httpx.InvalidURL) as error:
            raise PermanentError(f"{self.method} {self.url} cannot be sent: {error}") from error


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        url: what was asked, fit to be shown.
        status: the HTTP status.
        retry_after_s: seconds the target asks us to wait; 0 when it does not say.
        body: at most `MAX_BODY_BYTES`.
    """

    url: str
    status: int
    retry_after_s: float
    body: bytes

    @property
    def ok(self) -> bool:
        """Say whether it was done (2xx)."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def json_object(self) -> dict[str, Any] | None:
        """Return the body if it is a JSON object, else None."""
        try:
            value = from_json(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


async def exchange(client: httpx.AsyncClient, request: Request, *, timeout_s: float) -> Answer:
    """Send once, whatever happens, and return the answer with any status.

    Args:
        client: shared; redirects are never followed, whatever it is set to.
        request: what to send.
        timeout_s: the longest wait from here to the last byte of the answer, in seconds.

    Raises:
        TemporaryError: no connection came about, so not a byte was sent.
        PermanentError: the request cannot be sent at all.
        OutcomeUnknownError: it was or may have been sent, and no whole answer came back.
    """
    built = request.build(client, timeout_s)
    shown = _shown(built)
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(client, built)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        why = str(error) or type(error).__name__
        raise TemporaryError(f"{shown}: cannot reach it: {why}; nothing was sent") from error
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
        raise PermanentError(f"{shown} cannot be sent: {error}") from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise OutcomeUnknownError(
            f"{shown} was sent and not answered within {timeout_s:g} s"
        ) from error
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise OutcomeUnknownError(f"{shown} was sent and its answer was lost: {why}") from error


async def _exchange(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        body = await _body(response)
    finally:
        await response.aclose()
    return Answer(
        url=_shown(request),
        status=response.status_code,
        retry_after_s=retry_after(response.headers.get("Retry-After", "")),
        body=body,
    )


async def _body(response: httpx.Response) -> bytes:
    parts = bytearray()
    try:
        async for part in response.aiter_bytes():
            parts += part
            if len(parts) > MAX_BODY_BYTES:
                break
    except httpx.HTTPError:
        # The status of a refusal says enough; a success must be read to its end.
        if response.is_success:
            raise
    return bytes(parts[: MAX_BODY_BYTES + 1])


def _shown(request: httpx.Request) -> str:
    # Without a user, a password or a query: messages are kept and shown to many.
    url = request.url
    return f"{request.method} {url.scheme}://{url.netloc.decode()}{url.path}"


def retry_after(header: str) -> float:
    """Return the seconds in a `Retry-After` header; 0 for a date, nonsense or none."""
    # RFC 9110, 10.2.3 allows a date as well; the services we steer send seconds.
    text = header.strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


def result_of(answer: Answer, *, refuses_before_applying: bool) -> Answer:
    """Return the answer if it is a 2xx, else raise what its status means.

    Args:
        answer: as received.
        refuses_before_applying: whether this kind of target promises that its 503 comes before
            anything was applied. Without the promise a 503 may come from half-way.

    Raises:
        TemporaryError: 429, or 503 from a target that gives the promise.
        RefusedError: the target understood and said no.
        OutcomeUnknownError: one of `MAY_BE_DONE`, or any other answer from 500 on.
        PermanentError: any other answer.
    """
    if answer.ok:
        return answer
    return _raise_for(answer, refuses_before_applying=refuses_before_applying)


def _raise_for(answer: Answer, *, refuses_before_applying: bool) -> NoReturn:
    message = f"{answer.url} answered {answer.status}: {excerpt(answer)}"
    later = answer.status == HTTPStatus.SERVICE_UNAVAILABLE and refuses_before_applying
    if later or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        raise TemporaryError(message, retry_after=answer.retry_after_s)
    if answer.status in REFUSALS:
        detail = answer.json_object() or {}
        reason = str(detail.get("reason") or REFUSALS[answer.status])
        raise RefusedError(message, reason=reason, detail=detail)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in MAY_BE_DONE:
        raise OutcomeUnknownError(message)
    raise PermanentError(message)


def excerpt(answer: Answer, limit: int = 200) -> str:
    """Return what the body says, on one line of at most `limit` characters."""
    said = (answer.json_object() or {}).get("error")
    text = said if isinstance(said, str) else answer.body.decode("utf-8", "replace")
    line = " ".join(plain(text).split())
    return line[:limit] or "(no text)"


def plain(text: str) -> str:
    """Return what others said without its control characters: it is kept, and shown to people."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
