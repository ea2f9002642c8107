"""Models behind one shape; importing this package does not import torch.

``base`` has the shape, ``images`` turns bytes into pixels, ``checkpoint`` looks at the weights
before anything heavy is loaded. ``choice`` opens a model: ``yolo`` with torch, ``openvino`` with
its export, kept by ``cache``; those two import their libraries only when a model is opened, on the
thread that will own the device.
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
