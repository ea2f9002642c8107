"""Calls the HTTP endpoints that the configuration names (role `endpoints`).

Wired by `app`, one for all targets; called by the engine. The surprise: a playbook chooses only
what is appended to an endpoint's URL. Scheme, host, headers and secrets stand in the configuration,
and a path that would leave the endpoint's own is refused before anything is sent.

Verb: `call` with endpoint, method, path (percent-encoded already) and body (JSON, or None). It
answers {status, said}. An endpoint promises nothing but HTTP: a 4xx was not applied, a 5xx may have
been (so may a redirect or a 408), and any 2xx was, whatever its body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from remediator.actuators.exchange import Answer, Request, excerpt, exchange, result_of
from remediator.actuators.secretfile import read_secret
from remediator.errors import PermanentError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
SAID_CHARS = 2000
# What belongs to the connection or to us; a headers file cannot change it.
OURS = frozenset(
    {
        "connection",
        "content-length",
        "fencing-token",
        "idempotency-key",
        "transfer-encoding",
        "x-fencing-token",
    }
)


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of the configuration.

    Attributes:
        url: absolute, without query; a call's path is appended to it.
        token_file: holds a bearer token, read anew for each call.
        headers_file: holds lines `Name: value`, read anew for each call.
        timeout_s: the longest wait for an answer, whatever the playbook allows, in seconds.
    """

    url: str
    token_file: Path | None = None
    headers_file: Path | None = None
    timeout_s: float = 60.0


class EndpointsActuator:
    """The endpoints of the configuration, by name.

    Attributes:
        client: shared and owned by `app`.
    """

    def __init__(self, endpoints: Mapping[str, Endpoint], *, client: httpx.AsyncClient) -> None:
        self.endpoints = endpoints
        self.client = client

    async def read(self, target: Target) -> Mapping[str, Any]:  # noqa: ARG002 - the port has it
        """Return nothing: an endpoint has no state that anybody could read."""
        return {}

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Make the call, once.

        Raises:
            TemporaryError, PermanentError, OutcomeUnknownError: see the `Actuator` port.
        """
        endpoint = self._endpoint(call)
        request = Request(
            _method(call.args),
            _url(endpoint, str(call.args.get("path") or "")),
            await _headers(endpoint, call),
            call.args.get("body"),
        )
        timeout_s = min(call.timeout_s, endpoint.timeout_s)
        answer = await exchange(self.client, request, timeout_s=timeout_s)
        result_of(answer, refuses_before_applying=False)
        return {"status": answer.status, "said": _said(answer)}

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:  # noqa: ARG002 - as read
        """Return None: no look at an endpoint says what an earlier call did."""
        return None

    def _endpoint(self, call: Call) -> Endpoint:
        if call.verb != "call":
            raise PermanentError(f"an endpoint cannot {call.verb!r}; it knows call; not sent")
        name = call.args.get("endpoint")
        found = self.endpoints.get(str(name))
        if found is None:
            known = ", ".join(sorted(self.endpoints)) or "none"
            raise PermanentError(f"no endpoint is called {name!r}; configured: {known}; not sent")
        return found


def _method(args: Mapping[str, Any]) -> str:
    method = str(args.get("method", "POST"))
    if method not in METHODS:
        raise PermanentError(f"{method!r} is not one of {', '.join(sorted(METHODS))}; not sent")
    return method


def _url(endpoint: Endpoint, path: str) -> str:
    """Return the endpoint's URL with `path` appended, if that stays below it."""
    whole = endpoint.url.rstrip("/") + path if path else endpoint.url
    pieces = unquote(path.partition("?")[0]).replace("\\", "/").split("/")
    if (path and path[0] not in "/?") or path.startswith("//") or {".", ".."} & set(pieces):
        raise PermanentError(f"the path {path!r} would leave the endpoint; not sent")
    try:
        base, url = httpx.URL(endpoint.url), httpx.URL(whole)
    except httpx.InvalidURL as error:
        raise PermanentError(f"the path {path!r} makes no URL: {error}; not sent") from error
    if (url.scheme, url.host, url.port) != (base.scheme, base.host, base.port) or url.fragment:
        raise PermanentError(f"the path {path!r} would leave the endpoint; not sent")
    return whole


async def _headers(endpoint: Endpoint, call: Call) -> dict[str, str]:
    headers = await _configured(endpoint.headers_file)
    if endpoint.token_file is not None:
        headers["Authorization"] = f"Bearer {await read_secret(endpoint.token_file)}"
    headers["X-Fencing-Token"] = str(call.fencing_token)
    if call.idempotency_key:
        headers["Idempotency-Key"] = call.idempotency_key
    return headers


async def _configured(path: Path | None) -> dict[str, str]:
    """Return the headers in a file.

    Raises:
        TemporaryError: it cannot be read.
        PermanentError: a line is no header, or one that is not its to set.
    """
    if path is None:
        return {}
    try:
        text = await asyncio.to_thread(path.read_text, "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemporaryError(f"cannot read the headers file {path}: {error}; not sent") from error
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        fine = colon and name.replace("-", "").isalnum() and f"{name}{value}".isascii()
        if not fine or not value.isprintable() or name.lower() in OURS:
            # The line itself may hold a secret.
            raise PermanentError(f"{path}:{number}: not a `Name: value` that may be sent")
        found[name] = value
    return found


def _said(answer: Answer) -> Any:
    body = answer.json_object()
    return (
        body if body is not None and len(answer.body) <= SAID_CHARS else excerpt(answer, SAID_CHARS)
    )
