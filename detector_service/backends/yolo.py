"""An Ultralytics YOLO checkpoint as a Backend; imported and used by the device thread only.

The environment is set before Ultralytics is imported, because it reads most of it at import.
Surprise: weights are loaded with ``weights_only`` (ULTRALYTICS_SAFE_LOAD): a checkpoint is a
pickle, and a pickle from elsewhere is a program.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector_service.backends.base import NO_CUDA, Detection, Image, Memory, ModelInfo, Pass
from detector_service.errors import InferenceError, StartError


def require_checkpoint(path: Path) -> None:
    """Refuse early, without importing torch, what cannot be a checkpoint.

    Raises:
        StartError: no such file, empty, or not in torch's zip format.
    """
    advice = "set DETECTOR_MODEL to an Ultralytics .pt file"
    if not path.is_file():
        raise StartError(f"there is no model file {path}; {advice}")
    if path.suffix != ".pt":
        raise StartError(f"the model file {path} is not a .pt checkpoint; {advice}")
    if not zipfile.is_zipfile(path):
        raise StartError(f"the model file {path} is damaged or no torch checkpoint; {advice}")


def open_yolo(path: Path, *, threads: int | None, scratch: Path) -> YoloBackend:
    """Load a checkpoint on the calling thread.

    Args:
        path: an Ultralytics ``.pt`` file.
        threads: torch threads on CPU; None leaves torch's default.
        scratch: writable folder for the library's own settings file.

    Raises:
        StartError: the file is missing, damaged, or no detection model.
    """
    require_checkpoint(path)
    _set_environment(scratch)
    with warnings.catch_warnings():
        # Third-party import noise must not become a start failure where warnings are errors.
        warnings.simplefilter("ignore")
        import torch  # noqa: PLC0415 - after the environment is set
        import ultralytics  # noqa: PLC0415 - the same

        from detector_service.backends.shim import ensure_torchvision  # noqa: PLC0415 - needs torch

        ensure_torchvision()
        backend = _load(ultralytics.YOLO, path, torch)
    # Setting up the model resets the thread count, so this comes after the first pass.
    if threads is not None:
        torch.set_num_threads(threads)
    return backend


class YoloBackend:
    """One model object, for one thread."""

    def __init__(self, model: Any, info: ModelInfo) -> None:
        """Wrap a loaded ``ultralytics.YOLO``."""
        self._model = model
        self._info = info

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        return self._info

    def infer(self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int) -> Pass:
        """Return the detections of each image.

        Raises:
            InferenceError: torch or Ultralytics failed on these images (also out of memory).
        """
        try:
            results = self._model.predict(
                list(images), conf=conf, iou=iou, imgsz=imgsz, verbose=False, nms=None
            )
            return Pass([self._detections(result.boxes) for result in results])
        # torch raises RuntimeError (its out-of-memory error included), the library the others.
        except (RuntimeError, ValueError, TypeError) as exc:
            raise InferenceError(f"the model failed: {exc}") from exc

    def memory(self) -> Memory | None:
        """Return what torch's CUDA allocator holds; None on a CPU."""
        return None

    def clear_cache(self) -> None:
        """Give cached memory back."""

    def _detections(self, boxes: Any) -> tuple[Detection, ...]:
        rows = boxes.data.cpu().numpy().astype(float).tolist()
        return tuple(self._detection(row) for row in rows)

    def _detection(self, row: list[float]) -> Detection:
        x0, y0, x1, y1, confidence, class_id = row
        name = self._info.classes.get(int(class_id), "other")
        return Detection(int(class_id), name, confidence, (x0, y0, x1, y1))


def _set_environment(scratch: Path) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        YOLO_AUTOINSTALL="false",  # else it runs pip inside the service
        YOLO_OFFLINE="true",
        YOLO_CONFIG_DIR=str(scratch),
        ULTRALYTICS_SAFE_LOAD="1",
        OMP_WAIT_POLICY="PASSIVE",  # spinning threads starve everything else on few cores
    )
    os.environ.setdefault("YOLO_VERBOSE", "false")


def _load(yolo: Any, path: Path, torch: Any) -> YoloBackend:
    try:
        model = yolo(str(path), task="detect")
        if model.task != "detect" or not model.names:
            raise StartError(f"the model file {path} holds no detector but a {model.task} model")
        # The first pass builds the network for inference (and fuses away what it does not need);
        # only then is it known which head is left.
        model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False, nms=None)
        return YoloBackend(model, _info(model, path, torch))
    # What the library and the unpickler raise on files that are damaged or of another kind.
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        EOFError,
        ImportError,
        OSError,
        pickle.UnpicklingError,
    ) as exc:
        words = " ".join(str(exc).split())[:300]
        raise StartError(f"cannot load the model file {path}: {words}") from exc


def _info(model: Any, path: Path, torch: Any) -> ModelInfo:
    # nms=None asks for the head that is followed by NMS. A model that has only the end-to-end
    # head filters by confidence alone, and there the IoU threshold does nothing.
    end2end = bool(getattr(model.predictor.model, "end2end", False))
    return ModelInfo(
        name=path.name,
        version=hashlib.sha256(path.read_bytes()).hexdigest()[:12],
        classes={int(key): str(value) for key, value in model.names.items()},
        nms="end2end" if end2end else "external",
        runtime=str(torch.__version__),
        # A build for CUDA runs on the CPU where there is no card, or none it may use.
        cuda=str(torch.version.cuda) if torch.cuda.is_available() else NO_CUDA,
    )
