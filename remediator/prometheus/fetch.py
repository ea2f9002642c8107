"""One question over HTTP, and an answer of bounded size within a bounded time.

Called by the two clients beside it. The surprise: whatever goes wrong is a `TemporaryError` with a
sentence for people. Asking changes nothing, so "was it applied?" never comes up.
"""

from __future__ import annotations

import asyncio

import httpx

from remediator.errors import ConfigurationError, TemporaryError

# The longest answer we accept. 5000 alerts are 1.7 MB; a vector this long is no number anyway.
MAX_BODY_BYTES = 16 << 20


async def fetch(
    client: httpx.AsyncClient, request: httpx.Request, *, timeout_s: float
) -> httpx.Response:
    """Send `request` and return the whole answer, with any status.

    Args:
        client: shared; redirects are never followed.
        request: made by the same client.
        timeout_s: the longest wait from here to the last byte, in seconds.

    Raises:
        TemporaryError: no whole answer came, or it was longer than `MAX_BODY_BYTES`.
    """
    where = origin(request.url)
    try:
        async with asyncio.timeout(timeout_s):
            return await _fetch(client, request)
    except httpx.ConnectError as error:
        raise TemporaryError(f"cannot reach {where}: {_why(error)}") from error
    except (httpx.TimeoutException, TimeoutError) as error:
        raise TemporaryError(f"{where} did not answer within {timeout_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TemporaryError(f"the answer of {where} was lost: {_why(error)}") from error


async def _fetch(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    # Plain bytes only: a compressed answer could unfold to any size within one read.
    request.headers["Accept-Encoding"] = "identity"
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise TemporaryError(
                    f"{origin(request.url)} answered with more than {MAX_BODY_BYTES >> 20} MiB"
                )
    finally:
        await response.aclose()
    return httpx.Response(response.status_code, content=bytes(body), request=request)


def root_url(text: str) -> str:
    """Return `text` as a URL to append paths to.

    Raises:
        ConfigurationError: it is not a URL of HTTP.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{text!r} is not a URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"{text!r} is not a URL; write it like http://127.0.0.1:9090")
    return text.rstrip("/")


def origin(url: httpx.URL) -> str:
    """Return scheme, host and port: fit to be shown, for it has no password."""
    return f"{url.scheme}://{url.netloc.decode()}"


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def one_line(text: str, limit: int = 300) -> str:
    """Return the words of `text` on one line of at most `limit` characters."""
    return " ".join(text.split())[:limit] or "(no text)"
