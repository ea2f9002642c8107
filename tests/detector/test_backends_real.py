"""Torch and OpenVINO with real weights: equal answers, refusals, the cache, whole processes."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from detector_service.backends import Detection, Image, decode
from detector_service.backends.checkpoint import require_checkpoint
from detector_service.backends.choice import open_backend
from detector_service.backends.openvino import EXPORTED, open_openvino
from detector_service.backends.yolo import YoloBackend, open_yolo
from detector_service.batcher import Batcher, BatchLimits, Work
from detector_service.canary import overlap
from detector_service.errors import InferenceError, StartError
from detector_service.load import SAMPLE, read_frames
from tests.detector.test_real import CANARY, WEIGHTS, process
from tests.detector.toys import picture

pytestmark = pytest.mark.real

# bf16 keeps 8 binary digits; on the sample frames it moved no edge by more than 0.21 pixels and
# no confidence by more than 0.01.
PIXELS = 1.0
CONFIDENCE = 0.03
AS_ONE = {"conf": 0.3, "iou": 0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="module")
def torch(folder: Path) -> YoloBackend:
    return open_yolo(WEIGHTS, threads=2, scratch=folder / "scratch")


@pytest.fixture(scope="module")
def openvino(torch: YoloBackend, folder: Path) -> YoloBackend:
    return open_openvino(torch, WEIGHTS, threads=2, cache=folder / "cache")


@pytest.fixture(scope="module")
def frames() -> list[Image]:
    images = [*read_frames(SAMPLE, most=24), CANARY.read_bytes()]
    return [decode(data, max_pixels=10**7) for data in images]


@pytest.fixture(scope="module")
def checkpoints(torch: YoloBackend, folder: Path) -> Callable[[str], Path]:
    """Return a checkpoint of an untrained network, by the name of its architecture."""
    import ultralytics  # noqa: PLC0415 - its environment is set once torch's backend is open

    def made(name: str) -> Path:
        path = folder / f"{name}.pt"
        if not path.exists():
            ultralytics.YOLO(f"{name}.yaml").save(str(path))
        return path

    return made


@pytest.mark.parametrize("imgsz", [320, 640])
def test_torch_and_openvino_find_the_same_boxes(
    torch: YoloBackend, openvino: YoloBackend, frames: list[Image], imgsz: int
) -> None:
    seen = 0
    for frame in frames:
        [ones], [others] = (
            each.infer([frame], **AS_ONE, imgsz=imgsz).found for each in (torch, openvino)
        )
        for one in ones:
            if one.confidence > AS_ONE["conf"] + CONFIDENCE:
                assert any(same(one, other) for other in others), (one, others)
                seen += 1
    assert seen > 4, "the weights see too little in the sample video to compare"


def same(one: Detection, other: Detection) -> bool:
    return (
        one.class_name == other.class_name
        and other.confidence == pytest.approx(one.confidence, abs=CONFIDENCE)
        and other.xyxy == pytest.approx(one.xyxy, abs=PIXELS)
    )


def test_any_imgsz_batch_and_aspect_ratio_acts_on_the_export_as_on_the_checkpoint(
    torch: YoloBackend, openvino: YoloBackend, frames: list[Image]
) -> None:
    canary = frames[-1]
    for image in (canary, canary[:, 300:500], canary[180:290]):
        for imgsz, batch in ((320, 1), (640, 3), (1280, 2)):
            found = {}
            for each in (torch, openvino):
                passed = each.infer([image] * batch, **AS_ONE, imgsz=imgsz)
                assert len(passed.found) == batch
                assert set(passed.stages) == {"preprocess", "inference", "postprocess"}
                assert all(seconds > 0 for seconds in passed.stages.values())
                found[each.info.backend] = max(
                    passed.found[-1], key=lambda item: item.confidence, default=None
                )
            assert (found["torch"] is None) == (found["openvino"] is None)
            if found["torch"] is not None:
                assert same(found["torch"], found["openvino"])
    sizes = {
        imgsz: openvino.infer([canary], **AS_ONE, imgsz=imgsz).found[0][0].confidence
        for imgsz in (320, 640, 1280)
    }
    assert len(set(sizes.values())) == 3, "imgsz changes nothing"


def test_what_runs_is_told(torch: YoloBackend, openvino: YoloBackend) -> None:
    assert (torch.info.backend, torch.info.precision, torch.info.nms) == (
        *("torch", "fp32"),
        "external",
    )
    assert openvino.info.backend == "openvino"
    assert openvino.info.precision in {"fp32", "bf16", "fp16"}
    assert openvino.info.classes == torch.info.classes == {0: "cursor"}
    assert openvino.info.version == torch.info.version
    assert torch.memory() is None
    torch.clear_cache()
    openvino.clear_cache()


def test_told_threads_bound_openvino_and_nothing_is_pinned_to_a_core(
    openvino: YoloBackend, frames: list[Image]
) -> None:
    openvino.infer(frames[:1], **AS_ONE, imgsz=320)
    compiled = openvino.model.predictor.model.backend.ov_compiled_model.compiled
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    mine = os.sched_getaffinity(0)
    threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset(mine)}


def test_a_model_holds_no_pixels_of_the_last_pass(torch: YoloBackend) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    pixels = weakref.ref(image)
    torch.infer([image], **AS_ONE, imgsz=160)
    del image
    gc.collect()
    assert pixels() is None


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_pass_that_failed_or_a_cleared_cache_spoils_nothing_for_the_next(
    backend: str, frames: list[Image], request: pytest.FixtureRequest
) -> None:
    opened: YoloBackend = request.getfixturevalue(backend)
    [before] = opened.infer(frames[-1:], **AS_ONE, imgsz=640).found
    with pytest.raises(InferenceError):
        opened.infer([np.zeros((0, 0, 3), np.uint8)], **AS_ONE, imgsz=640)
    opened.clear_cache()
    [after] = opened.infer(frames[-1:], **AS_ONE, imgsz=640).found
    assert after == before
    assert before


CRAMPED = """
import resource, sys
from pathlib import Path
import numpy as np
from detector_service.backends.yolo import open_yolo
from detector_service.batcher import Batcher, BatchLimits, Work
backend = open_yolo(Path(sys.argv[1]), threads=2, scratch=Path(sys.argv[2]))
told = []
subject = Batcher(
    lambda: backend, lambda: BatchLimits(32, 0), on_out_of_memory=lambda: told.append(1)
)
subject.start()
frame = Work(np.zeros((720, 1280, 3), np.uint8), 0.3, 0.7, 1280)
subject.submit(frame).result(60)
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
futures = subject.submit_all([frame] * 32)
print(sum(future.exception(120) is None for future in futures), subject.batch_limit, len(told))
"""


def test_a_real_shortage_of_memory_costs_batch_size_and_no_frame(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", CRAMPED, str(WEIGHTS), str(tmp_path / "scratch")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=True)
    answered, limit, out_of_memory = map(int, done.stdout.split())
    assert answered == 32
    assert 1 <= limit < 32
    assert out_of_memory >= 1


STARVED = """
import resource, sys
from pathlib import Path
import numpy as np
from detector_service.backends.openvino import open_openvino
from detector_service.backends.yolo import open_yolo
from detector_service.errors import OutOfMemoryError
weights, scratch = map(Path, sys.argv[1:])
torch = open_yolo(weights, threads=1, scratch=scratch)
network = open_openvino(torch, weights, threads=1, cache=scratch)._network
asked = np.random.default_rng(0).random((2, 3, 1280, 1280), np.float32)
other = np.zeros_like(asked)
[right] = network(other).values()
network(asked)
network.compiled.release_memory()
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + 20 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
try:
    network(other)
