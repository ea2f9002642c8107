"""Samples the accelerator once a second, off the request path; started and stopped by ``app``.

With NVML (module ``pynvml`` of the package nvidia-ml-py) the readings are those of the GPUs this
process may use. Without them, or with a model that runs on the CPU of a machine that has some, the
only series is the share of time in which a forward pass ran: NVML's own definition of utilisation,
under ``gpu_id="cpu_busy"``.
Surprise: every reading fails alone. A card that cannot tell its temperature still tells the rest,
and a reading that fails now is removed, not left at its last value.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml
from prometheus_client import Gauge

from detector_service.telemetry import Telemetry

log = logging.getLogger(__name__)

MIB = 2**20
PERIOD_S = 1.0
BUSY_ID = "cpu_busy"


@dataclass(frozen=True)
class Reading:
    """One card's figures; None where the card or the driver does not tell.

    Attributes:
        utilization: percent of time in which a kernel ran.
        used_mb: memory in use, MiB.
        total_mb: memory there is, MiB.
        temperature: degrees Celsius.
    """

    gpu_id: str
    utilization: float | None
    used_mb: float | None
    total_mb: float | None
    temperature: float | None


def count_gpus() -> int:
    """Start NVML and return how many cards it sees; 0 where there is no library, driver or card."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as exc:
        log.info("no GPU readings: %s", exc)
        return 0


def visible(count: int, told: str | None) -> Sequence[int]:
    """Return which of ``count`` cards the process may use, by CUDA_VISIBLE_DEVICES.

    As CUDA does, the list is read up to the first entry that is no card. Entries that are not
    numbers (a UUID, a MIG instance) are not resolved: every card is shown then.
    """
    if told is None:
        return range(count)
    cards: list[int] = []
    for entry in (part.strip() for part in told.split(",")):
        if entry and not entry.lstrip("-").isdigit():
            return range(count)
        if not entry or not 0 <= int(entry) < count:
            break
        cards.append(int(entry))
    return cards


def read_gpu(index: int) -> Reading:
    """Read card number ``index``; never raises for a reading that fails."""
    handle = _try(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return Reading(str(index), None, None, None, None)
    rates = _try(pynvml.nvmlDeviceGetUtilizationRates, handle)
    memory = _try(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return Reading(
        gpu_id=str(index),
        utilization=None if rates is None else float(rates.gpu),
        used_mb=None if memory is None else memory.used / MIB,
        total_mb=None if memory is None else memory.total / MIB,
        temperature=_try(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
    )


class BusyMeter:
    """Turns a running total of busy seconds into a percentage over the last two samples."""

    def __init__(self, busy_seconds: Callable[[], float], now: Callable[[], float]) -> None:
        """Follow ``busy_seconds``; ``now`` is monotonic seconds."""
        self._busy_seconds = busy_seconds
        self._now = now
        self._points: deque[tuple[float, float]] = deque([(now(), busy_seconds())], maxlen=3)

    def sample(self) -> float | None:
        """Return percent busy since two samples ago, or None when no time has passed."""
        at, busy = self._now(), self._busy_seconds()
        self._points.append((at, busy))
        first_at, first_busy = self._points[0]
        if at <= first_at:
            return None
        return 100.0 * min(max((busy - first_busy) / (at - first_at), 0.0), 1.0)


class Sampler:
    """The thread that reads and sets the gauges."""

    def __init__(
        self,
        telemetry: Telemetry,
        busy_seconds: Callable[[], float],
        on_gpu: Callable[[], bool | None],
    ) -> None:
        """Prepare; ``start`` looks for GPUs on the thread, since a sick driver may block.

        Args:
            telemetry: whose gauges are set.
            busy_seconds: the running total of seconds in forward passes.
            on_gpu: whether the model runs on a GPU; None: not known yet, nothing is shown.
        """
        self._telemetry = telemetry
        self._on_gpu = on_gpu
        self._meter = BusyMeter(busy_seconds, time.monotonic)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        cards = visible(count_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        while not self._ended.wait(PERIOD_S):
            on_gpu = self._on_gpu()
            if on_gpu is not None:
                self.sample(cards if on_gpu else ())

    def sample(self, cards: Sequence[int]) -> None:
        """Read once: these cards, or where there are none, the share of time in a pass."""
        for index in cards:
            show(self._telemetry, read_gpu(index))
        busy = self._meter.sample()
        if not cards and busy is not None:
            self._telemetry.gpu_utilization.labels(BUSY_ID).set(busy)


def show(telemetry: Telemetry, reading: Reading) -> None:
    """Set the gauges of one card; a figure that is None leaves no series."""
    figures = (
        (telemetry.gpu_utilization, reading.utilization),
        (telemetry.gpu_memory_used, reading.used_mb),
        (telemetry.gpu_memory_total, reading.total_mb),
        (telemetry.gpu_temperature, reading.temperature),
    )
    for gauge, figure in figures:
        _set(gauge, reading.gpu_id, figure)


def _set(gauge: Gauge, gpu_id: str, figure: float | None) -> None:
    if figure is not None:
        gauge.labels(gpu_id).set(figure)
    else:
        with contextlib.suppress(KeyError):  # there was no such series
            gauge.remove(gpu_id)


def _try(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None
