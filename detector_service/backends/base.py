"""What the rest of the service knows of a model: detections, requests, and the Backend shape.

Surprise: a backend is opened, used and closed by one thread only; nothing here is thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

NO_CUDA: Final = "none"
Image = npt.NDArray[np.uint8]
"""Height x width x 3, BGR."""


@dataclass(frozen=True)
class Detection:
    """One object found.

    Attributes:
        confidence: 0 to 1.
        xyxy: left, top, right, bottom in pixels of the image as sent.
    """

    class_id: int
    class_name: str
    confidence: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded.

    Attributes:
        name: file name of the weights.
        version: first 12 digits of their sha256.
        classes: class id to name, from the weights.
        nms: ``external`` (the IoU threshold works) or ``end2end`` (it is ignored).
        runtime: version of torch.
        cuda: version of CUDA, ``NO_CUDA`` where the model runs on the CPU.
        backend: ``torch`` or ``openvino``.
        precision: of the arithmetic: ``fp32``, ``fp16`` or ``bf16``.
        measured: backend to seconds a frame, where several raced at the start.
    """

    name: str
    version: str
    classes: Mapping[int, str]
    nms: str
    runtime: str
    cuda: str = NO_CUDA
    backend: str = "torch"
    precision: str = "fp32"
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """What one forward pass gave.

    Attributes:
        found: the detections of each image, in the order of the images.
        stages: seconds of the whole pass spent in ``preprocess``, ``inference``, ``postprocess``.
    """

    found: Sequence[tuple[Detection, ...]]
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Bytes that the device's allocator holds.

    Attributes:
        allocated: in tensors that are alive; grows without end where something leaks.
        reserved: taken from the device, free for the next tensor; the cache.
    """

    allocated: int
    reserved: int


class Backend(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        ...

    def infer(self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int) -> Pass:
        """Return the detections of each image, all with these thresholds.

        Raises:
            OutOfMemoryError: too many (or too large) images for the device at once.
            DeviceLostError: the device itself failed; only a new process helps.
            InferenceError: the model failed on these images.
        """
        ...

    def memory(self) -> Memory | None:
        """Return what the device's allocator holds, or None where there is none to ask."""
        ...

    def clear_cache(self) -> None:
        """Give memory that is only cached back to the device and the operating system."""
        ...
