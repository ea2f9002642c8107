"""Makes ``import torchvision`` work beside a torch that its compiled operators were not built for.

Called once by ``yolo`` before the first prediction. PyPI's torchvision is built for CUDA; next to a
CPU build of torch its library does not load, and then ``import torchvision`` fails outright while
it describes an operator that does not exist. Only NMS matters here, and Ultralytics has one in
plain torch.
Surprise: it must run before the first *attempt* to import torchvision. A failed attempt leaves
half of the operator descriptions registered, and the second attempt fails differently.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch

_LIBRARIES: list[Any] = []  # torch drops the operators when the library object is collected


def ensure_torchvision() -> Literal["native", "shim", "absent"]:
    """Make torchvision importable; returns whose NMS it will use.

    ``native``: the compiled operators load and nothing was done. ``absent``: not installed.
    """
    if _LIBRARIES:
        return "shim"
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return "absent"
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        _define_operators()
        return "shim"
    return "native"


def _define_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    library.impl("qnms", _nms, "CPU")
    _LIBRARIES.append(library)
    # The package asks this before it describes its operators; without "yes" it refuses to load.
    extension: Any = importlib.import_module("torchvision.extension")
    extension._has_ops = lambda: True  # noqa: SLF001 - the only switch there is


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    from ultralytics.utils.nms import TorchNMS  # noqa: PLC0415 - must not load before the shim

    kept: torch.Tensor = TorchNMS.nms(boxes, scores, iou_threshold)
    return kept
