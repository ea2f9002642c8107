"""Silences an alert in Alertmanager for a while, and ends that again (role `silences`).

Wired by `app`, one for all targets; called by the engine. The surprise: Alertmanager makes a second
silence of a request that is repeated. So each carries a tag in its comment, is looked for by that
tag before it is sent, and is ended by that tag: what nobody can say of is settled by a look.

Verbs and their arguments:

    silence   tag, matchers (as Alertmanager has them), ends_at, comment; answers {id}
    expire    tag: every silence with that tag is over
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from remediator.actuators.exchange import Request, exchange, result_of
from remediator.errors import EffectError, OutcomeUnknownError, PermanentError, TemporaryError
from remediator.model.alert import SILENCER
from remediator.model.effect import Call
from remediator.model.target import Target

# Alertmanager reads a start in the past as "now" on its own clock. One of ours that is ahead would
# leave the silence pending.
AT_ONCE = "1970-01-01T00:00:00Z"


class _Status(BaseModel):
    state: str


class _Silence(BaseModel):
    id: str
    status: _Status
    comment: str = ""
    created_by: str = Field(default="", alias="createdBy")

    def has(self, tag: str) -> bool:
        """Say whether it is ours, is not over, and carries this tag."""
        lives = self.status.state in {"active", "pending"}
        return lives and self.created_by == SILENCER and self.comment.endswith(f"[{tag}]")


_ANSWER = TypeAdapter(list[_Silence])


class SilencesActuator:
    """The silences of one Alertmanager, or of all peers of a cluster, who tell each other.

    Attributes:
        base_urls: one for each peer, such as `http://127.0.0.1:9093`.
        client: shared and owned by `app`.
        read_timeout_s: longest wait of a look, in seconds; peers are asked side by side.
    """

    def __init__(
        self, base_urls: Sequence[str], *, client: httpx.AsyncClient, read_timeout_s: float = 5.0
    ) -> None:
        self.base_urls = tuple(url.rstrip("/") for url in base_urls)
        self.client = client
        self.read_timeout_s = read_timeout_s

    async def read(self, target: Target) -> Mapping[str, Any]:  # noqa: ARG002 - the port has it
        """Return `{"silences": [{id, comment}]}`: ours that are not over.

        Raises:
            TemporaryError, PermanentError: no peer could be asked.
        """
        ours = {one.id: one for one in await self._all() if one.created_by == SILENCER}
        lasting = [one for one in ours.values() if one.status.state != "expired"]
        return {"silences": [{"id": one.id, "comment": one.comment} for one in lasting]}

    async def send(self, target: Target, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - as read
        """Silence, or end the silence; `"already": True` when that is so already.

        Raises:
            TemporaryError, PermanentError, OutcomeUnknownError: see the `Actuator` port.
        """
        if call.verb not in {"silence", "expire"}:
            raise PermanentError(
                f"cannot {call.verb!r}; it knows silence, expire; nothing was sent"
            )
        found = await self._tagged(str(call.args["tag"]))
        if call.verb == "expire":
            return await self._expire(found, call.timeout_s)
        if found:
            return {"id": found[0], "already": True}
        return await self._silence(call)

    async def probe(self, target: Target, call: Call, before: Mapping[str, Any]) -> bool | None:  # noqa: ARG002 - as read
        """Say whether `call` shows in Alertmanager; None when no peer answers."""
        try:
            found = await self._tagged(str(call.args["tag"]))
        except EffectError:
            return None
        return bool(found) is (call.verb == "silence")

    async def _tagged(self, tag: str) -> list[str]:
        # Each once: the peers of a cluster know the same ones.
        return sorted({one.id for one in await self._all() if one.has(tag)})

    async def _all(self) -> list[_Silence]:
        """Return what the peers that answer know; a silence may reach some of them later.

        Raises:
            TemporaryError, PermanentError: none of them answered.
        """
        answers = await asyncio.gather(*(self._list(url) for url in self.base_urls))
        known = [answer for answer in answers if not isinstance(answer, EffectError)]
        if not known:
            raise next(answer for answer in answers if isinstance(answer, EffectError))
        return [one for answer in known for one in answer]

    async def _list(self, base_url: str) -> list[_Silence] | EffectError:
        request = Request("GET", f"{base_url}/api/v2/silences", {})
        try:
            answer = await exchange(self.client, request, timeout_s=self.read_timeout_s)
            return _ANSWER.validate_json(result_of(answer, refuses_before_applying=True).body)
        except OutcomeUnknownError as error:
            # Looking changes nothing, so it may be done again.
            return TemporaryError(str(error))
        except EffectError as error:
            return error
        except ValidationError as error:
            return TemporaryError(
                f"{base_url} gave no list of silences: {error.errors()[0]['msg']}"
            )

    async def _silence(self, call: Call) -> dict[str, Any]:
        args = call.args
        body = {
            "matchers": args["matchers"],
            "startsAt": AT_ONCE,
            "endsAt": args["ends_at"],
            "createdBy": SILENCER,
            "comment": f"{args['comment']} [{args['tag']}]",
        }
        unreached: TemporaryError | None = None
        for base_url in self.base_urls:
            request = Request("POST", f"{base_url}/api/v2/silences", _headers(call), body)
            try:
                answer = await exchange(self.client, request, timeout_s=call.timeout_s)
            except TemporaryError as error:
                # Not a byte went out: another peer does as well.
                unreached = error
                continue
            said = result_of(answer, refuses_before_applying=False).json_object()
            if said is None or "silenceID" not in said:
                raise OutcomeUnknownError(f"{answer.url} answered without a silenceID")
            return {"id": said["silenceID"]}
        raise unreached or PermanentError("no Alertmanager is configured; nothing was sent")

    async def _expire(self, found: Sequence[str], timeout_s: float) -> dict[str, Any]:
        for silence in found:
            await self._end(silence, timeout_s)
        return {"ended": list(found), "already": not found}

    async def _end(self, silence: str, timeout_s: float) -> None:
        for position, base_url in enumerate(self.base_urls, 1):
            url = f"{base_url}/api/v2/silence/{quote(silence, safe='')}"
            try:
                answer = await exchange(
                    self.client, Request("DELETE", url, {}), timeout_s=timeout_s
                )
            except TemporaryError:
                if position == len(self.base_urls):
                    raise
                continue
            if answer.status != HTTPStatus.NOT_FOUND:
                result_of(answer, refuses_before_applying=False)
                return


def _headers(call: Call) -> dict[str, str]:
    return {"Idempotency-Key": call.idempotency_key} if call.idempotency_key else {}
