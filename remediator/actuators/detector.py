"""Steers a detector through its settings document, leases and drain (role `settings`).

Wired by `app`, one for each target; called by the engine. The surprise: a 429 or 503 counts as
"definitely not applied", and only because the detector promises to give those answers before it
changes anything.

Verbs and their arguments:

    set       values {knob: number}, lease_s, owner, reason; may have revert_step, revert_every_s,
              if_generation
    release   knob, owner, reason: the leased knob is back on its base at once
    drain     owner, reason, lease_s
    undrain   owner, reason
    canary    none; answers {ok, iou, seconds}
    clear_cache  owner, reason; answers what it freed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from remediator.actuators.exchange import Answer, Request, excerpt, exchange, result_of
from remediator.actuators.secretfile import read_secret
from remediator.errors import EffectError, OutcomeUnknownError, PermanentError, TemporaryError
from remediator.model.effect import Call
from remediator.model.target import Target


@dataclass(frozen=True)
class _Verb:
    """How one verb travels: arguments in `path` and `if_generation` do not go into the body."""

    method: str
    path: str
    needs: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()


_WHO = frozenset({"owner", "reason"})
VERBS = {
    "set": _Verb(
        "PATCH",
        "/v1/settings",
        needs=_WHO | {"values", "lease_s"},
        may=frozenset({"revert_step", "revert_every_s", "if_generation"}),
    ),
    "release": _Verb("DELETE", "/v1/leases/{knob}", needs=_WHO | {"knob"}),
    "drain": _Verb("POST", "/v1/drain", needs=_WHO | {"lease_s"}),
    "undrain": _Verb("DELETE", "/v1/drain", needs=_WHO),
    "canary": _Verb("POST", "/v1/canary"),
    "clear_cache": _Verb("POST", "/v1/cache/clear", needs=_WHO),
}
_LOAD = ("inflight", "queued", "oldest_age_s")
_NOT_IN_BODY = frozenset({"knob", "if_generation"})


class DetectorActuator:
    """One detector, reached over HTTP.

    Attributes:
        base_url: such as `http://127.0.0.1:7860`.
        client: shared and owned by `app`.
        token_file: holds the bearer token, read anew for each call; None sends none.
        read_timeout_s: longest wait of `read` and `probe`, for each request, in seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        client: httpx.AsyncClient,
        token_file: Path | None = None,
        read_timeout_s: float = 5.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.client = client
        self.token_file = token_file
        self.read_timeout_s = read_timeout_s

    async def read(self, target: Target) -> Mapping[str, Any]:  # noqa: ARG002 - the port has it
        """Return `{"settings": GET /v1/settings, "ready": GET /readyz}`.

        `ready` also has `inflight`, `queued` and `oldest_age_s` from GET /v1/drain.

        Raises:
            TemporaryError: one of the three did not answer with JSON.
            PermanentError: the detector refuses to show them.
        """
        settings = await self._get("/v1/settings")
        # A service that is not ready says so with a 503 and the same fields.
        ready = await self._get("/readyz", also=HTTPStatus.SERVICE_UNAVAILABLE)
        drain = await self._get("/v1/drain")
        load = {name: drain[name] for name in _LOAD if name in drain}
        return {"settings": settings, "ready": {**load, **ready}}

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Do it, once, and return the detector's JSON answer.

        A `release` of a knob that is not leased returns `{"already": True}`.

        Raises:
            TemporaryError, PermanentError, OutcomeUnknownError: see the `Actuator` port.
        """
        request = _request(self.base_url, call, await self._authorization())
        answer = await exchange(self.client, request, timeout_s=call.timeout_s)
        if call.verb == "release" and _nothing_leased(answer):
            return {"already": True}
        body = result_of(answer, refuses_before_applying=True).json_object()
        if body is None:
            raise OutcomeUnknownError(
                f"{answer.url} answered {answer.status} without a JSON object: {excerpt(answer)}"
            )
        return body

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:  # noqa: ARG002 - as read
        """Say whether `call` shows in the detector's state; None when it does not answer."""
        try:
            match call.verb:
                case "set":
                    now = await self._get("/v1/settings")
                    return _set_shows(call, now, before.get("settings", {}))
                case "release":
                    now = await self._get("/v1/settings")
                    lease = now.get("leases", {}).get(call.args.get("knob"))
                    return lease is None or lease.get("owner") != call.args.get("owner")
                case "drain" | "undrain":
                    now = await self._get("/v1/drain")
                    ours = bool(now.get("draining")) and now.get("owner") == call.args.get("owner")
                    return ours is (call.verb == "drain")
        except EffectError:
            return None
        # A canary or an empty cache leaves no trace, so doing it again is harmless.
        return False

    async def _authorization(self) -> dict[str, str]:
        if self.token_file is None:
            return {}
        return {"Authorization": f"Bearer {await read_secret(self.token_file)}"}

    async def _get(self, path: str, *, also: int = HTTPStatus.OK) -> dict[str, Any]:
        request = Request("GET", self.base_url + path, await self._authorization())
        try:
            answer = await exchange(self.client, request, timeout_s=self.read_timeout_s)
            body = answer.json_object()
            if body is not None and answer.status in {HTTPStatus.OK, also}:
                return body
            result_of(answer, refuses_before_applying=True)
        except OutcomeUnknownError as error:
            # Reading changes nothing, so whatever became of it, it may be asked again.
            raise TemporaryError(str(error)) from error
        raise TemporaryError(f"{answer.url} answered without a JSON object: {excerpt(answer)}")


def _request(base_url: str, call: Call, authorization: Mapping[str, str]) -> Request:
    verb = VERBS.get(call.verb)
    if verb is None:
        known = ", ".join(VERBS)
        raise PermanentError(f"a detector cannot {call.verb!r}; it knows {known}")
    missing = verb.needs - call.args.keys()
    unknown = call.args.keys() - verb.needs - verb.may
    if missing or unknown:
        wrong = [f"needs {name}" for name in sorted(missing)]
        wrong += [f"does not know {name}" for name in sorted(unknown)]
        raise PermanentError(f"{call.verb} {', '.join(wrong)}; nothing was sent")
    path = verb.path.format(knob=quote(str(call.args.get("knob", "")), safe=""))
    body = {name: value for name, value in call.args.items() if name not in _NOT_IN_BODY}
    headers = {**authorization, "X-Fencing-Token": str(call.fencing_token)}
    if call.idempotency_key:
        headers["Idempotency-Key"] = call.idempotency_key
    if call.args.get("if_generation") is not None:
        headers["If-Match"] = f'"{call.args["if_generation"]}"'
    return Request(verb.method, base_url + path, headers, body)


def _nothing_leased(answer: Answer) -> bool:
    body = answer.json_object() or {}
    return answer.status == HTTPStatus.NOT_FOUND and body.get("reason") == "no_lease"


def _set_shows(call: Call, now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if not _holds(call, now):
        return False
    # The same values by the same owner stood there before: this call only renewed their leases,
    # and only a later expiry proves that.
    return not _holds(call, before) or all(
        _expiry(now, knob) > _expiry(before, knob) for knob in call.args["values"]
    )


def _holds(call: Call, settings: Mapping[str, Any]) -> bool:
    values, owners = settings.get("values", {}), settings.get("owners", {})
    return all(
        values.get(knob) == value and owners.get(knob) == call.args["owner"]
        for knob, value in call.args["values"].items()
    )


def _expiry(settings: Mapping[str, Any], knob: str) -> str:
    # RFC 3339 in UTC with fixed digits: the order of the text is the order in time.
    return str(settings.get("leases", {}).get(knob, {}).get("expires_at", ""))
