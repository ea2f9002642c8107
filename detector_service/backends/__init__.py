"""Models behind one shape; importing this package does not import torch.

``base`` has the shape, ``images`` turns bytes into pixels, ``yolo`` is the one that imports torch
and Ultralytics (only when a model is opened, on the thread that will own the device).
"""

from __future__ import annotations

from detector_service.backends.base import (
    NO_CUDA,
    Backend,
    Detection,
    Image,
    Memory,
    ModelInfo,
    Pass,
)
from detector_service.backends.images import decode

__all__ = ["NO_CUDA", "Backend", "Detection", "Image", "Memory", "ModelInfo", "Pass", "decode"]
