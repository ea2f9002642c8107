"""Asks Alertmanager which alerts are active and routed to us, and which silences there are.

Made by `app`; called by the level reconcile and, as the engine's `SilenceSource`, by admission. The
surprise: all peers are asked and their answers merged. Peers gossip notifications and silences but
not alerts, so one of them may not know an alert that Prometheus could not deliver to it. And an
alert that only a run of ours silenced still counts as active: it is not over.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import httpx
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError

from remediator.errors import ConfigurationError, TemporaryError
from remediator.model.alert import Alert, Silence
from remediator.model.labels import Matcher, is_regex
from remediator.prometheus.fetch import fetch, one_line, origin, root_url

_NEVER = datetime.min.replace(tzinfo=UTC)


class _Status(BaseModel):
    state: str
    silenced_by: list[str] = Field(alias="silencedBy", default=[])
    inhibited_by: list[str] = Field(alias="inhibitedBy", default=[])
    muted_by: list[str] = Field(alias="mutedBy", default=[])

    def speaks(self, ours: frozenset[str]) -> bool:
        """Say whether nobody has told it to be quiet; `ours` are silences that do not count."""
        if self.inhibited_by or self.muted_by or not ours.issuperset(self.silenced_by):
            return False
        return self.state != "suppressed" or bool(self.silenced_by)


class _Active(BaseModel):
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts_at: AwareDatetime = Field(alias="startsAt")
    updated_at: AwareDatetime = Field(alias="updatedAt", default=_NEVER)
    generator_url: str = Field(alias="generatorURL", default="")
    status: _Status

    def as_alert(self) -> Alert:
        # `endsAt` is dropped: here it is the time at which Alertmanager would give up waiting for
        # news, not an end.
        return Alert(
            fingerprint=self.fingerprint,
            firing=True,
            labels=self.labels,
            annotations=self.annotations,
            starts_at=self.starts_at,
            generator_url=self.generator_url,
            updated_at=self.updated_at,
        )


class _Matcher(BaseModel):
    name: str
    value: str
    is_regex: bool = Field(alias="isRegex")
    is_equal: bool = Field(alias="isEqual", default=True)

    def as_matcher(self) -> Matcher:
        if self.is_regex and not is_regex(self.value):
            # Go's RE2 is younger than the C++ one here. What we cannot read is taken to match.
            return Matcher(self.name, "=~", "(?s:.*)")
        if self.is_regex:
            return Matcher(self.name, "=~" if self.is_equal else "!~", self.value)
        return Matcher(self.name, "=" if self.is_equal else "!=", self.value)


class _SilenceState(BaseModel):
    state: str


class _Silence(BaseModel):
    id: str
    matchers: list[_Matcher]
    created_by: str = Field(alias="createdBy", default="")
    comment: str = ""
    ends_at: AwareDatetime = Field(alias="endsAt")
    status: _SilenceState

    def as_silence(self) -> Silence:
        return Silence(
            id=self.id,
            matchers=tuple(matcher.as_matcher() for matcher in self.matchers),
            created_by=self.created_by,
            comment=self.comment,
            ends_at=self.ends_at,
        )


_ALERTS = TypeAdapter(list[_Active])
_SILENCES = TypeAdapter(list[_Silence])
T = TypeVar("T")


class AlertmanagerClient:
    """One Alertmanager, or all peers of a cluster.

    Attributes:
        base_urls: one for each peer, such as `http://127.0.0.1:9093`.
        client: shared and owned by `app`.
        timeout_s: longest wait for one peer, in seconds; peers are asked side by side.

    Raises:
        ConfigurationError: no URL, or one that is none.
    """

    def __init__(
        self, base_urls: Sequence[str], *, client: httpx.AsyncClient, timeout_s: float = 5.0
    ) -> None:
        if not base_urls:
            raise ConfigurationError("no Alertmanager is configured; give at least one URL")
        self.base_urls = tuple(root_url(url) for url in base_urls)
        self.client = client
        self.timeout_s = timeout_s

    async def active_alerts(self, receiver: str) -> tuple[list[Alert], list[str]]:
        """Return the alerts that fire, are routed to `receiver` and are not kept quiet.

        Returns:
            The alerts, one for each fingerprint, and a sentence for each peer that did not answer;
            while there is one, an alert that is missing may only be missing from the others.

        Raises:
            TemporaryError: no peer answered.
        """
        found, failed = await self._of_all(lambda url: self._active(url, receiver))
        return [active.as_alert() for active in _newest(found)], failed

    async def silences(self) -> list[Silence]:
        """Return the active silences, one for each id.

        One peer that answers is enough: peers tell each other of silences.

        Raises:
            TemporaryError: no peer answered.
        """
        found, _ = await self._of_all(self._silences)
        return list({one.id: one for answer in found for one in answer}.values())

    async def _of_all(self, ask: Callable[[str], Awaitable[T]]) -> tuple[list[T], list[str]]:
        """Ask every peer; return what was answered, and why the others did not."""

        async def attempt(url: str) -> T | TemporaryError:
            try:
                return await ask(url)
            except TemporaryError as error:
                return error

        answers = await asyncio.gather(*(attempt(url) for url in self.base_urls))
        failed = [str(answer) for answer in answers if isinstance(answer, TemporaryError)]
        if len(failed) == len(answers):
            raise TemporaryError("no Alertmanager answered: " + "; ".join(failed))
        return [a for a in answers if not isinstance(a, TemporaryError)], failed

    async def _active(self, base_url: str, receiver: str) -> list[_Active]:
        asked = {
            "receiver": f"^{re.escape(receiver)}$",
            "active": "true",
            "silenced": "true",
            "inhibited": "false",
        }
        listed = await self._get(f"{base_url}/api/v2/alerts", asked, _ALERTS)
        ours: frozenset[str] = frozenset()
        if any(alert.status.silenced_by for alert in listed):
            ours = frozenset(one.id for one in await self._silences(base_url) if one.is_ours)
        return [alert for alert in listed if alert.status.speaks(ours)]

    async def _silences(self, base_url: str) -> list[Silence]:
        # Alertmanager 0.25 knows no filter by state: it lists the expired ones of days.
        listed = await self._get(f"{base_url}/api/v2/silences", {}, _SILENCES)
        return [one.as_silence() for one in listed if one.status.state == "active"]

    async def _get(self, url: str, params: dict[str, str], answer: TypeAdapter[T]) -> T:
        request = self.client.build_request("GET", url, params=params, timeout=self.timeout_s)
        where = origin(request.url)
        response = await fetch(self.client, request, timeout_s=self.timeout_s)
        if response.status_code != httpx.codes.OK:
            raise TemporaryError(f"{where}: HTTP {response.status_code}: {one_line(response.text)}")
        try:
            return answer.validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the body"
            what = "alerts" if url.endswith("alerts") else "silences"
            raise TemporaryError(
                f"{where}: not a list of {what}: {place}: {first['msg']}"
            ) from error


def _newest(answers: Iterable[Iterable[_Active]]) -> list[_Active]:
    newest: dict[str, _Active] = {}
    for alert in (alert for answer in answers for alert in answer):
        known = newest.get(alert.fingerprint)
        if known is None or known.updated_at < alert.updated_at:
            newest[alert.fingerprint] = alert
    return list(newest.values())
