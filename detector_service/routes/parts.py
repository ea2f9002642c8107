"""The running pieces that routes reach, and what they say together: ready, sick, refusing.

Made by ``app`` and hung on the FastAPI app. Surprise: readiness follows design, not the canary: a
blind detector stays ready and says so, because taking it out of rotation and restarting it is a
playbook's decision, with evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from detector_service.batcher import Batcher, DeviceState
from detector_service.canary import Canary
from detector_service.errors import DetectorError, RefusedError
from detector_service.jobs import Desk
from detector_service.limiter import Limiter
from detector_service.settings import Settings
from detector_service.telemetry import Telemetry
from detector_service.tunables import Document, Face, TunableStore

LOADING_RETRY_S = 5
DRAINING_RETRY_S = 10
SICK_RETRY_S = 30


@dataclass
class Parts:
    """One running detector.

    Attributes:
        token: control token, or None: loopback only.
        decoders: the bounded pool that turns bytes into pixels.
        desk: takes videos in and has them worked off.
        warm: the start-up pass is done.
        stopping: the process is ending.
        listeners: how many listen to the events of videos.
        failure: why it could not start.
        end: asks the server to end.
        stop: says that it is ending, as soon as that is known; from a signal handler, too.
    """

    settings: Settings
    telemetry: Telemetry
    store: TunableStore
    limiter: Limiter
    batcher: Batcher
    canary: Canary
    decoders: Executor
    desk: Desk
    instance: str
    started_at: float
    token: str | None = None
    warm: bool = False
    stopping: bool = False
    listeners: int = 0
    failure: DetectorError | None = None
    end: Callable[[], None] = field(default=lambda: None)
    stop: Callable[[], object] = field(default=lambda: None)

    @property
    def document(self) -> Document:
        """Return the settings in force."""
        return self.store.current

    @property
    def loaded(self) -> bool:
        """Say whether the model is there."""
        return self.batcher.state is DeviceState.RUNNING

    @property
    def draining(self) -> bool:
        """Say whether new work is refused on request."""
        return self.document.drain is not None

    @property
    def alive(self) -> bool:
        """Say whether the device thread comes round; load and loading do not count against it."""
        if self.batcher.state is DeviceState.LOADING:
            return True
        return self.loaded and self.batcher.beat_age_s < self.settings.hang_s

    @property
    def ready(self) -> bool:
        """Say whether a balancer should send requests."""
        return self.loaded and self.warm and self.alive and not (self.draining or self.stopping)

    def refusal(self) -> RefusedError | None:
        """Return why no detection is possible at all now (503), or None."""
        if self.stopping:
            return _unavailable("stopping", "the service is ending", DRAINING_RETRY_S)
        if self.draining:
            return _unavailable("draining", "the service is being drained", DRAINING_RETRY_S)
        if not self.alive:
            return _unavailable("sick", "the device does not answer", SICK_RETRY_S)
        if not (self.loaded and self.warm):
            return _unavailable("loading", "the model is being loaded", LOADING_RETRY_S)
        return None

    def load(self) -> dict[str, Any]:
        """Return how much is inside: inflight, queued, oldest_age_s."""
        return {
            "inflight": self.limiter.running,
            "queued": self.limiter.queued,
            "oldest_age_s": round(self.limiter.oldest_age_s, 3),
        }

    def face(self) -> Face:
        """Return what the settings view says about this process."""
        ineffective = set[str]()
        opened = self.batcher.opened
        if opened.done() and opened.exception() is None and opened.result().nms == "end2end":
            ineffective.add("iou_threshold")
        return Face(
            instance=self.instance,
            started_at=self.started_at,
            ineffective=frozenset(ineffective),
            adaptive_limit=self.limiter.adaptive_limit,
            objective_s=self.settings.objective_s,
        )


def parts_of(request: Request) -> Parts:
    """Return the pieces of the app that serves ``request``."""
    parts: Parts = request.app.state.parts
    return parts


def _unavailable(reason: str, words: str, retry_after_s: int) -> RefusedError:
    return RefusedError(503, reason, f"{words}; try again later", retry_after_s=retry_after_s)
