"""Samples accelerator and memory once a second, off the request path; run by ``app``.

Where the model runs on a GPU the readings are those of the cards this process may use. Where it
runs on the CPU, whatever cards there are, the only GPU series is the share of time in which a
forward pass ran: NVML's own definition of utilisation, under ``gpu_id="cpu_busy"``.
Surprise: what the device's allocator holds is asked for on the device thread, between passes; the
sampler does not wait for it, and shows nothing that is older than a few seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from detector_service.backends import Memory
from detector_service.errors import InferenceError
from detector_service.gpu import Cards
from detector_service.gpu.series import STALE_S, GpuSeries

PERIOD_S = 1.0
STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Sources:
    """What the sampler asks of the service.

    Attributes:
        busy_seconds: the running total of seconds in forward passes.
        on_gpu: whether the model runs on a GPU; None: not known yet, nothing is shown.
        warm: the start-up pass is done.
        healthy: the device thread is not lost.
        device_memory: asks the device thread what its allocator holds.
    """

    busy_seconds: Callable[[], float]
    on_gpu: Callable[[], bool | None]
    warm: Callable[[], bool]
    healthy: Callable[[], bool]
    device_memory: Callable[[], Future[Memory | None]]


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


class MemorySeries(Collector):
    """Memory of this process and of its device, and whether the device is well."""

    def __init__(self, registry: CollectorRegistry, healthy: Callable[[], bool]) -> None:
        """Register in ``registry``; ``healthy`` is asked at every scrape of a GPU."""
        self._healthy = healthy
        self._baseline: float | None = None
        self._on_gpu = False
        self._device: tuple[float, Memory | None] = (0.0, None)
        registry.register(self)

    def note_warm(self) -> None:
        """Take the size of now as the baseline, once."""
        if self._baseline is None:
            self._baseline = resident_bytes()

    def note_gpu(self) -> None:
        """Show a GPU from now on."""
        self._on_gpu = True

    def note_device(self, memory: Memory | None) -> None:
        """Show what the device's allocator holds."""
        self._device = (time.monotonic(), memory)

    def collect(self) -> Iterator[Metric]:
        """Yield every family; one without a reading has a name and no sample."""
        baseline = self._baseline
        resident = resident_bytes()
        growth = None if baseline is None or resident is None else resident - baseline
        at, device = self._device
        if time.monotonic() - at >= STALE_S:
            device = None
        for name, text, value in (
            ("detector_memory_baseline_bytes", "Resident size once warm.", baseline),
            ("detector_memory_growth_bytes", "Resident size less the baseline.", growth),
            (
                "detector_torch_memory_allocated_bytes",
                "GPU memory in tensors that are alive; one that only grows leaks.",
                None if device is None else device.allocated,
            ),
            (
                "detector_torch_memory_reserved_bytes",
                "GPU memory the allocator holds, its cache included.",
                None if device is None else device.reserved,
            ),
            (
                "detector_cuda_healthy",
                "1: the device thread is well; 0: the GPU was lost, only a restart helps.",
                float(self._healthy()) if self._on_gpu else None,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)


class Sampler:
    """The thread that reads and shows."""

    def __init__(self, registry: CollectorRegistry, sources: Sources) -> None:
        """Prepare; NVML is started on the thread, since a sick driver may block."""
        self._sources = sources
        self._gpu = GpuSeries(registry)
        self._memory = MemorySeries(registry, sources.healthy)
        self._cards = Cards(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self._meter = BusyMeter(sources.busy_seconds, time.monotonic)
        self._asked: Future[Memory | None] | None = None
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
        while not self._ended.wait(PERIOD_S):
            self.sample()

    def sample(self) -> None:
        """Read everything once."""
        on_gpu = self._sources.on_gpu()
        busy = self._meter.sample()
        if self._sources.warm():
            self._memory.note_warm()
        if on_gpu:
            self._memory.note_gpu()
            self._ask_device()
            self._gpu.show(self._cards.read())
        elif on_gpu is False:
            self._gpu.show((), busy=busy)

    def _ask_device(self) -> None:
        """Take what the device thread told, if it did, and ask again; never wait for it."""
        asked = self._asked
        if asked is not None and not asked.done():
            return
        if asked is not None and asked.exception() is None:
            self._memory.note_device(asked.result())
        try:
            self._asked = self._sources.device_memory()
        except InferenceError:  # the thread has ended
            self._asked = None


def resident_bytes() -> int | None:
    """Return the resident size of this process, or None where the system does not tell.

    Second field of ``/proc/self/statm``, in pages (proc(5)).
    """
    try:
        pages = STATM.read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
