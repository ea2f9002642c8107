"""``POST /v1/detect``: the answers, the refusals and their split, and whose answer it is."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from PIL import Image as Pillow

from detector_service.routes.detect import accepted_picture
from tests.detector.toys import (
    LETHAL,
    POISON,
    ToyBackend,
    listening,
    picture,
    running,
    until,
)


def boxes(answer: httpx.Response) -> set[float]:
    return {item["xyxy"][0] for item in answer.json()["detections"]}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_an_image_is_answered_with_detections_size_and_timings(
    tmp_path: Path, kind: str
) -> None:
    async with running(tmp_path) as detector:
        body = picture(0, size=(64, 48), kind=kind)
        answer = await detector.client.post("/v1/detect", content=body)
    found = answer.json()
    assert found["model"] == "toy.pt"
    assert found["image"] == {"width": 64, "height": 48}
    assert found["generation"] == 1
    assert set(found["timings"]) == {"queue_s", "inference_s", "total_s"}
    assert [item["confidence"] for item in found["detections"]] == [0.9, 0.6, 0.4]
    assert found["detections"][0]["class_name"] == "cursor"


async def test_a_form_with_a_file_is_as_good_as_a_raw_body(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        good = await detector.client.post("/v1/detect", files={"file": ("a.png", picture(5))})
        assert boxes(good) == {5.0}
        for form in (
            {"files": {"image": ("a.png", picture(5))}},
            {"files": {"file": (None, "text")}},
        ):
            answer = await detector.client.post("/v1/detect", **form)
            assert (answer.status_code, answer.json()["reason"]) == (422, "multipart")
        torn = await detector.client.post(
            "/v1/detect", content=b"--", headers={"content-type": "multipart/form-data"}
        )
        assert (torn.status_code, torn.json()["reason"]) == (422, "multipart")


async def test_settings_in_force_reach_the_model_and_a_query_overrides_thresholds(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as detector:
        await detector.patch({"conf_threshold": 0.5, "iou_threshold": 0.55, "imgsz": 320})
        assert len((await detector.detect()).json()["detections"]) == 2
        answer = await detector.detect(params={"conf": "0.1", "iou": "0.9"})
        assert len(answer.json()["detections"]) == 4
        calls = [(call.conf, call.iou, call.imgsz) for call in detector.backend.calls]
        assert calls == [(0.5, 0.55, 320), (0.1, 0.9, 320)]
        for query in ({"conf": "2"}, {"conf": "x"}, {"conf": "nan"}, {"size": "1"}):
            assert (await detector.detect(params=query)).status_code == 422


async def test_many_clients_with_distinct_images_and_thresholds_get_their_own_answers(
    tmp_path: Path,
) -> None:
    counts = {0.1: 4, 0.3: 3, 0.5: 2, 0.7: 1, 0.95: 0}
    thresholds = list(counts)

    async with running(tmp_path, max_concurrency=256, decode_threads=4) as detector:

        async def one(number: int) -> None:
            conf, iou = thresholds[number % 5], (0.5, 0.7)[number % 2]
            value = number % 240
            answer = await detector.detect(value, params={"conf": conf, "iou": iou})
            assert answer.status_code == 200
            assert len(answer.json()["detections"]) == counts[conf]
            assert boxes(answer) <= {float(value)}

        await asyncio.gather(*(one(number) for number in range(200)))
        assert max(len(call.values) for call in detector.backend.calls) > 1


def shape_of(body: bytes, kind: str) -> tuple[int, int]:
    """Return width and height of a picture that must be of this kind."""
    with Pillow.open(io.BytesIO(body), formats=[kind]) as opened:
        opened.load()
        return opened.size


def has_box(body: bytes) -> bool:
    """Say whether the toy's box at (20, 20) is drawn into a picture of one colour."""
    with Pillow.open(io.BytesIO(body)) as opened:
        pixels = opened.convert("RGB")
    at, beside = pixels.getpixel((20, 28)), pixels.getpixel((10, 44))
    return max(abs(one - other) for one, other in zip(at, beside, strict=True)) > 20


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
async def test_the_annotated_picture_is_the_answer_or_part_of_it(tmp_path: Path, kind: str) -> None:
    async with running(tmp_path) as detector:
        accept = {"accept": f"image/{kind}"}
        shown = await detector.detect(20, headers=accept)
        assert shown.headers["content-type"] == f"image/{kind}"
        assert shape_of(shown.content, kind.upper()) == (64, 48)
        assert has_box(shown.content)
        found = json.loads(shown.headers["x-detections"])
        plain = (await detector.detect(20)).json()
        assert found == plain["detections"]
        assert shown.headers["x-detections-count"] == "3"
        assert "annotated" not in plain
        inside = (await detector.detect(20, params={"annotated": kind})).json()
        head, _, coded = inside["annotated"].partition(";base64,")
        assert head == f"data:image/{kind}"
        assert base64.b64decode(coded) == shown.content
        assert inside["detections"] == plain["detections"]
        count = 'detector_stage_duration_seconds_count{stage="%s"}'
        assert await detector.metric(count % "annotate") == 2
        assert await detector.metric(count % "decode") == 3


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", None),
        ("*/*", None),
        ("image/*", None),
        ("image/gif", None),
        ("application/json, image/jpeg", None),
        ("application/json;q=0.5, image/jpeg;q=0.4", None),
        ("image/png;q=0", None),
        ("image/png;q=high", None),
        ("image/PNG", "image/png"),
        ("image/webp, */*;q=0.8", "image/webp"),
        ("image/jpeg;q=0.5, image/png", "image/png"),
        ("image/jpeg; q=0.9 , application/json; q=0.8", "image/jpeg"),
    ],
)
def test_a_picture_is_answered_only_where_its_type_is_named_and_preferred(
    accept: str, kind: str | None
) -> None:
    assert accepted_picture(accept) == kind


