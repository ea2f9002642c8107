"""What the rest of the service knows of a model: detections, requests, and the Backend shape.

Surprise: a backend is opened, used and closed by one thread only; nothing here is thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """

    name: str
    version: str
    classes: Mapping[int, str]
    nms: str
    runtime: str
    cuda: str = NO_CUDA


class Backend(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        ...

    def infer(
        self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int
    ) -> list[tuple[Detection, ...]]:
        """Return the detections of each image, all with these thresholds.

        Raises:
            InferenceError: the model failed on these images.
        """
        ...
