"""Metrics names, the canary and readiness."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from detector_service.canary import overlap, read_sample
from detector_service.errors import StartError
from tests.detector.toys import LETHAL, POISON, ToyBackend, running, toy_app, until

ARTICLE = {
    "detection_requests": "counter",
    "detection_frames": "counter",
    "detection_objects": "counter",
    "gpu_utilization_percent": "gauge",
    "gpu_memory_used_mb": "gauge",
    "gpu_memory_total_mb": "gauge",
    "gpu_temperature_celsius": "gauge",
    "inference_duration_seconds": "histogram",
    "processing_latency_seconds": "summary",
    "confidence_threshold": "gauge",
    "iou_threshold": "gauge",
    "http_requests_in_progress": "gauge",
}
OURS = {
    "detector_request_duration_seconds": "histogram",
    "detector_requests": "counter",
    "detector_inflight_requests": "gauge",
    "detector_queue_depth": "gauge",
    "detector_queue_wait_seconds": "histogram",
    "detector_concurrency_ceiling": "gauge",
    "detector_rejected": "counter",
    "detector_batch_size": "histogram",
    "detector_config_generation": "gauge",
    "detector_config_changes": "counter",
    "detector_config_info": "gauge",
    "detector_last_inference_timestamp_seconds": "gauge",
    "detector_canary_success": "gauge",
    "detector_canary_iou": "gauge",
    "detector_ready": "gauge",
    "detector_draining": "gauge",
    "detector_leases_active": "gauge",
    "detector_build_info": "gauge",
    "detector_gpu_utilization_ratio": "gauge",
    "detector_gpu_memory_used_bytes": "gauge",
    "detector_gpu_memory_total_bytes": "gauge",
    "detector_gpu_power_watts": "gauge",
    "detector_gpu_power_limit_watts": "gauge",
    "detector_gpu_throttle_reasons": "gauge",
    "detector_gpu_ecc_errors": "counter",
    "detector_gpu_xid_errors": "counter",
    "detector_gpu_xid_last": "gauge",
    "detector_gpu_sample_timestamp_seconds": "gauge",
    "detector_memory_baseline_bytes": "gauge",
    "detector_memory_growth_bytes": "gauge",
    "detector_torch_memory_allocated_bytes": "gauge",
    "detector_torch_memory_reserved_bytes": "gauge",
    "detector_cuda_healthy": "gauge",
}


async def test_every_name_of_the_article_and_of_the_design_is_there_with_its_type(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as detector:
        await detector.detect()
        answer = await detector.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    types = {family.name: family.type for family in text_string_to_metric_families(answer.text)}
    assert types.items() >= (ARTICLE | OURS).items()


async def test_a_request_is_counted_everywhere_it_should_be(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        await detector.detect()
        for name, value in {
            "detection_requests_total": 1,
            "detection_frames_total": 1,
            'detection_objects_total{class_name="cursor"}': 3,
            'detector_requests_total{outcome="ok"}': 1,
            "processing_latency_seconds_count": 1,
            "detector_request_duration_seconds_count": 1,
            'detector_request_duration_seconds_bucket{le="0.25"}': 1,
            "detector_canary_success": 1,
            "detector_canary_iou": 1,
            "detector_ready": 1,
            "http_requests_in_progress": 1,
            'detector_config_info{backend="torch",model="toy.pt",nms="external",'
            'precision="fp32",version="0123456789ab"}': 1,
        }.items():
            assert await detector.metric(name) == value, name
        assert await detector.metric("detector_last_inference_timestamp_seconds") > 0


async def test_the_build_is_told_with_the_commit_it_was_made_of(tmp_path: Path) -> None:
    for told, commit in (({"commit": "1a2b3c"}, "1a2b3c"), ({}, "unknown")):
        async with running(tmp_path, **told) as detector:
            shown = [
                line
                for line in detector.parts.telemetry.render().decode().splitlines()
                if line.startswith("detector_build_info{")
            ]
        (line,) = shown
        assert f'commit="{commit}"' in line


async def test_on_the_cpu_busy_share_and_memory_growth_are_shown_and_no_gpu_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_service.gpu.sampler.PERIOD_S", 0.01)
    async with running(tmp_path) as detector:
        render = detector.parts.telemetry.render
        await until(lambda: b"\ndetector_memory_growth_bytes " in render())
        busy = await detector.metric('gpu_utilization_percent{gpu_id="cpu_busy"}')
        assert busy is not None
        assert 0 <= busy <= 100
        baseline = await detector.metric("detector_memory_baseline_bytes")
        assert baseline is not None
        assert baseline > 2**20
        assert await detector.metric("detector_cuda_healthy") is None
        assert await detector.metric("detector_torch_memory_allocated_bytes") is None


async def test_the_canary_tells_a_seeing_model_from_a_blind_one(tmp_path: Path) -> None:
    async with running(tmp_path, canary_every_s=0.1) as detector:
        seen = (await detector.client.post("/v1/canary")).json()
        assert (seen["ok"], seen["iou"]) == (True, 1.0)
        detector.backend.blind = True
        await until(lambda: detector.parts.canary.last.ok is False)
        assert await detector.metric("detector_canary_success") == 0
        assert await detector.metric("detector_canary_iou") == 0
        ready = await detector.client.get("/readyz")
        assert (ready.status_code, ready.json()["canary_ok"]) == (200, False)
        detector.backend.blind = False
        await until(lambda: detector.parts.canary.last.ok is True)


async def test_a_model_without_the_class_has_no_canary_and_is_ready(tmp_path: Path) -> None:
    async with running(tmp_path, backend=ToyBackend(class_name="icon")) as detector:
        assert (await detector.client.post("/v1/canary")).json()["ok"] is None
        ready = await detector.client.get("/readyz")
        assert (ready.status_code, ready.json()["canary_ok"]) == (200, None)
        assert await detector.metric("detector_canary_success") is None


async def test_a_model_whose_head_ignores_iou_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, backend=ToyBackend(nms="end2end")) as detector:
        assert (await detector.settings())["effective"]["iou_threshold"] is False


async def test_while_the_model_loads_health_answers_and_detections_get_503(tmp_path: Path) -> None:
    gate, backend = threading.Event(), ToyBackend()
    app, _, _ = toy_app(tmp_path, backend=backend)
    parts = app.state.parts
    parts.batcher._open_backend = lambda: (gate.wait(10), backend)[1]
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["loaded"]) == (503, False)
        refused = await client.post("/v1/detect", content=b"x")
        assert (refused.status_code, refused.json()["reason"]) == (503, "loading")
        assert "retry-after" in refused.headers
        assert (await client.post("/v1/canary")).status_code == 503
        gate.set()
        await until(lambda: parts.ready)


async def test_a_model_that_cannot_be_opened_asks_the_server_to_end(tmp_path: Path) -> None:
    app, _, _ = toy_app(tmp_path)
    parts, asked = app.state.parts, []

    def missing() -> ToyBackend:
        raise StartError("there is no model")

    parts.batcher._open_backend = missing
    parts.end = lambda: asked.append(True)
    async with app.router.lifespan_context(app):
        await until(lambda: asked)
    assert str(parts.failure) == "there is no model"


async def test_the_names_of_the_open_inference_protocol_say_the_same(tmp_path: Path) -> None:
    async with running(tmp_path, model=Path("best.v2.pt")) as detector:

        async def asked(path: str) -> tuple[int, Any]:
            answer = await detector.client.get(path)
            return answer.status_code, answer.json()

        assert (await asked("/v2"))[1]["name"] == "detector_service"
        assert await asked("/v2/health/live") == (200, {"live": True})
        assert await asked("/v2/health/ready") == (200, {"ready": True})
        assert await asked("/v2/models/best.v2/ready") == (200, {"name": "best.v2", "ready": True})
        status, model = await asked("/v2/models/best.v2")
        assert (status, model["versions"], model["platform"]) == (
            200,
            ["0123456789ab"],
            "ultralytics_torch",
        )
        for path in ("/v2/models/other", "/v2/models/other/ready"):
            status, body = await asked(path)
            assert (status, body["reason"]) == (404, "unknown_model")
            assert "'best.v2'" in body["error"]
        await detector.client.post("/v1/drain", json={"owner": "c", "reason": "r"})
        assert await asked("/v2/health/live") == (200, {"live": True})
        assert await asked("/v2/health/ready") == (400, {"ready": False})
        assert (await asked("/v2/models/best.v2/ready"))[0] == 400


async def test_a_device_that_hangs_is_not_alive_under_either_name_whatever_waits(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, hang_s=0.05) as detector:
        detector.backend.gate.clear()
        stuck = await detector.held_up(1)
        await until(lambda: not detector.parts.alive)
        for path, status in {
            "/livez": 503,
            "/readyz": 503,
            "/v2/health/live": 400,
            "/v2/health/ready": 400,
        }.items():
            assert (await detector.client.get(path)).status_code == status, path
        detector.backend.gate.set()
        await asyncio.gather(*stuck)
        await until(lambda: detector.parts.alive)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_device_lost_while_serving_asks_the_server_to_end(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        asked: list[bool] = []
        detector.parts.end = lambda: asked.append(True)
        assert (await detector.detect(POISON)).status_code == 500
        assert not asked
        assert (await detector.detect(LETHAL)).status_code == 503
        await until(lambda: asked)
        assert detector.parts.failure is None
        assert (await detector.client.get("/livez")).status_code == 503
        assert (await detector.client.get("/v2/health/live")).status_code == 400


async def test_a_clock_that_fails_ends_the_server_rather_than_keeping_leases_for_ever(
    tmp_path: Path,
) -> None:
    app, _, _ = toy_app(tmp_path)
    parts, asked = app.state.parts, []

    def broken() -> bool:
        raise ZeroDivisionError

    parts.store.tick = broken
    parts.end = lambda: asked.append(True)
    with pytest.raises(ExceptionGroup) as caught:
        async with app.router.lifespan_context(app):
            await until(lambda: False)
    assert caught.group_contains(ZeroDivisionError)
    assert asked


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 15, 10), 1 / 3),
        ((20, 20, 30, 30), 0.0),
        ((10, 0, 20, 10), 0.0),
        ((0, 0, 0, 0), 0.0),
    ],
)
def test_overlap_is_intersection_over_union(
    other: tuple[float, float, float, float], expected: float
) -> None:
    assert overlap((0, 0, 10, 10), other) == pytest.approx(expected)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"class_name": "cursor", "xyxy": [1, 2]}'])
def test_a_damaged_canary_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "canary.json").write_bytes(damage)
    with pytest.raises(StartError, match=f"canary in {tmp_path}"):
        read_sample(tmp_path)