async def test_detections_that_no_header_can_hold_are_counted_in_one(tmp_path: Path) -> None:
    async with running(tmp_path, backend=ToyBackend(class_name="x" * 2000)) as detector:
        shown = await detector.detect(20, headers={"accept": "image/png"})
    assert shown.headers["x-detections-count"] == "3"
    assert "x-detections" not in shown.headers


async def test_a_picture_that_its_type_cannot_hold_is_refused_with_a_way_out(
    tmp_path: Path,
) -> None:
    body = picture(1, size=(17_000, 2))
    async with running(tmp_path) as detector:
        wide = await detector.client.post("/v1/detect?annotated=webp", content=body)
        assert (wide.status_code, wide.json()["reason"]) == (413, "too_many_pixels")
        assert "ask for PNG" in wide.json()["error"]
        fine = await detector.client.post("/v1/detect?annotated=png", content=body)
        assert fine.status_code == 200
        gif = await detector.client.post("/v1/detect?annotated=gif", content=body)
        assert (gif.status_code, set(gif.json()["problems"])) == (422, {"annotated"})


async def test_confidences_are_counted_by_the_classes_of_the_model_and_no_others(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as detector:
        await detector.detect(1)
        assert await detector.metric('detector_confidence_count{class_name="cursor"}') == 3
        assert await detector.metric('detection_objects_total{class_name="cursor"}') == 3
        detector.parts.telemetry.note_frame(["cursor"], [("ghost", 0.5)])
        assert await detector.metric('detector_confidence_count{class_name="other"}') == 1
        assert await detector.metric("detection_frames_total") == 2


def bomb(width: int, height: int) -> bytes:
    """Return a PNG that claims to be huge and is a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
async def test_a_pixel_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.post("/v1/detect", content=bomb(*size))
    assert (answer.status_code, answer.json()["reason"]) == (413, "too_many_pixels")


def damaged() -> dict[str, bytes]:
    jpeg = picture(1, size=(640, 480), kind="JPEG")
    png, webp = picture(1), picture(1, kind="WEBP")
    gif = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(gif, "GIF")
    return {
        "nothing": b"",
        "text": b"hello",
        "a GIF": gif.getvalue(),
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "half a PNG": png[: len(png) // 2],
        "half a WebP": webp[: len(webp) // 2],
        "a JPEG of noise": jpeg[:200] + bytes(255 - byte for byte in jpeg[200:400]) + jpeg[400:500],
        "a JPEG header": jpeg[:20],
    }


@pytest.mark.parametrize("name", damaged())
async def test_what_is_no_image_is_refused_with_422_and_counted_as_error(
    tmp_path: Path, name: str
) -> None:
    async with running(tmp_path) as detector:
        answer = await detector.client.post("/v1/detect", content=damaged()[name])
        assert (answer.status_code, answer.json()["reason"]) == (422, "undecodable")
        assert await detector.metric('detector_requests_total{outcome="error"}') == 1
        assert (await detector.detect()).status_code == 200


async def test_pictures_of_every_mode_and_orientation_become_upright_bgr(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        for mode in ("L", "RGBA", "P", "CMYK", "1", "LA", "I;16"):
            kind = "JPEG" if mode == "CMYK" else "PNG"
            buffer = io.BytesIO()
            Pillow.new(mode, (20, 10)).save(buffer, kind)
            answer = await detector.client.post("/v1/detect", content=buffer.getvalue())
            assert answer.status_code == 200, mode
        turned = io.BytesIO()
        exif = Pillow.Exif()
        exif[0x0112] = 6
        Pillow.new("RGB", (20, 10)).save(turned, "JPEG", exif=exif)
        answer = await detector.client.post("/v1/detect", content=turned.getvalue())
        assert answer.json()["image"] == {"width": 10, "height": 20}


async def test_a_body_over_the_limit_is_413_by_its_header_and_while_it_arrives(
    tmp_path: Path,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1024)

    async with listening(tmp_path, max_body_bytes=4096) as detector:
        told = await detector.client.post("/v1/detect", content=bytes(5000))
        chunked = await detector.client.post("/v1/detect", content=endless())
        for answer in (told, chunked):
            assert (answer.status_code, answer.json()["reason"]) == (413, "too_large")
        assert await detector.metric('detector_rejected_total{reason="too_large"}') == 1
        assert detector.parts.limiter.queued == 0


async def test_a_client_that_waits_for_100_continue_never_uploads_what_is_refused(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, max_concurrency=1, queue_limit=0) as detector:
        detector.backend.gate.clear()
        busy = await detector.held_up(1)
        host, port = "127.0.0.1", int(detector.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"POST /v1/detect HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
        )
        status = await reader.readline()
        assert b"429" in status
        writer.close()
        await writer.wait_closed()
        detector.backend.gate.set()
        await asyncio.gather(*busy)


async def test_overload_is_429_with_retry_after_and_the_figures(tmp_path: Path) -> None:
    async with running(tmp_path, max_concurrency=1, queue_limit=1) as detector:
        detector.backend.gate.clear()
        inside = await detector.held_up(1, 2)
        refused = await detector.detect(3)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        body = refused.json()
        assert (body["reason"], body["limit"], body["inflight"], body["queue"]) == (
            "queue_full",
            1,
            1,
            1,
        )
        assert await detector.metric('detector_rejected_total{reason="queue_full"}') == 1
        detector.backend.gate.set()
        assert [boxes(answer) for answer in await asyncio.gather(*inside)] == [{1.0}, {2.0}]
        assert await detector.metric("detector_request_duration_seconds_count") == 2


async def test_a_lower_ceiling_acts_on_those_who_wait_already(tmp_path: Path) -> None:
    async with running(tmp_path, max_concurrency=3) as detector:
        detector.backend.gate.clear()
        inside = await detector.held_up(1, 2, 3, 4, 5, 6)
        await detector.patch({"max_concurrency": 1, "batch_size": 1})
        most = 0

        def ended() -> bool:
            nonlocal most
            if detector.parts.limiter.running < 3:
                most = max(most, detector.parts.limiter.running)
            return all(task.done() for task in inside)

        detector.backend.gate.set()
        await until(ended)
        assert most <= 2
        assert [(await task).status_code for task in inside] == [200] * 6


async def test_the_deadline_is_504_for_those_inside_and_those_who_wait(tmp_path: Path) -> None:
    async with running(tmp_path, max_concurrency=1, deadline_s=0.2) as detector:
        detector.backend.gate.clear()
        late = await detector.held_up(1, 2)
        for answer in await asyncio.gather(*late):
            assert (answer.status_code, answer.json()["reason"]) == (504, "deadline")
        assert await detector.metric('detector_requests_total{outcome="deadline"}') == 2
        assert detector.parts.limiter.running == 0
        detector.backend.gate.set()
        await until(lambda: detector.parts.alive)
        assert (await detector.detect(3)).status_code == 200
        assert [call.values for call in detector.backend.calls] == [(1,), (3,)]


async def test_a_client_that_left_frees_its_place_and_is_not_looked_at(tmp_path: Path) -> None:
    async with listening(tmp_path, max_concurrency=2) as detector:
        detector.backend.gate.clear()
        (stays,) = await detector.held_up(1)
        await until(lambda: len(detector.backend.calls) == 1)
        (leaves,) = await detector.held_up(2)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        await until(lambda: detector.parts.limiter.running == 1)
        assert await detector.metric('detector_requests_total{outcome="cancelled"}') == 1
        assert await detector.metric("detector_request_duration_seconds_count") == 0
        detector.backend.gate.set()
        assert boxes(await stays) == {1.0}
        assert (await detector.detect(3)).status_code == 200
        assert [call.values for call in detector.backend.calls] == [(1,), (3,)]


async def test_a_client_that_leaves_while_uploading_frees_its_place(tmp_path: Path) -> None:
    async with listening(tmp_path) as detector:
        host, port = "127.0.0.1", int(detector.url.rsplit(":", 1)[1])
        _reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        await until(lambda: detector.parts.limiter.queued == 1)
        writer.close()
        await until(lambda: detector.parts.limiter.queued == 0)
        assert await detector.metric('detector_requests_total{outcome="cancelled"}') == 1


async def test_only_answers_and_deadlines_say_how_fast_the_service_is(tmp_path: Path) -> None:
    async with running(tmp_path, max_concurrency=2, queue_limit=0) as detector:
        count = "detector_request_duration_seconds_count"
        assert (await detector.client.post("/v1/detect", content=b"x")).status_code == 422
        assert (await detector.detect(POISON)).status_code == 500
        assert (await detector.detect(1, params={"conf": "2"})).status_code == 422
        detector.backend.gate.clear()
        inside = await detector.held_up(1, 2)
        assert (await detector.detect(3)).status_code == 429
        assert await detector.metric(count) == 0
        detector.backend.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*inside)] == [200, 200]
        assert await detector.metric(count) == 2
        await detector.patch({"deadline_s": 0.2})
        detector.backend.gate.clear()
        assert (await detector.detect(4)).status_code == 504
        assert await detector.metric(count) == 3


async def test_a_model_that_fails_on_an_image_is_500_for_that_image_only(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        bad = await detector.detect(POISON)
        assert (bad.status_code, bad.json()["reason"]) == (500, "inference_failed")
        assert (await detector.detect(1)).status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lost_device_is_503_sick_and_ends_liveness(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        assert (await detector.detect(LETHAL)).status_code == 503
        refused = await detector.detect(1)
        assert (refused.status_code, refused.json()["reason"]) == (503, "sick")
        for path in ("/livez", "/readyz"):
            assert (await detector.client.get(path)).status_code == 503
        assert (await detector.client.post("/v1/canary")).status_code == 503
        assert await detector.metric("detector_ready") == 0


async def test_a_pass_that_hangs_ends_liveness_and_load_does_not(tmp_path: Path) -> None:
    async with running(tmp_path, hang_s=0.3) as detector:
        detector.backend.gate.clear()
        inside = await detector.held_up(1)
        assert detector.parts.alive
        await until(lambda: not detector.parts.alive)
        assert (await detector.client.get("/livez")).status_code == 503
        assert (await detector.detect(2)).json()["reason"] == "sick"
        detector.backend.gate.set()
        await asyncio.gather(*inside)
        await until(lambda: detector.parts.alive)
        assert (await detector.detect(3)).status_code == 200
