"""An Ultralytics YOLO model as a Backend; imported and used by the device thread only.

Used for a torch checkpoint (``open_yolo``) and for its export (``openvino``): both predict through
the same library, so scaling, NMS and box arithmetic are the same code. The environment is set
before Ultralytics is imported, because it reads most of it at import.
Surprise: the library never sees the name of the checkpoint but that of a link to it. It gives
meaning to names: it would fetch another file from the network instead of one named yolov5n.pt.
"""

from __future__ import annotations

import gc
import os
import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from ctypes import CDLL
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from detector_service.backends.base import NO_CUDA, Detection, Image, Memory, ModelInfo, Pass
from detector_service.backends.checkpoint import ADVICE, fingerprint, refused, require_checkpoint
from detector_service.errors import (
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
    StartError,
)

# How torch (CUDA, cuBLAS, cuDNN, its CPU allocator), OpenCV, OpenVINO and C++ say it.
NO_ROOM = re.compile(
    r"out of memory|(can't|cannot) allocate memory|_ALLOC(ATION)?_FAILED|insufficient memory"
    r"|bad_alloc"
    r"|CUBLAS_STATUS_NOT_INITIALIZED"  # a workspace that cuBLAS found no room for
    r"|could not create a primitive(?! desc)"  # oneDNN has the same words for every kernel
    r"|Resource temporarily unavailable"  # no room for the stack of a thread
    r"|Check 'ptr' failed at \S*cpu_memory",
    re.IGNORECASE,
)
# Such an error sticks: every later call into CUDA fails with it, until the process ends.
STICKS = re.compile(
    r"CUDA error|device-side assert|CUDA driver|CUDNN_STATUS_EXECUTION_FAILED",
    re.IGNORECASE,
)
# What the library raises on what it did not expect, besides errors of its own dependencies.
RAISED = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
NMS_S, NMS_IMAGE_S = 2.0, 0.05
STAGES = ("preprocess", "inference", "postprocess")


def open_yolo(path: Path, *, threads: int | None, scratch: Path) -> YoloBackend:
    """Load a checkpoint on the calling thread, with ``weights_only``.

    A checkpoint is a pickle, and a pickle from elsewhere is a program.

    Args:
        path: an Ultralytics ``.pt`` file.
        threads: torch threads on CPU; None leaves torch's default.
        scratch: writable folder for the library's own settings file and the link.

    Raises:
        StartError: the file is missing, damaged, or no detection model.
    """
    require_checkpoint(path)
    set_environment(scratch)
    link = scratch / "checkpoint.pt"
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve())
    with quiet():
        import torch  # noqa: PLC0415 - after the environment is set
        import ultralytics  # noqa: PLC0415 - the same

        from detector_service.backends.shim import ensure_torchvision  # noqa: PLC0415 - needs torch

        ensure_torchvision()
        backend = _load(ultralytics.YOLO, path, link, torch)
    limit_threads(threads)
    return backend


class YoloBackend:
    """One model object, for one thread."""

    def __init__(self, model: Any, info: ModelInfo) -> None:
        """Wrap a loaded ``ultralytics.YOLO`` that has predicted once."""
        self.model = model
        self._info = info

    @property
    def info(self) -> ModelInfo:
        """Say what is loaded."""
        return self._info

    def measured(self, figures: Mapping[str, float]) -> Self:
        """Return the same model, knowing how fast each backend was."""
        known = copy(self)
        known._info = replace(self._info, measured=dict(figures))  # noqa: SLF001 - of this class
        return known

    def infer(self, images: Sequence[Image], *, conf: float, iou: float, imgsz: int) -> Pass:
        """Return the detections of each image.

        Raises:
            OutOfMemoryError: no room for this many images at once.
            DeviceLostError: CUDA failed in a way that sticks.
            InferenceError: torch, OpenVINO or Ultralytics failed on these images.
        """
        try:
            results = self.model.predict(
                list(images), conf=conf, iou=iou, imgsz=imgsz, verbose=False, nms=None
            )
            stages = _stages(results)
            _require_whole(len(results), stages["postprocess"])
            return Pass([self._detections(found.boxes) for found in results], stages)
        # torch, OpenVINO and OpenCV raise RuntimeError or a kind of it, the library the others.
        except (*RAISED, MemoryError, AssertionError, _opencv_error()) as exc:
            raise failure(exc) from exc
        finally:
            # The library keeps the pixels of the last pass until the next one.
            predictor = self.model.predictor
            predictor.results = predictor.batch = predictor.dataset = None

    def memory(self) -> Memory | None:
        """Return what torch's CUDA allocator holds; None on a CPU."""
        if self._info.cuda == NO_CUDA:
            return None
        import torch  # noqa: PLC0415 - loaded long ago, but not by who imports this module

        return Memory(torch.cuda.memory_allocated(), torch.cuda.memory_reserved())

    def clear_cache(self) -> None:
        """Give memory that is only cached back to the device and the operating system."""
        gc.collect()
        if self._info.cuda != NO_CUDA:
            import torch  # noqa: PLC0415 - the same

            torch.cuda.empty_cache()
        if sys.platform == "linux":
            trim = getattr(CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
            if trim is not None:
                trim(0)

    def _detections(self, boxes: Any) -> tuple[Detection, ...]:
        rows = boxes.data.cpu().numpy().astype(float).tolist()
        return tuple(self._detection(row) for row in rows)

    def _detection(self, row: list[float]) -> Detection:
        x0, y0, x1, y1, confidence, class_id = row
        name = self._info.classes.get(int(class_id), "other")
        return Detection(int(class_id), name, confidence, (x0, y0, x1, y1))


def failure(exc: BaseException) -> InferenceError:
    """Return what an exception of the libraries means for this pass and those after it."""
    words = " ".join(str(exc).split())[:500] or type(exc).__name__
    # First, since "CUDA error: out of memory" is of both kinds, and does not stick.
    if isinstance(exc, MemoryError) or NO_ROOM.search(words):
        return OutOfMemoryError(f"no room for this pass: {words}")
    if type(exc).__name__ == "AcceleratorError" or STICKS.search(words):
        return DeviceLostError(f"the device failed: {words}")
    return InferenceError(f"the model failed: {words}")


def set_environment(scratch: Path) -> None:
    """Tell Ultralytics to stay offline and quiet, and to write only into ``scratch``."""
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        YOLO_AUTOINSTALL="false",  # else it runs pip inside the service
        YOLO_OFFLINE="true",
        YOLO_CONFIG_DIR=str(scratch),
        ULTRALYTICS_SAFE_LOAD="1",
        OMP_WAIT_POLICY="PASSIVE",  # spinning threads starve everything else on few cores
    )
    os.environ.setdefault("YOLO_VERBOSE", "false")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries warn of at import from being a failure where warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def limit_threads(threads: int | None) -> None:
    """Bound torch's threads; the first pass of every model resets them, so call it afterwards."""
    if threads is not None:
        import torch  # noqa: PLC0415 - loaded by now

        torch.set_num_threads(threads)


