"""Asks Alertmanager which alerts are active and routed to us. Made by `app`; called by reconcile.

The surprise: all peers are asked and their answers merged. Peers gossip notifications and silences
but not alerts, so one of them may not know an alert that Prometheus could not deliver to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import httpx
from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError

from remediator.errors import ConfigurationError, TemporaryError
from remediator.model.alert import Alert
from remediator.prometheus.fetch import fetch, one_line, origin, root_url

_NEVER = datetime.min.replace(tzinfo=UTC)


class _Status(BaseModel):
    state: str
    silenced_by: list[str] = Field(alias="silencedBy", default=[])
    inhibited_by: list[str] = Field(alias="inhibitedBy", default=[])
    muted_by: list[str] = Field(alias="mutedBy", default=[])

    @property
    def speaks(self) -> bool:
        """Say whether nobody has told it to be quiet."""
        return self.state != "suppressed" and not (
            self.silenced_by or self.inhibited_by or self.muted_by
        )


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


_ANSWER = TypeAdapter(list[_Active])


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
        answers = await asyncio.gather(*(self._try(url, receiver) for url in self.base_urls))
        failed = [answer for answer in answers if isinstance(answer, str)]
        if len(failed) == len(answers):
            raise TemporaryError("no Alertmanager answered: " + "; ".join(failed))
        found = [answer for answer in answers if not isinstance(answer, str)]
        return [active.as_alert() for active in _newest(found)], failed

    async def _try(self, base_url: str, receiver: str) -> list[_Active] | str:
        try:
            return await self._ask(base_url, receiver)
        except TemporaryError as error:
            return str(error)

    async def _ask(self, base_url: str, receiver: str) -> list[_Active]:
        request = self.client.build_request(
            "GET",
            f"{base_url}/api/v2/alerts",
            params={
                "receiver": f"^{re.escape(receiver)}$",
                "active": "true",
                "silenced": "false",
                "inhibited": "false",
            },
            timeout=self.timeout_s,
        )
        where = origin(request.url)
        response = await fetch(self.client, request, timeout_s=self.timeout_s)
        if response.status_code != httpx.codes.OK:
            raise TemporaryError(f"{where}: HTTP {response.status_code}: {one_line(response.text)}")
        try:
            alerts = _ANSWER.validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the body"
            raise TemporaryError(
                f"{where}: not a list of alerts: {place}: {first['msg']}"
            ) from error
        return [alert for alert in alerts if alert.status.speaks]


def _newest(answers: Iterable[Iterable[_Active]]) -> list[_Active]:
    newest: dict[str, _Active] = {}
    for alert in (alert for answer in answers for alert in answer):
        known = newest.get(alert.fingerprint)
        if known is None or known.updated_at < alert.updated_at:
            newest[alert.fingerprint] = alert
    return list(newest.values())
