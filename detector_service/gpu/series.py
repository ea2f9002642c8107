"""The GPU series: the article's names and ours, made from the last readings at every scrape.

Used by ``sampler`` and by the stand-alone ``exporter``.
Surprise: these are no gauges that keep a value. Each sample replaces all readings, so what could
not be read now is gone, and readings older than a few seconds (a driver call that hangs) are gone
too. What stays is no reading: the faults (XID) counted so far, which may say why, and the time of
a card's last reading, for others to see that it stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from detector_service.gpu import Reading

MIB = 2**20
BUSY_ID = "cpu_busy"
# Seconds; several missed samples of one second, and less than two scrapes.
STALE_S = 10.0

Figure = Callable[[Reading], float | None]

# name, meaning, figure; one series a card, labelled gpu_id.
ARTICLE: tuple[tuple[str, str, Figure], ...] = (
    (
        "gpu_utilization_percent",
        "Share of time in which a kernel ran (cpu_busy: in a forward pass).",
        lambda card: card.utilization,
    ),
    (
        "gpu_memory_used_mb",
        "GPU memory in use, MiB.",
        lambda card: _scaled(card.used_bytes, 1 / MIB),
    ),
    (
        "gpu_memory_total_mb",
        "GPU memory there is, MiB.",
        lambda card: _scaled(card.total_bytes, 1 / MIB),
    ),
    ("gpu_temperature_celsius", "GPU temperature.", lambda card: card.temperature),
)
# The same, labelled gpu.
OURS: tuple[tuple[str, str, Figure], ...] = (
    ("detector_gpu_memory_used_bytes", "GPU memory in use.", lambda card: card.used_bytes),
    ("detector_gpu_memory_total_bytes", "GPU memory there is.", lambda card: card.total_bytes),
    ("detector_gpu_power_watts", "What the GPU draws.", lambda card: card.power_w),
    ("detector_gpu_power_limit_watts", "What the GPU may draw.", lambda card: card.power_limit_w),
)


class GpuSeries(Collector):
    """What is shown of the cards; ``show`` is called by one thread, ``collect`` by others."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Register in ``registry``; ``now`` is seconds since the epoch."""
        self._now = now
        self._monotonic = monotonic
        self._cards: Sequence[Reading] = ()
        self._busy: float | None = None
        self._shown_at = 0.0
        self._heard_at: Mapping[str, float] = {}
        registry.register(self)

    def show(self, cards: Sequence[Reading], *, busy: float | None = None) -> None:
        """Replace what is shown.

        Args:
            cards: the readings of this moment.
            busy: percent of time in a forward pass, shown as ``gpu_id="cpu_busy"``.
        """
        now = self._now()
        heard = {card.gpu_id: now for card in cards if not card.silent}
        self._heard_at = {**self._heard_at, **heard}
        self._cards, self._busy = cards, busy
        self._shown_at = self._monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield every family; one without a reading has a name and no sample."""
        fresh = self._monotonic() - self._shown_at < STALE_S
        cards = self._cards if fresh else ()
        for name, text, figure in ARTICLE:
            family = _gauge(name, text, "gpu_id", cards, figure)
            if name == "gpu_utilization_percent" and fresh and self._busy is not None:
                family.add_metric([BUSY_ID], self._busy)
            yield family
        for name, text, figure in OURS:
            yield _gauge(name, text, "gpu", cards, figure)
        yield _utilization(cards)
        yield _throttle(cards)
        yield _ecc(cards)
        yield from _xids(self._cards)
        yield self._timestamps()

    def _timestamps(self) -> Metric:
        family = GaugeMetricFamily(
            "detector_gpu_sample_timestamp_seconds",
            "When the GPU last told anything; stands still once it is lost.",
            labels=["gpu"],
        )
        for gpu, at in self._heard_at.items():
            family.add_metric([gpu], at)
        return family


def _gauge(
    name: str, text: str, label: str, cards: Sequence[Reading], figure: Figure
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for card in cards:
        value = figure(card)
        if value is not None:
            family.add_metric([card.gpu_id], value)
    return family


def _utilization(cards: Sequence[Reading]) -> Metric:
    family = GaugeMetricFamily(
        "detector_gpu_utilization_ratio",
        "Share of time in which a kernel ran, 0 to 1; a busy GPU is not a full one.",
        labels=["gpu", "uuid"],
    )
    for card in cards:
        if card.utilization is not None:
            family.add_metric([card.gpu_id, card.uuid], card.utilization / 100)
    return family


def _throttle(cards: Sequence[Reading]) -> Metric:
    family = GaugeMetricFamily(
        "detector_gpu_throttle_reasons",
        "1: the GPU's clocks are lowered for this reason (NVML's clock event reasons).",
        labels=["gpu", "reason"],
    )
    for card in cards:
        for reason, on in card.throttle.items():
            family.add_metric([card.gpu_id, reason], float(on))
    return family


def _ecc(cards: Sequence[Reading]) -> Metric:
    family = CounterMetricFamily(
        "detector_gpu_ecc_errors",
        "Memory errors since the driver was loaded, by kind.",
        labels=["gpu", "kind"],
    )
    for card in cards:
        for kind, count in card.ecc_errors.items():
            family.add_metric([card.gpu_id, kind], count)
    return family


def _xids(cards: Sequence[Reading]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "detector_gpu_xid_errors",
        "Faults (XID) the driver reported since this process listens.",
        labels=["gpu"],
    )
    for card in cards:
        if card.xid_errors is not None:
            family.add_metric([card.gpu_id], card.xid_errors)
    yield family
    yield _gauge(
        "detector_gpu_xid_last",
        "Code of the last fault (XID) the driver reported; absent before the first.",
        "gpu",
        cards,
        lambda card: card.last_xid,
    )


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