def warm(model: Any) -> None:
    """Run one small pass, which builds the network for inference.

    It fuses away what inference does not need; only then is it known which head is left.
    """
    model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False, nms=None)


def nms_of(model: Any) -> str:
    """Return who drops overlapping boxes of a warm model: ``external`` or ``end2end``.

    nms=None asks for the head that is followed by NMS. A model that has only the end-to-end head,
    or is an RT-DETR, filters by confidence alone, and there the IoU threshold does nothing.
    """
    alone = getattr(model.predictor.model, "end2end", False) or type(model).__name__ == "RTDETR"
    return "end2end" if alone else "external"


def _stages(results: Sequence[Any]) -> dict[str, float]:
    # The library tells milliseconds of each image: its share of the pass.
    return {stage: sum(found.speed[stage] for found in results) / 1000 for stage in STAGES}


def _require_whole(images: int, seconds: float) -> None:
    """Refuse a batch that NMS may have given up on, to have its images tried alone.

    Ultralytics stops after 2 s and 0.05 s an image (``max_time_img``) and leaves the images after
    that without boxes; the last one, and so one alone, is always finished.

    Raises:
        InferenceError: it took that long.
    """
    if images > 1 and seconds > NMS_S + NMS_IMAGE_S * images:
        raise InferenceError(f"NMS of {images} images took {seconds:.1f} s; some have no boxes")


def _opencv_error() -> type[BaseException]:
    import cv2  # noqa: PLC0415 - by now Ultralytics has loaded it

    found: type[BaseException] = cv2.error
    return found


def _load(yolo: Any, path: Path, link: Path, torch: Any) -> YoloBackend:
    try:
        model = yolo(str(link), task="detect")
        _require_detector(path, model, torch)
        warm(model)
        return YoloBackend(model, _info(model, path, torch))
    # What the library and the unpickler raise on files that are damaged or of another kind.
    except (
        *RAISED,
        EOFError,
        ImportError,
        OSError,
        pickle.UnpicklingError,
    ) as exc:
        raise refused(path, exc) from exc


def _require_detector(path: Path, model: Any, torch: Any) -> None:
    if model.task != "detect":
        raise StartError(f"the model file {path} holds no detector but a model for: {model.task}")
    if not model.names:
        raise StartError(f"the model file {path} has no names of classes; {ADVICE}")
    numbers = model.model.state_dict().items()
    bad = [name for name, each in numbers if not bool(torch.isfinite(each).all())]
    if bad:
        words = f"{len(bad)} of its tensors, such as {bad[0]}, hold NaN or infinity"
        raise StartError(f"the model file {path} would see nothing: {words}; {ADVICE}")


def _info(model: Any, path: Path, torch: Any) -> ModelInfo:
    return ModelInfo(
        name=path.name,
        version=fingerprint(path)[:12],
        classes={int(key): str(value) for key, value in model.names.items()},
        nms=nms_of(model),
        runtime=str(torch.__version__),
        # A build for CUDA runs on the CPU where there is no card, or none it may use.
        cuda=str(torch.version.cuda) if torch.cuda.is_available() else NO_CUDA,
    )