except OutOfMemoryError:
    print("refused")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
[again] = network(other).values()
print("right" if np.allclose(again, right, atol=1e-3) else "wrong")
"""


def test_openvino_short_of_memory_never_answers_with_what_it_found_before(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STARVED, str(WEIGHTS), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.split() == ["refused", "right"]


def test_a_body_that_is_no_image_is_told_so_while_the_real_model_runs(tmp_path: Path) -> None:
    gif = picture(1, kind="GIF")
    with process(tmp_path) as detector:
        detector.wait_until_ready()
        for body in (b"hello", gif, gif[:20], bytes(1000)):
            answer = httpx.post(f"{detector.url}/v1/detect", content=body, timeout=10)
            assert (answer.status_code, answer.json()["reason"]) == (422, "undecodable")
        answer = httpx.post(f"{detector.url}/v1/detect", files={"file": b""}, timeout=10)
        assert answer.status_code == 422


def test_weights_that_are_no_numbers_are_refused(torch: YoloBackend, tmp_path: Path) -> None:
    import torch as library  # noqa: PLC0415 - only where the real thing runs

    path = tmp_path / "nan.pt"
    checkpoint = library.load(WEIGHTS, weights_only=False)
    next(checkpoint["model"].parameters()).data.fill_(float("nan"))
    library.save(checkpoint, path)
    with pytest.raises(StartError, match="hold NaN or infinity"):
        open_yolo(path, threads=2, scratch=tmp_path / "scratch")


@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo26n"])
def test_every_generation_of_detectors_opens_with_nms_outside(
    checkpoints: Callable[[str], Path], folder: Path, frames: list[Image], name: str
) -> None:
    torch = open_yolo(checkpoints(name), threads=2, scratch=folder / "scratch")
    assert torch.info.nms == "external"
    assert len(torch.info.classes) == 80
    assert torch.info.name == f"{name}.pt"
    assert len(torch.infer(frames[:2], **AS_ONE, imgsz=160).found) == 2


def test_a_head_without_nms_says_so_and_stays_with_torch(
    torch: YoloBackend, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import ultralytics  # noqa: PLC0415 - as above

    model = ultralytics.YOLO("yolo26n.yaml")
    model.model.eval()
    model.model.end2end = True
    model.model.fuse()  # drops the branch that NMS would follow
    path = folder / "end2end.pt"
    model.save(str(path))
    opened = open_auto(path, folder, cache=folder / "cache")
    assert (opened.info.backend, opened.info.nms) == ("torch", "end2end")
    assert "does without NMS" in caplog.text


def open_auto(path: Path, folder: Path, *, backend: str = "auto", cache: Path) -> Any:
    return open_backend(
        path, backend=backend, threads=2, imgsz=320, cache=cache, scratch=folder / "scratch"
    )


def test_auto_keeps_the_faster_and_says_how_fast_each_was(
    folder: Path, openvino: YoloBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    info = open_auto(WEIGHTS, folder, cache=folder / "cache").info
    assert set(info.measured) == {"torch", "openvino"}
    assert info.measured[info.backend] == min(info.measured.values())
    assert f"backend {info.backend}: a frame at imgsz 320 takes openvino" in caplog.text


def no_openvino(_: str) -> str:
    raise importlib.metadata.PackageNotFoundError


@pytest.mark.parametrize("trouble", ["not installed", "unwritable"])
def test_without_openvino_auto_is_torch_with_one_warning_and_openvino_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    cache = tmp_path / "cache"
    if trouble == "unwritable":
        cache.write_bytes(b"")  # a file: even root makes no folder in it
        words = "set DETECTOR_CACHE_DIR to a writable folder"
    else:
        monkeypatch.setattr("detector_service.backends.openvino.metadata.version", no_openvino)
        words = "OpenVINO is not installed"
    opened = open_auto(WEIGHTS, tmp_path, cache=cache)
    assert opened.info.backend == "torch"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert words in caplog.text
    with pytest.raises(StartError, match=words):
        open_auto(WEIGHTS, tmp_path, backend="openvino", cache=cache)


def test_an_export_is_kept_apart_from_the_checkpoint_and_damage_to_it_is_repaired(
    torch: YoloBackend, folder: Path, tmp_path: Path, frames: list[Image]
) -> None:
    beside = sorted(WEIGHTS.parent.iterdir())
    for damage in (False, True):
        if damage:
            [network] = tmp_path.rglob("*.bin")
            os.truncate(network, 1000)
        opened = open_openvino(torch, WEIGHTS, threads=2, cache=tmp_path)
        assert opened.infer(frames[-1:], **AS_ONE, imgsz=640).found[0]
    assert sorted(WEIGHTS.parent.iterdir()) == beside
    [entry] = (path for path in (tmp_path / "openvino").iterdir() if path.is_dir())
    names = {path.name for path in (entry / EXPORTED).iterdir()}
    assert names == {"model.xml", "model.bin", "metadata.yaml"}
    assert sys.modules["openvino_telemetry"] is None, "it could report to its maker"


class Program:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_checkpoint_that_is_a_program_is_refused_as_one_and_not_run(
    torch: YoloBackend, tmp_path: Path
) -> None:
    import torch as library  # noqa: PLC0415 - only where the real thing runs

    path = tmp_path / "evil.pt"
    library.save({"model": Program(tmp_path / "ran")}, path)
    require_checkpoint(path)
    with pytest.raises(StartError, match=r"may be a program: it names posix\.system") as refused:
        open_yolo(path, threads=2, scratch=tmp_path / "scratch")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["yolo11n-cls", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb"])
def test_a_model_for_something_else_is_refused(
    checkpoints: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    with pytest.raises(StartError, match="holds no detector but a model for: "):
        open_yolo(checkpoints(name), threads=2, scratch=tmp_path)


def test_plain_tensors_and_foreign_objects_are_refused_in_one_line(
    torch: YoloBackend, tmp_path: Path
) -> None:
    import torch as library  # noqa: PLC0415 - as above

    things = {
        "state": library.nn.Linear(2, 2).state_dict(),
        "list": [1, 2],
        "module": library.nn.Linear(2, 2),
        "wrapped": {"model": library.nn.Linear(2, 2)},
    }
    for name, thing in things.items():
        path = tmp_path / f"{name}.pt"
        library.save(thing, path)
        with pytest.raises(StartError, match="as an Ultralytics detector") as refused:
            open_yolo(path, threads=2, scratch=tmp_path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_file_named_as_an_official_model_is_the_one_that_is_loaded(
    torch: YoloBackend, tmp_path: Path
) -> None:
    path = tmp_path / "yolov5n.pt"  # a name at which Ultralytics would fetch another file
    path.write_bytes(WEIGHTS.read_bytes())
    assert open_yolo(path, threads=2, scratch=tmp_path / "s").info.classes == {0: "cursor"}


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_hundred_images_and_thresholds_of_four_clients_get_no_answer_of_another(
    backend: str, folder: Path, frames: list[Image], request: pytest.FixtureRequest
) -> None:
    opened: YoloBackend = request.getfixturevalue(backend)
    asked = list(questions(frames, 100))
    subject = Batcher(lambda: opened, lambda: BatchLimits(8, 0))
    subject.start()
    alone = [subject.submit(each).result(30).detections for each in asked]
    order = random.Random(7).sample(range(len(asked)), len(asked))
    with ThreadPoolExecutor(4) as clients:
        shares = [order[number::4] for number in range(4)]
        answers = clients.map(lambda share: burst(subject, asked, share), shares)
        together = {number: found for share in answers for number, found in share}
    assert subject.stop(10)
    assert len({str(found) for found in alone}) > 40, "the questions have too few answers"
    for number, found in enumerate(alone):
        assert len(together[number]) == len(found), number
        for one, other in zip(found, together[number], strict=True):
            assert other.confidence >= asked[number].conf
            assert same(one, other), number


def questions(frames: list[Image], count: int) -> Iterator[Work]:
    """Yield the canary moved to another place each time, with a threshold of its own."""
    canary = frames[-1]
    for number in range(count):
        image = np.ascontiguousarray(np.roll(canary, (number % 10 * 12, number // 10 * 20), (0, 1)))
        yield Work(image, 0.05 + number * 0.005, 0.7, 320)


def burst(
    subject: Batcher, asked: Sequence[Work], share: Sequence[int]
) -> list[tuple[int, tuple[Detection, ...]]]:
    futures = [(number, subject.submit(asked[number])) for number in share]
    return [(number, future.result(60).detections) for number, future in futures]


@pytest.mark.parametrize("backend", ["openvino", "auto"])
def test_a_process_with_an_export_answers_while_it_loads_and_sees_the_canary(
    tmp_path: Path, backend: str
) -> None:
    told = {"backend": backend, "cache_dir": tmp_path / "cache", "torch_threads": 2}
    with process(tmp_path / "state", **told) as detector:
        detector.wait_until(200, "/livez")
        early = httpx.post(f"{detector.url}/v1/detect", content=CANARY.read_bytes(), timeout=5)
        assert early.status_code == 503
        assert early.json()["reason"] == "loading"
        detector.wait_until_ready()
        answer = httpx.post(f"{detector.url}/v1/detect", content=CANARY.read_bytes(), timeout=30)
        best = max(answer.json()["detections"], key=lambda item: item["confidence"])
        assert overlap(tuple(best["xyxy"]), (400, 212, 425, 254)) > 0.5
        metrics = detector.get("/metrics").text
        assert 'backend="openvino"' in metrics or backend == "auto"
        assert 'detector_stage_duration_seconds_count{stage="inference"}' in metrics
        assert detector.end() == 0
