"""The JSON that enters and leaves, as pydantic models; used by the routes.

Surprise: unknown fields are refused. A controller that misspells ``lease_s`` must not get a
permanent change.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

DAY_S = 86_400.0

Seconds = Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Strict = StrictInt | StrictFloat

FILTER_RULES: Final = (
    *("sample_fps", "min_cursor_share", "min_segment_s", "max_gap_s", "skip_below"),
    "cursor_class",
)


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


class DetectQuery(Thresholds):
    """Query of ``POST /v1/detect``; ``annotated`` puts the picture with boxes into the JSON."""

    annotated: Literal["jpeg", "png", "webp"] | None = None


class VideoOptions(Thresholds):
    """Query of ``POST /v1/videos``, and fields beside ``url``; see ``jobs.Options`` and ``Rules``.

    What is left out is what is in force when the job first starts.
    """

    mode: Literal["detect", "filter"] = "detect"
    imgsz: Annotated[int, Field(ge=160, le=1280, multiple_of=32)] | None = None
    frame_stride: Annotated[int, Field(ge=1, le=300)] | None = None
    annotate: bool | None = None
    checksums: bool = False
    sample_fps: Annotated[float, Field(ge=0.01, le=60)] | None = None
    min_cursor_share: Annotated[float, Field(ge=0, le=1)] | None = None
    min_segment_s: Annotated[float, Field(ge=0, le=DAY_S)] | None = None
    max_gap_s: Annotated[float, Field(ge=0, le=DAY_S)] | None = None
    skip_below: Annotated[float, Field(ge=0, le=255)] | None = None
    cursor_class: Name | None = None

    @field_validator("frame_stride")
    @classmethod
    def _of_detect(cls, given: object, info: ValidationInfo) -> object:
        if given is not None and info.data.get("mode") == "filter":
            raise PydanticCustomError("mode", "mode=filter looks at sample_fps, not at a stride")
        return given

    @field_validator(*FILTER_RULES)
    @classmethod
    def _of_filter(cls, given: object, info: ValidationInfo) -> object:
        if given is not None and info.data.get("mode") == "detect":
            raise PydanticCustomError("mode", "has an effect with mode=filter only")
        return given

    def rules(self) -> dict[str, Any]:
        """Return the filter rules that were given."""
        given = {name: getattr(self, name) for name in FILTER_RULES}
        return {name: value for name, value in given.items() if value is not None}


class VideoByUrl(VideoOptions):
    """JSON body of ``POST /v1/videos``: a film to fetch."""

    url: Annotated[str, Field(min_length=1, max_length=2048)]


class VideoList(_Inbound):
    """Query of ``GET /v1/videos``; ``before`` is the ``next`` of the page before."""

    state: (
        Literal["fetching", "queued", "running", "parked", "done", "failed", "cancelled"] | None
    ) = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    before: Annotated[int, Field(ge=1, lt=2**63)] | None = None


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
    """Answer of ``POST /v1/detect``; ``annotated``, where asked for, is a ``data:`` URL."""

    model: str
    image: ImageSize
    detections: list[FoundObject]
    timings: Timings
    generation: int
    annotated: str | None = None


class CanaryAnswer(BaseModel):
    """Answer of ``POST /v1/canary``; ``ok`` is null where the model has no such class."""

    ok: bool | None
    iou: float | None
    seconds: float | None


class BeforeAfter(BaseModel):
    """One figure before and after; null where it cannot be told."""

    before: int | None
    after: int | None


class CacheAnswer(BaseModel):
    """Answer of ``POST /v1/cache/clear``; the device's figure is null where there is no GPU."""

    resident_bytes: BeforeAfter
    device_reserved_bytes: BeforeAfter
    seconds: float
