"""Tells a person by POSTing the message as JSON to a URL. Made by `app`.

The surprise: an answer that was lost is an unknown outcome even here. The message carries its key
as `Idempotency-Key`, so whoever calls may decide that telling twice is better than not at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path

import httpx

from remediator.errors import (
    OutcomeUnknownError,
    PermanentError,
    RefusedError,
    TemporaryError,
)
from remediator.model.effect import Message

# An hour: longer than anybody should wait to be told.
MAX_RETRY_AFTER_S = 3600.0
REFUSALS = {
    401: "unauthorized",
    403: "forbidden",
    409: "conflict",
    412: "precondition",
    413: "too_large",
    422: "invalid",
}
LATER = frozenset({429, 503})
# A redirect after a POST says as a rule that it is done; 408 and 499 are said by who stood between.
MAY_BE_DONE = frozenset({301, 302, 303, 408, 499})


class WebhookNotifier:
    """One URL that takes messages; any 2xx means that they were told.

    Attributes:
        url: where to POST `{key, severity, title, body, dedup}`.
        client: shared and owned by `app`.
        token_file: holds the bearer token, read anew for each message; None sends none.
        timeout_s: longest wait for the status of the answer, in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient,
        token_file: Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.url = url
        self.client = client
        self.token_file = token_file
        self.timeout_s = timeout_s

    async def notify(self, message: Message) -> None:
        """Send the message, once.

        Raises:
            TemporaryError: not told: no connection, a bad token file, or the receiver said later.
            PermanentError: not told: the receiver said no.
            OutcomeUnknownError: sent, and nobody said what became of it.
        """
        request = await self._request(message)
        where = _shown(request.url)
        try:
            async with asyncio.timeout(self.timeout_s):
                response = await self.client.send(request, stream=True, follow_redirects=False)
                # The status says it all, and a body may be endless.
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise TemporaryError(f"cannot reach {where}: {error!r}; nothing was sent") from error
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise PermanentError(f"POST {where} cannot be sent: {error}") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise OutcomeUnknownError(
                f"POST {where} was sent and not answered within {self.timeout_s:g} s"
            ) from error
        except httpx.HTTPError as error:
            raise OutcomeUnknownError(
                f"POST {where} was sent and its answer was lost: {error!r}"
            ) from error
        _judge(where, response)

    async def _request(self, message: Message) -> httpx.Request:
        # A connection of its own: one that the receiver closed while it was idle would fail only
        # after the message was written.
        headers = {"Idempotency-Key": message.key, "Connection": "close"}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {await _token(self.token_file)}"
        timeout = httpx.Timeout(self.timeout_s, connect=self.timeout_s / 2, pool=self.timeout_s / 4)
        try:
            return self.client.build_request(
                "POST", self.url, json=asdict(message), headers=headers, timeout=timeout
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise PermanentError(f"the message {message.key} cannot be sent: {error}") from error


async def _token(path: Path) -> str:
    try:
        token = (await asyncio.to_thread(path.read_text, "utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TemporaryError(f"cannot read the token file {path}: {error}") from error
    if not token:
        raise TemporaryError(f"the token file {path} is empty")
    return token


def _shown(url: httpx.URL) -> str:
    # The path of such a URL is often a secret in itself, and messages are kept.
    return f"{url.scheme}://{url.netloc.decode()}"


def _judge(where: str, response: httpx.Response) -> None:
    if response.is_success:
        return
    status = response.status_code
    words = f"POST {where} answered {status}"
    if status in LATER:
        raise TemporaryError(words, retry_after=_seconds(response.headers.get("Retry-After", "")))
    if status in REFUSALS:
        raise RefusedError(words, reason=REFUSALS[status])
    if status in MAY_BE_DONE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise OutcomeUnknownError(words)
    raise PermanentError(words)


def _seconds(header: str) -> float:
    text = header.strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0
