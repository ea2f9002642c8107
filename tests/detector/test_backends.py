"""What backends do before and around the heavy libraries: refusals, the cache, the race."""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detector_service.backends import Image, ModelInfo, Pass
from detector_service.backends.cache import SUMS, built_once
from detector_service.backends.checkpoint import fingerprint, refused, require_checkpoint
from detector_service.backends.choice import BATCHES, ROUNDS, fastest
from detector_service.backends.yolo import YoloBackend, failure
from detector_service.errors import (
    DeviceLostError,
    InferenceError,
    OutOfMemoryError,
    StartError,
)
from detector_service.settings import PACKAGE

WEIGHTS = PACKAGE / "weights" / "cursor.pt"


def test_the_shipped_weights_pass_and_their_fingerprint_is_their_sha256() -> None:
    require_checkpoint(WEIGHTS)
    assert len(fingerprint(WEIGHTS)) == 64


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.pt", None, "there is no model file"),
        ("empty.pt", b"", "is empty"),
        ("text.pt", b"hello" * 1000, "is damaged or no torch checkpoint"),
        ("torn.pt", WEIGHTS.read_bytes()[:100_000], "is damaged or no torch checkpoint"),
        ("model.onnx", WEIGHTS.read_bytes(), "is not a .pt checkpoint"),
    ],
)
def test_a_file_that_cannot_be_a_checkpoint_is_refused_by_name_with_advice(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=words) as refused:
        require_checkpoint(path)
    assert str(path) in str(refused.value)
    assert "DETECTOR_MODEL" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "folder.pt"
    folder.mkdir()
    with pytest.raises(StartError, match="is a folder"):
        require_checkpoint(folder)


def test_weights_that_rotted_on_a_disk_are_refused_though_torch_would_load_them(
    tmp_path: Path,
) -> None:
    rotten = bytearray(WEIGHTS.read_bytes())
    middle = len(rotten) // 3
    rotten[middle : middle + 1000] = bytes(1000)
    path = tmp_path / "rotten.pt"
    path.write_bytes(rotten)
    with pytest.raises(StartError, match=r"damaged: the checksum of .* is wrong"):
        require_checkpoint(path)


def test_a_zip_of_anything_passes_until_torch_looks_into_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "any.pt", "w") as archive:
        archive.writestr("any/data.pkl", b"")
    require_checkpoint(tmp_path / "any.pt")


class AcceleratorError(RuntimeError):
    """Named as torch names it."""


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), OutOfMemoryError),
        (AcceleratorError("CUDA error: out of memory"), OutOfMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfMemoryError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemoryError),
        (RuntimeError("Exception from src/inference: std::bad_alloc"), OutOfMemoryError),
        (
            RuntimeError("[CPU] Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:1"),
            OutOfMemoryError,
        ),
        (MemoryError("Unable to allocate 8.00 GiB for an array"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("could not create a primitive"), OutOfMemoryError),
        (RuntimeError("could not create a primitive descriptor for a matmul"), InferenceError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"), OutOfMemoryError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLostError),
        (RuntimeError("err=Cannot allocate memory"), OutOfMemoryError),
        (IndexError("list index out of range"), InferenceError),
        (AcceleratorError("an illegal memory access was encountered"), DeviceLostError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLostError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), InferenceError),
        (ValueError("bad image"), InferenceError),
    ],
)
def test_a_failure_is_one_pass_too_large_a_lost_device_or_these_images(
    raised: BaseException, kind: type[InferenceError]
) -> None:
    assert type(failure(raised)) is kind


class Rows:
    """No boxes, as a tensor has them."""

    def cpu(self) -> Rows:
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        return np.zeros((0, 6))


class Library:
    """Answers as Ultralytics does: milliseconds of each image, or an error of its own."""

    def __init__(self, postprocess_ms: float, raises: BaseException | None = None) -> None:
        self.predictor = SimpleNamespace()
        self.postprocess_ms = postprocess_ms
        self.raises = raises

    def predict(self, images: list[Image], **_: Any) -> list[Any]:
        if self.raises is not None:
            raise self.raises
        speed = {"preprocess": 1.0, "inference": 1.0, "postprocess": self.postprocess_ms}
        boxes = SimpleNamespace(data=Rows())
        return [SimpleNamespace(speed=speed, boxes=boxes) for _ in images]


INFO = ModelInfo("m.pt", "0", {0: "a"}, "external", "none")
BLANK = np.zeros((8, 8, 3), np.uint8)


def look(library: Library, images: int) -> Pass:
    return YoloBackend(library, INFO).infer([BLANK] * images, conf=0.3, iou=0.7, imgsz=160)


def test_a_batch_that_nms_may_have_given_up_on_is_no_answer_and_a_lone_image_is() -> None:
    assert len(look(Library(postprocess_ms=500), images=4).found) == 4
    with pytest.raises(InferenceError, match="NMS of 4 images took"):
        look(Library(postprocess_ms=600), images=4)
    assert len(look(Library(postprocess_ms=9000), images=1).found) == 1


