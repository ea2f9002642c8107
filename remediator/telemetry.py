"""Logs and metrics of the controller itself.

Logs are structlog events: a constant message and data in keys. Metrics follow the Prometheus
conventions, with bounded labels only: never a target, a fingerprint or a run.
"""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

# From a millisecond to ten minutes: an alert's way to its first effect.
REACTION_BUCKETS = (0.01, 0.03, 0.06, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The controller's own series, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.webhooks = Counter(
            "remediator_webhooks_total",
            "Webhook posts by outcome: "
            "stored, rejected, unauthorized, incomplete, too_large, unavailable.",
            ["outcome"],
            registry=self.registry,
        )
        self.alerts = Counter(
            "remediator_alerts_total",
            "Alerts received, by what they meant beside what was stored.",
            ["meaning"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "remediator_decisions_total",
            "Decisions taken, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.dropped_runs = Counter(
            "remediator_dropped_runs_total",
            "Drives of a run that ended in an unexpected error; the run is claimed again.",
            registry=self.registry,
        )
        self.notifications = Counter(
            "remediator_notifications_total",
            "Messages to people, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.ticks = Histogram(
            "remediator_tick_duration_seconds",
            "How long one tick took.",
            ["tick"],
            buckets=REACTION_BUCKETS,
            registry=self.registry,
        )
        self.failed_ticks = Counter(
            "remediator_failed_ticks_total",
            "Ticks that ended in an error; the next one tries again.",
            ["tick"],
            registry=self.registry,
        )
        self.runs = Gauge(
            "remediator_runs",
            "Runs in the journal by kind, state and verdict.",
            ["kind", "state", "verdict"],
            registry=self.registry,
        )
        self.held_changes = Gauge(
            "remediator_held_changes", "Changes that are held now.", registry=self.registry
        )
        self.blind = Gauge(
            "remediator_blind", "1 while the Watchdog is silent.", registry=self.registry
        )
        self.paused = Gauge(
            "remediator_pauses",
            "Pauses in force, the kill switch among them.",
            registry=self.registry,
        )


def configure_logging(*, json: bool) -> None:
    """Send structlog and the standard library's logs to stderr, one line each."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer()
            if json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Looked up at every line: whoever redirects or closes stderr later is honoured.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
