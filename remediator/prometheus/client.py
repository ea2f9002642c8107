"""Asks Prometheus; the engine's `MetricSource`. Made by `app`.

The surprise: `query` never raises for a bad answer. A Prometheus that is down, slow or wrong is a
reading like any other, because the engine has to put on record why it did not act.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import httpx

from remediator.clock import Clock, system_clock
from remediator.errors import TemporaryError
from remediator.model.verdict import Reading, Vector
from remediator.prometheus.answers import (
    Success,
    no_answer,
    parse,
    reading_of,
    readings_of,
    vector_of,
)
from remediator.prometheus.fetch import fetch, root_url

# Prometheus gives up a little before we do, so that its own words for it reach us.
SERVER_SHARE = 0.9


class PrometheusClient:
    """One Prometheus.

    Attributes:
        base_url: such as `http://127.0.0.1:9090`, with the path prefix if it has one.
        client: shared and owned by `app`.
        timeout_s: longest wait for one answer, in seconds.
        clock: gives a time to readings that have none of their own.

    Raises:
        ConfigurationError: `base_url` is no URL.
    """

    def __init__(
        self,
        base_url: str,
        *,
        client: httpx.AsyncClient,
        timeout_s: float = 5.0,
        clock: Clock = system_clock,
    ) -> None:
        self.base_url = root_url(base_url)
        self.client = client
        self.timeout_s = timeout_s
        self.clock = clock

    async def query(self, promql: str) -> Reading:
        """Evaluate a query now and return the one number it gives, or why there is none.

        `at` is Prometheus' own time of evaluation wherever it told it.
        """
        asked_at = self.clock()
        try:
            answer = await self._ask("query", {"query": promql})
        except TemporaryError as error:
            return no_answer(promql, asked_at, str(error))
        return reading_of(promql, answer, asked_at)

    async def series(self, promql: str) -> Vector:
        """Evaluate a query now and return every series it gives, or why there is none."""
        asked_at = self.clock()
        try:
            answer = await self._ask("query", {"query": promql})
        except TemporaryError as error:
            return Vector(query=promql, at=asked_at, error=str(error))
        return vector_of(promql, answer, asked_at)

    async def history(
        self, promql: str, *, end: datetime, length: timedelta, step: timedelta
    ) -> list[Reading]:
        """Evaluate a query over the past `length`, oldest first.

        Empty when it cannot be told: no data, an error, or more than one series.
        """
        form = {
            "query": promql,
            "start": f"{(end - length).timestamp():.3f}",
            "end": f"{end.timestamp():.3f}",
            "step": f"{step.total_seconds():.3f}",
        }
        try:
            answer = await self._ask("query_range", form)
        except TemporaryError:
            return []
        return readings_of(promql, answer)

    async def ready(self) -> bool:
        """Say whether Prometheus is up and has loaded its data."""
        try:
            request = self._request("GET", f"{self.base_url}/-/ready")
            return (await fetch(self.client, request, timeout_s=self.timeout_s)).is_success
        except TemporaryError:
            return False

    async def _ask(self, what: str, form: Mapping[str, str]) -> Success:
        # A form, not a URL: proxies cut long URLs, and Prometheus reads no JSON bodies.
        server_ms = round(self.timeout_s * SERVER_SHARE * 1000)
        data = {**form, "timeout": f"{server_ms}ms"}
        try:
            request = self._request("POST", f"{self.base_url}/api/v1/{what}", data)
        except UnicodeEncodeError as error:
            raise TemporaryError(f"the query has characters that are no text: {error}") from error
        response = await fetch(self.client, request, timeout_s=self.timeout_s)
        return parse(response.status_code, response.content)

    def _request(
        self, method: str, url: str, data: Mapping[str, str] | None = None
    ) -> httpx.Request:
        return self.client.build_request(method, url, data=data, timeout=self.timeout_s)
