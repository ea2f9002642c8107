"""The values that go in and out of the device thread.

Surprise: ``kind`` has the priority in it, so an image never waits for, nor shares the fate of,
frames of a video.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from detector_service.backends import Detection, Image


class Priority(IntEnum):
    """Who goes first; the lowest value does."""

    CANARY = 0
    IMAGE = 1
    VIDEO = 2


@dataclass(frozen=True)
class Work:
    """One frame to look at; ``expires_at`` is monotonic seconds, past it the frame is dropped."""

    image: Image
    conf: float
    iou: float
    imgsz: int
    expires_at: float = float("inf")
    priority: Priority = Priority.IMAGE

    @property
    def kind(self) -> tuple[object, ...]:
        """Return what frames of one pass must have in common."""
        return (self.priority, self.image.shape, self.imgsz, self.iou)


@dataclass(frozen=True)
class Answer:
    """What came of one frame; ``started_at`` (monotonic) and ``seconds`` are of its pass."""

    detections: tuple[Detection, ...]
    started_at: float
    seconds: float


@dataclass(frozen=True)
class BatchLimits:
    """What a pass may be.

    Attributes:
        size: frames in it.
        wait_s: seconds that the first frame waits for company.
        pass_s: seconds it is planned for, going by those before it.
    """

    size: int
    wait_s: float
    pass_s: float = float("inf")


class DeviceState(Enum):
    """What the device thread is doing."""

    LOADING = "loading"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(eq=False)
class Queued:
    """A frame in line.

    Attributes:
        queued_at: monotonic seconds.
        group: shared by the frames that were handed in together, None for a frame on its own.
    """

    work: Work
    queued_at: float
    group: object | None = None
    future: Future[Answer] = field(default_factory=Future)

    def goes_with(self, first: Queued) -> bool:
        """Say whether this frame may be in one pass with ``first``."""
        return self.group is first.group and self.work.kind == first.work.kind
