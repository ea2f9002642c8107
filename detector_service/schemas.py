"""The JSON that enters and leaves, as pydantic models; used by the routes.

Surprise: unknown fields are refused. A controller that misspells ``lease_s`` must not get a
permanent change.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

DAY_S = 86_400.0

Seconds = Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Strict = StrictInt | StrictFloat


class _Inbound(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Actor(_Inbound):
    """Who does it and why."""

    owner: Name
    reason: Reason


class SettingsWrite(Actor):
    """Body of ``PATCH /v1/settings``."""

    values: dict[str, Strict]
    lease_s: Seconds | None = None
    revert_step: Annotated[Strict, Field(gt=0, allow_inf_nan=False)] | None = None
    revert_every_s: Seconds | None = None
    dry_run: bool = False


class PinWrite(Actor):
    """Body of ``PUT /v1/pins/{knob}``."""

    ttl_s: Annotated[float, Field(gt=0, le=365 * DAY_S, allow_inf_nan=False)] | None = None
    value: Strict | None = None


class DrainWrite(Actor):
    """Body of ``POST /v1/drain``."""

    lease_s: Seconds = 300.0


class Thresholds(_Inbound):
    """Query of ``POST /v1/detect``: thresholds for this request instead of those in force."""

    conf: Annotated[float, Field(ge=0.01, le=1)] | None = None
    iou: Annotated[float, Field(ge=0.05, le=1)] | None = None


class FoundObject(BaseModel):
    """One detection; ``xyxy`` in pixels of the image as sent."""

    class_id: int
    class_name: str
    confidence: float
    xyxy: tuple[float, float, float, float]


class ImageSize(BaseModel):
    """Size of the image in pixels, turned upright."""

    width: int
    height: int


class Timings(BaseModel):
    """Seconds: admission to pass, the pass, admission to answer."""

    queue_s: float
    inference_s: float
    total_s: float


class DetectAnswer(BaseModel):
    """Answer of ``POST /v1/detect``."""

    model: str
    image: ImageSize
    detections: list[FoundObject]
    timings: Timings
    generation: int


class CanaryAnswer(BaseModel):
    """Answer of ``POST /v1/canary``; ``ok`` is null where the model has no such class."""

    ok: bool | None
    iou: float | None
    seconds: float | None