@pytest.mark.parametrize("kind", [IndexError, KeyError, AttributeError, AssertionError])
def test_an_output_that_the_library_stumbles_over_is_a_failure_of_these_images(
    kind: type[Exception],
) -> None:
    with pytest.raises(InferenceError, match="the model failed"):
        look(Library(1, kind("odd")), images=1)


def test_a_refusal_names_the_program_and_gives_no_advice_of_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    evil = pickle.UnpicklingError("Unsupported global: GLOBAL exec was not an allowed global")
    assert "it names exec," in str(refused(path, evil))
    told = "ERROR \u274c\ufe0f /s/checkpoint.pt references odd types. Use an official model"
    assert str(refused(path, TypeError(told))).endswith("detector: references odd types.")


def test_others_may_read_a_folder_that_was_built(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    assert built_once(tmp_path / "b", fill).stat().st_mode == beside.stat().st_mode


def fill(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights")


def test_a_folder_is_built_once_and_found_by_the_next(tmp_path: Path) -> None:
    built = []
    for _ in range(2):
        found = built_once(tmp_path / "a" / "b", lambda into: (fill(into), built.append(into))[1])
        assert (found / "model" / "weights.bin").read_bytes() == b"weights"
    assert len(built) == 1


def test_of_many_that_start_at_once_one_builds(tmp_path: Path) -> None:
    count = itertools.count()
    with ThreadPoolExecutor(8) as pool:
        wanted = [
            pool.submit(built_once, tmp_path / "b", lambda into: (fill(into), next(count))[1])
            for _ in range(8)
        ]
        assert {future.result(10) for future in wanted} == {tmp_path / "b"}
    assert next(count) == 1


@pytest.mark.parametrize("harm", ["torn", "gone", "extra", "unsummed"])
def test_a_damaged_folder_is_built_anew(tmp_path: Path, harm: str) -> None:
    folder = built_once(tmp_path / "b", fill)
    weights = folder / "model" / "weights.bin"
    match harm:
        case "torn":
            os.truncate(weights, 3)
        case "gone":
            weights.unlink()
        case "extra":
            (folder / "model" / "more.bin").write_bytes(b"")
        case "unsummed":
            (folder / SUMS).write_bytes(b"{")
    built_once(folder, fill)
    assert weights.read_bytes() == b"weights"
    assert sorted(path.name for path in (folder / "model").iterdir()) == ["weights.bin"]


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fails(into: Path) -> None:
        fill(into)
        raise ValueError("the export failed")

    with pytest.raises(ValueError, match="the export failed"):
        built_once(tmp_path / "b", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["b.lock"]
    assert built_once(tmp_path / "b", fill).is_dir()


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".b.killed"
    left.mkdir()
    fill(left)
    built_once(tmp_path / "b", fill)
    assert not left.exists()


def test_a_good_folder_is_used_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = built_once(tmp_path / "b", fill)
    (tmp_path / "b.lock").unlink()
    (tmp_path / "b.lock").mkdir()  # even root cannot open a folder for writing
    assert built_once(folder, fill) == folder
    shutil.rmtree(folder)
    with pytest.raises(OSError, match="directory"):
        built_once(folder, fill)


class Runner(YoloBackend):
    """Takes a given time for a frame of each round, on a clock of its own."""

    def __init__(self, name: str, seconds: Sequence[float], clock: list[float]) -> None:
        super().__init__(None, ModelInfo("m.pt", "0", {0: "a"}, "external", "none", backend=name))
        self.seconds = [seconds[0], *seconds]  # the first pass warms up
        self.clock = clock
        self.passes = 0

    def infer(self, images: Sequence[Image], **_: Any) -> Pass:
        self.clock[0] += self.seconds[self.passes // len(BATCHES)] * len(images)
        self.passes += 1
        return Pass([()] * len(images))


def race(first: Sequence[float], second: Sequence[float]) -> tuple[ModelInfo, int]:
    clock = [0.0]
    runners = Runner("openvino", first, clock), Runner("torch", second, clock)
    winner = fastest(runners, 640, lambda: clock[0])
    return winner.info, runners[0].passes // len(BATCHES) - 1


def test_a_clear_winner_is_known_after_one_round() -> None:
    info, rounds = race([0.01] * 3, [0.03] * 3)
    assert (info.backend, rounds) == ("openvino", 1)
    assert info.measured == {"openvino": pytest.approx(0.01), "torch": pytest.approx(0.03)}


def test_a_close_race_is_decided_by_the_median_of_several_rounds() -> None:
    info, rounds = race([0.020, 0.021, 0.027], [0.025, 0.019, 0.020])
    assert (info.backend, rounds) == ("torch", ROUNDS)
    assert info.measured == {"openvino": pytest.approx(0.021), "torch": pytest.approx(0.020)}
