"""Torch or OpenVINO: as told, or whichever is faster here. Called by ``app``, on the device thread.

Surprise: under ``auto`` both are opened and run before one is dropped. Which one wins depends on
the processor, the threads and the model, and a table of guesses would be wrong somewhere; the race
takes a second or two, after a first start that spends more on the export.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from detector_service.backends.base import NO_CUDA, Backend
from detector_service.backends.openvino import open_openvino
from detector_service.backends.yolo import YoloBackend, open_yolo
from detector_service.errors import StartError

log = logging.getLogger(__name__)

FRAME: Final = (540, 960, 3)  # pixels of a screen recording, halved
BATCHES: Final = (1, 4)
ROUNDS: Final = 3
CLEAR: Final = 1.5  # a lead that noise does not explain, so that one round is enough


def open_backend(
    path: Path, *, backend: str, threads: int | None, imgsz: int, cache: Path, scratch: Path
) -> Backend:
    """Load a checkpoint for ``backend``: ``torch``, ``openvino``, or ``auto``.

    ``auto`` is torch where there is a GPU, and elsewhere the faster of both; where OpenVINO cannot
    be had, it is torch with a warning.

    Args:
        path: an Ultralytics ``.pt`` file.
        backend: which.
        threads: of torch or OpenVINO on the CPU; None leaves their defaults.
        imgsz: the size at which they race.
        cache: folder for exported models.
        scratch: writable folder for the library's own settings file.

    Raises:
        StartError: the file is no detector, or ``openvino`` cannot be had.
    """
    chosen = _choose(path, backend, threads, imgsz, cache, scratch)
    chosen.clear_cache()  # of the export, and of the loser of the race
    return chosen


def _choose(
    path: Path, backend: str, threads: int | None, imgsz: int, cache: Path, scratch: Path
) -> YoloBackend:
    torch = open_yolo(path, threads=threads, scratch=scratch)
    if backend == "torch" or (backend == "auto" and torch.info.cuda != NO_CUDA):
        return torch
    try:
        openvino = open_openvino(torch, path, threads=threads, cache=cache)
    except StartError as exc:
        if backend == "openvino":
            raise
        log.warning("using torch, which is slower on a CPU: %s", exc)
        return torch
    return openvino if backend == "openvino" else fastest((openvino, torch), imgsz)


def fastest(
    backends: Sequence[YoloBackend], imgsz: int, clock: Callable[[], float] = time.monotonic
) -> YoloBackend:
    """Return the backend that needs the least time for a frame, and say how much each needs."""
    took: dict[str, list[float]] = {each.info.backend: [] for each in backends}
    for each in backends:
        _seconds(each, imgsz, clock)  # the first pass of a shape builds its kernels
    for _ in range(ROUNDS):
        for each in backends:
            took[each.info.backend].append(_seconds(each, imgsz, clock))
        figures = {name: statistics.median(seconds) for name, seconds in took.items()}
        if max(figures.values()) > CLEAR * min(figures.values()):
            break
    told = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in figures.items())
    winner = min(backends, key=lambda each: figures[each.info.backend])
    log.info("backend %s: a frame at imgsz %d takes %s", winner.info.backend, imgsz, told)
    return winner.measured(figures)


def _seconds(backend: Backend, imgsz: int, clock: Callable[[], float]) -> float:
    """Return the mean seconds of a frame, over one pass of each batch size."""
    frame = np.full(FRAME, 114, np.uint8)
    started = clock()
    for batch in BATCHES:
        backend.infer([frame] * batch, conf=0.25, iou=0.7, imgsz=imgsz)
    return (clock() - started) / sum(BATCHES)
