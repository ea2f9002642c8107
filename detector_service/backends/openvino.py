"""The same weights through OpenVINO, which is two to four times as fast on a CPU.

Opened by ``choice``, on the device thread. A checkpoint is exported once, through Ultralytics, with
dynamic shapes (any ``imgsz``, batch and aspect ratio act as with torch), into a cache by the hash
of the weights and the versions of the libraries.
Surprise: OpenVINO would report its use to its maker, and pin its threads to the first cores, where
a second detector on the machine pins its own. Both are switched off.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from detector_service.backends.base import NO_CUDA, ModelInfo
from detector_service.backends.cache import built_once
from detector_service.backends.checkpoint import fingerprint
from detector_service.backends.yolo import YoloBackend, limit_threads, quiet, warm
from detector_service.errors import OutOfMemoryError, StartError

EXPORTED = "model_openvino_model"  # Ultralytics knows an OpenVINO model by the end of its name
# Kernels kept for shapes seen before. After 300 passes of random shapes at imgsz 320 the process
# had 714 MB with the default 5000, and 435 MB with this; alternating shapes cost 1 ms more.
KERNELS = 1000
PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


class Network:
    """A compiled network that answers with what it found in this pass, or not at all.

    Short of memory, OpenVINO skips the pass without a word and leaves in its output what it found
    the time before; so each pass gets a request of its own (0.1 ms), whose output starts empty.
    The network itself stays: its next pass is right, while one compiled anew while memory is short
    ended the process with a segmentation fault.
    """

    def __init__(self, compiled: Any) -> None:
        """Wrap OpenVINO's compiled model."""
        self.compiled = compiled

    def __call__(self, pixels: Any) -> Mapping[Any, Any]:
        """Return the outputs of one pass over batch x 3 x height x width.

        Raises:
            OutOfMemoryError: it was skipped.
        """
        found: Mapping[Any, Any]
        found = self.compiled.create_infer_request().infer(pixels, share_inputs=True)
        if any(len(each) != len(pixels) or not each.size for each in found.values()):
            raise OutOfMemoryError("no room for this pass: OpenVINO left it out")
        return found


class OpenVinoBackend(YoloBackend):
    """An export; it predicts as a checkpoint does, but the network under it is OpenVINO's."""

    def __init__(self, model: Any, info: ModelInfo, network: Network) -> None:
        """Wrap a loaded export that has predicted once, and the network that it runs on."""
        super().__init__(model, info)
        self._network = network

    def clear_cache(self) -> None:
        """Give back the buffers of the largest pass so far, then what every backend caches."""
        self._network.compiled.release_memory()
        super().clear_cache()


def open_openvino(
    reference: YoloBackend, path: Path, *, threads: int | None, cache: Path
) -> OpenVinoBackend:
    """Export the checkpoint if that was not done before, and load the export.

    Args:
        reference: the checkpoint as opened by torch.
        path: its file.
        threads: OpenVINO's threads; None leaves its default, one a physical core.
        cache: folder for exports; one that cannot be written does if the export is in it.

    Raises:
        StartError: OpenVINO is not installed, the cache cannot be written, the export failed, or
            the model does without NMS: its export picks more boxes than a small image has.
    """
    if reference.info.nms == "end2end":
        words = f"the model file {path} does without NMS, and such an export fails on small images"
        raise StartError(f"{words}; set DETECTOR_BACKEND=torch")
    # The module that reports is optional; None makes its import fail, on which they do without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    folder = cache / "openvino" / f"{fingerprint(path)[:16]}-{_versions()}"
    with quiet():
        try:
            built_once(folder, lambda into: _export(reference.model, into))
            return _load(folder / EXPORTED, reference, threads)
        except OSError as exc:
            words = f"cannot keep the OpenVINO export in {folder}: {exc.strerror or exc}"
            raise StartError(f"{words}; set DETECTOR_CACHE_DIR to a writable folder") from exc
        except Exception as exc:  # tracer, converter and compiler raise anything
            words = " ".join(str(exc).split())[:300] or type(exc).__name__
            raise StartError(f"OpenVINO cannot run the model file {path}: {words}") from exc
        finally:
            limit_threads(threads)


def _versions() -> str:
    try:
        openvino = metadata.version("openvino")
    except metadata.PackageNotFoundError as exc:
        advice = "pip install openvino, or set DETECTOR_BACKEND=torch"
        raise StartError(f"OpenVINO is not installed; {advice}") from exc
    ultralytics = metadata.version("ultralytics-opencv-headless")
    return f"openvino-{openvino}-ultralytics-{ultralytics}"


def _export(model: Any, into: Path) -> None:
    # The export goes beside the file the model says it came from, under a name made by replacing
    # the suffix wherever it occurs in the path; so the suffix is one that occurs nowhere else.
    came_from, model.model.pt_path = (
        model.model.pt_path,
        str(into / f"model.{secrets.token_hex(8)}"),
    )
    try:
        model.export(format="openvino", dynamic=True, nms=None, device="cpu", verbose=False)
    finally:
        model.model.pt_path = came_from
    if not (into / EXPORTED).is_dir():
        raise StartError("the export wrote no model")


def _load(folder: Path, reference: YoloBackend, threads: int | None) -> OpenVinoBackend:
    import ultralytics  # noqa: PLC0415 - loaded by torch's backend, with the environment it needs

    model = ultralytics.YOLO(str(folder), task="detect")
    warm(model)
    inner = model.predictor.model.backend
    config = dict(
        inner.compile_model.keywords["config"],
        ENABLE_CPU_PINNING=False,
        CPU_RUNTIME_CACHE_CAPACITY=KERNELS,
    )
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    [file] = folder.glob("*.xml")
    # Ultralytics has no way to pass these, so its network is compiled again, on the CPU for sure.
    network = Network(inner.compile_model(str(file), device_name="CPU", config=config))
    inner.ov_compiled_model = network
    kind = network.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    info = replace(
        reference.info,
        cuda=NO_CUDA,
        backend="openvino",
        precision=PRECISIONS.get(kind, kind),
    )
    return OpenVinoBackend(model, info, network)
