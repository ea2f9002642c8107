"""Every metric of the detector, in a registry of its own; filled by batcher, limiter and routes.

The first block keeps the names of the article (its Summary stays a Summary), the second is ours.
Those of GPUs and memory are readings, not counts of ours: ``gpu`` adds them to the registry.
Surprise: a metric with labels and no sample shows only HELP and TYPE, which is how what does not
apply becomes *absent* and never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
    generate_latest,
)

# Seconds of one forward pass: client defaults plus the milliseconds a GPU takes.
PASS_BUCKETS: Final = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
# Seconds of one request; dense round the objective of 0.25.
REQUEST_BUCKETS: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4),
    *(0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0),
)
WAIT_BUCKETS: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)
# Seconds of one stage of one frame (or pass): from drawing boxes to encoding 4K.
STAGE_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5),
)
# Seconds of one whole video, from its first chunk to its result.
VIDEO_BUCKETS: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
CONFIDENCE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry:
    """The metrics as attributes; one instance per app."""

    def __init__(self) -> None:
        """Register everything in a fresh registry."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._canary: tuple[Gauge, Gauge, Gauge] | None = None
        self._article()
        self._requests()
        self._settings()
        self._stages()
        self._videos()
        self._health()

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

    def follow(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Let ``gauge`` read its value at every scrape."""
        gauge.set_function(read)

    def note_canary(self, *, ok: bool, iou: float, at: float) -> None:
        """Record a canary at ``at`` (epoch seconds); the series exist from the first one on."""
        if self._canary is None:
            self._canary = (
                self._gauge("detector_canary_success", "1: the canary was found; 0: blind."),
                self._gauge("detector_canary_timestamp_seconds", "Time of the last canary."),
                self._gauge(
                    "detector_canary_iou",
                    "Overlap of the box found with the known one; a model that is well repeats it.",
                ),
            )
        for gauge, value in zip(self._canary, (ok, at, iou), strict=True):
            gauge.set(value)

    def note_frame(self, classes: Collection[str], found: Iterable[tuple[str, float]]) -> None:
        """Count one frame that went through the model, and the class and confidence of its objects.

        A class that is none of the model's ``classes`` is counted as ``other``, so that there are
        never more series than classes.
        """
        self.detection_frames.inc()
        for name, confidence in found:
            label = name if name in classes else "other"
            self.detection_objects.labels(label).inc()
            self.confidence.labels(label).observe(confidence)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _article(self) -> None:
        self.detection_requests = self._counter(
            "detection_requests_total", "Detection requests received."
        )
        self.detection_frames = self._counter(
            "detection_frames_total", "Frames that went through the model."
        )
        self.detection_objects = self._counter(
            "detection_objects_total", "Objects found, by class.", "class_name"
        )
        self.inference_duration = self._histogram(
            "inference_duration_seconds", "One forward pass over a micro-batch.", PASS_BUCKETS
        )
        self.processing_latency = Summary(
            "processing_latency_seconds",
            "Admission to answer, of requests that were answered.",
            registry=self.registry,
        )
        self.conf_threshold = self._gauge("confidence_threshold", "Confidence threshold in force.")
        self.iou_threshold = self._gauge("iou_threshold", "NMS IoU threshold in force.")
        self.http_in_progress = self._gauge(
            "http_requests_in_progress", "HTTP requests being served, control paths included."
        )

    def _requests(self) -> None:
        self.request_duration = self._histogram(
            "detector_request_duration_seconds",
            "Admission to answer or deadline, queue included; failed requests are left out.",
            REQUEST_BUCKETS,
        )
        self.requests = self._counter(
            "detector_requests_total", "Detection requests by outcome.", "outcome"
        )
        for outcome in ("ok", "error", "rejected", "deadline", "cancelled"):
            self.requests.labels(outcome)
        self.rejected = self._counter(
            "detector_rejected_total", "Detection requests refused, by reason.", "reason"
        )
        self.inflight = self._gauge("detector_inflight_requests", "Requests that hold a slot.")
        self.queue_depth = self._gauge("detector_queue_depth", "Requests waiting for a slot.")
        self.queue_wait = self._histogram(
            "detector_queue_wait_seconds", "Admission to the start of the pass.", WAIT_BUCKETS
        )
        self.batch_size = self._histogram(
            "detector_batch_size", "Frames in one forward pass.", BATCH_BUCKETS
        )

    def _stages(self) -> None:
        self.stage_duration = self._histogram(
            "detector_stage_duration_seconds",
            "One stage of one frame; preprocess, inference and postprocess: of one pass.",
            STAGE_BUCKETS,
            "stage",
        )
        self.confidence = self._histogram(
            "detector_confidence",
            "Confidence of the objects found, by class; its drift tells of a model gone stale.",
            CONFIDENCE_BUCKETS,
            "class_name",
        )
        self.frames_dropped = self._counter(
            "detector_frames_dropped_total",
            "Frames that never went through the model, by reason.",
            "reason",
        )
        for reason in ("deadline", "cancelled"):
            self.frames_dropped.labels(reason)
        self.out_of_memory = self._counter(
            "detector_out_of_memory_total", "Passes for which the device had no room."
        )
        self.batch_limit = self._gauge(
            "detector_batch_limit",
            "Frames one pass may have: batch_size, less after the device ran out of memory.",
        )

    def _videos(self) -> None:
        self.video_jobs = self._gauge("detector_video_jobs", "Video jobs, by state.", "state")
        self.video_backlog = self._gauge(
            "detector_video_backlog_seconds",
            "Seconds of video accepted and not yet worked off.",
        )
        self.video_ended = self._counter(
            "detector_videos_ended_total", "Video jobs that ended, by outcome.", "outcome"
        )
        for outcome in ("done", "failed", "cancelled"):
            self.video_ended.labels(outcome)
        self.video_duration = self._histogram(
            "detector_video_duration_seconds",
            "Seconds of work on one video, waiting and parking left out.",
            VIDEO_BUCKETS,
        )
        self.video_frames = self._counter(
            "detector_video_frames_total", "Frames of videos decoded and worked off."
        )
        self.video_parked = self._counter(
            "detector_video_parked_total", "Videos that gave their slot back, by reason.", "reason"
        )
        self.stream_last_frame = self._gauge(
            "detector_stream_last_frame_timestamp_seconds",
            "When each running video worker last finished a frame.",
            "stream",
        )

    def _settings(self) -> None:
        self.limit = self._gauge(
            "detector_concurrency_limit",
            "Requests that may run now: the ceiling, or less by the adaptive limit.",
        )
        self.ceiling = self._gauge("detector_concurrency_ceiling", "max_concurrency in force.")
        self.generation = self._gauge(
            "detector_config_generation", "Generation of the settings document."
        )
        self.config_changes = self._counter(
            "detector_config_changes_total",
            "Changed settings, by field and kind of writer.",
            *("field", "owner_kind"),
        )
        self.config_info = self._gauge(
            "detector_config_info",
            "What is loaded; always 1.",
            *("model", "version", "nms", "backend", "precision"),
        )
        self.leases_active = self._gauge(
            "detector_leases_active", "Settings held over their base, or ramping back to it."
        )

    def _health(self) -> None:
        self.last_inference = self._gauge(
            "detector_last_inference_timestamp_seconds", "End of the last forward pass."
        )
        self.ready = self._gauge("detector_ready", "1: loaded, warm, not draining.")
        self.draining = self._gauge("detector_draining", "1: refuses new work on request.")
        self.build_info = self._gauge(
            "detector_build_info", "Versions; always 1.", "version", "commit", "torch", "cuda"
        )
        self.started = self._gauge(
            "detector_start_time_seconds", "Start of the process, seconds since the epoch."
        )
