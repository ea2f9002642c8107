"""What happens to the targets meanwhile, and an Alertmanager that tells of it until it is heard.

One thread a target: it dies or is slow, over and over, each time as an alert of its own. The
surprise: some webhooks are never sent. Those alerts, and those resolves, are only to be found in
Alertmanager's list.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.chaos.plant import BASE, Emulated
from tests.harness.facts import Facts
from tests.harness.world import listed, webhook

POLL_S = 0.05
# A person who was told needs this long.
BY_HAND_S = 15.0


@dataclass
class Sender:
    """Posts webhooks as Alertmanager does: again and again until somebody says 2xx.

    Attributes:
        urls: asks for the controllers that there are now.
        acknowledged: (fingerprint, status) of every alert in a webhook that got a 2xx.
        refused: answers that Alertmanager would not retry; there should be none.
    """

    urls: Callable[[], list[str]]
    stopping: threading.Event
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    tries: int = 0
    listing: threading.Lock = field(default_factory=threading.Lock)

    def post(self, web: httpx.Client, rng: random.Random, *alerts: dict[str, Any]) -> None:
        """Send one webhook until it is acknowledged; sometimes once more after that."""
        again = rng.random() < 0.2
        while not self.stopping.is_set():
            self.tries += 1
            try:
                url = rng.choice(self.urls())
                answer = web.post(f"{url}/webhooks/alertmanager", json=webhook(alerts))
            except httpx.HTTPError:
                self.stopping.wait(rng.uniform(0.05, 0.3))
                continue
            if answer.is_success:
                self.acknowledged |= {(a["fingerprint"], a["status"]) for a in alerts}
                if not again:
                    return
                again = False
            elif answer.status_code < 500:
                self.refused.append(f"{answer.status_code}: {answer.text[:200]}")
                return
            self.stopping.wait(rng.uniform(0.05, 0.3))


@dataclass
class Storyteller:
    """The life of one target.

    Attributes:
        over: those that were over before the end.
        by_hand: how often a person had to mend it.
    """

    target: Emulated
    facts: Facts
    sender: Sender
    enough: threading.Event
    rng: random.Random
    over: set[str] = field(default_factory=set)
    by_hand: int = 0
    told: int = 0

    def live(self) -> None:
        """Tell stories until there are enough."""
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=2.0, trust_env=False, limits=limits) as web:
            self.enough.wait(self.rng.uniform(0, 2))
            while not self.enough.is_set():
                (self._dies if self.rng.random() < 0.6 else self._is_slow)(web)
                self.enough.wait(self.rng.uniform(0.5, 1.5))

    def _dies(self, web: httpx.Client) -> None:
        target = self.target
        with target.lock:
            target.sick, target.mute = True, self.rng.random() < 0.5
        alert = self._fire(web, "Dead")
        if not self._until(lambda: target.up, BY_HAND_S):
            self.by_hand += 1
            target.mended_by_hand()
        self._end(web, alert)

    def _is_slow(self, web: httpx.Client) -> None:
        target = self.target
        target.loaded = True
        alert = self._fire(web, "Slow")
        self._until(lambda: target.p95 < 0.25, BY_HAND_S)
        # Held for a while, so that renewals meet the storm, too.
        self.enough.wait(self.rng.uniform(0, 2))
        target.loaded = False
        self._end(web, alert)
        self._until(lambda: target.ceiling == BASE, BY_HAND_S)

    def _fire(self, web: httpx.Client, name: str) -> dict[str, Any]:
        self.told += 1
        alert = {
            "status": "firing",
            "labels": {"alertname": name, "instance": self.target.name, "story": str(self.told)},
            "annotations": {},
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "",
            "fingerprint": f"{self.target.name}-{self.told:05x}",
        }
        with self.sender.listing:
            self.facts.active = [*(self.facts.active or []), listed(alert)]
        if self.rng.random() < 0.9:
            self.sender.post(web, self.rng, alert)
        return alert

    def _end(self, web: httpx.Client, alert: dict[str, Any]) -> None:
        with self.sender.listing:
            self.facts.active = [
                a for a in self.facts.active or [] if a["fingerprint"] != alert["fingerprint"]
            ]
        self.over.add(alert["fingerprint"])
        if self.rng.random() < 0.9:
            resolved = {**alert, "status": "resolved", "endsAt": datetime.now(UTC).isoformat()}
            self.sender.post(web, self.rng, resolved)

    def _until(self, condition: Callable[[], object], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline or self.sender.stopping.is_set():
                return False
            time.sleep(POLL_S)
        return True
