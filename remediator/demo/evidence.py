"""What really happened, read from the journal (by the API) and from Prometheus.

The story's exit status rests on this and on nothing the story hoped for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from remediator.demo.layout import StackError

JOB = "videoagent_screenfilter"


@dataclass
class Check:
    """One thing that must be true, and what was seen."""

    what: str
    ok: bool
    seen: str


@dataclass
class Report:
    """What the demo measured, and whether both loops closed."""

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, *, ok: bool, seen: object) -> None:
        """Put one check on record."""
        self.checks.append(Check(what=what, ok=bool(ok), seen=str(seen)))

    @property
    def closed(self) -> bool:
        """Say whether every check held, and there were any."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "closed": self.closed,
            "figures": self.figures,
            "checks": [vars(check) for check in self.checks],
        }


class Witness:
    """Asks the controller, Prometheus and the detector."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls
        self._client = httpx.Client(timeout=5.0, trust_env=False)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def api(self, path: str, **query: Any) -> Any:
        """Return what the controller says.

        Raises:
            StackError: it does not answer.
        """
        return self._get(self._urls["controller"] + "/api/v1" + path, query)

    def settings(self) -> dict[str, Any]:
        """Return the detector's settings document.

        Raises:
            StackError: it does not answer.
        """
        document: dict[str, Any] = self._get(self._urls["detector"] + "/v1/settings", {})
        return document

    def prometheus(self, promql: str) -> float | None:
        """Return the one number a query gives, or None.

        Raises:
            StackError: Prometheus does not answer.
        """
        url = self._urls["prometheus"] + "/api/v1/query"
        result = self._get(url, {"query": promql})["data"]["result"]
        return float(result[0]["value"][1]) if len(result) == 1 else None

    def _get(self, url: str, query: dict[str, Any]) -> Any:
        try:
            answer = self._client.get(url, params=query)
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise StackError(f"{url} does not answer: {error}") from error

    def newest_run(self, playbook: str, *, kind: str = "remedy") -> dict[str, Any] | None:
        """Return the story of the newest run of a playbook, or None."""
        found = self.api("/runs", playbook=playbook, kind=kind, limit=1)
        return self.api(f"/runs/{found[0]['id']}") if found else None

    def until(
        self, what: str, ask: Callable[[], Any], *, within_s: float, also: Callable[[], None]
    ) -> Any:
        """Return what `ask` gives once it is true, calling `also` in between.

        Raises:
            StackError: it did not come true in time.
        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            also()
            answer = ask()
            if answer:
                return answer
            time.sleep(0.3)
        raise StackError(f"{what} did not happen within {within_s:g} s")


def moment(text: str | None) -> float:
    """Return an ISO time as seconds since the epoch; NaN for none."""
    return datetime.fromisoformat(text).timestamp() if text else float("nan")
