"""``/v1/videos``: what is taken in and what is refused, how a job is told of, and its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from tests.detector.films import bars, make_film, numbers, read_film
from tests.detector.sites import FILM_PATH, says, site, stalls
from tests.detector.toys import Running, listening, running, until

FRAMES = 12
ENDED = {"done", "failed", "cancelled"}


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short film, as bytes."""
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4", frames=FRAMES).read_bytes()


async def sent(detector: Running, body: bytes, **query: Any) -> dict[str, Any]:
    answer = await detector.client.post("/v1/videos", content=body, params=query)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == found["links"]["self"] == f"/v1/videos/{found['id']}"
    return found


async def looked(detector: Running, video: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = (await detector.client.get(video["links"]["self"])).json()
    return answer


async def ended(detector: Running, video: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end by the events; returns the job as the last one tells it."""
    kind, last = "", dict[str, Any]()
    async with detector.client.stream("GET", video["links"]["events"], timeout=20) as stream:
        async for told in events(stream):
            kind, last = told
    assert kind == "end"
    assert last["state"] in ENDED
    return last


async def events(stream: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    kind = ""
    async for line in stream.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def stored(folder: Path) -> list[str]:
    """Return the names of job folders there are."""
    return [path.name for path in (folder / "state" / "videos").iterdir()]


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["error"]
    return answer.status_code, answer.json()["reason"]


async def hold(detector: Running, film: bytes, **query: Any) -> dict[str, Any]:
    """Send a film and wait until the model has it in hand, which the gate keeps it from ending."""
    detector.backend.gate.clear()
    video = await sent(detector, film, **query)
    await until(lambda: detector.backend.calls)
    return video


async def test_a_film_comes_back_as_detections_and_as_a_film_that_can_be_seeked(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        video = await sent(detector, film)
        assert (video["state"], video["film"]["width"]) == ("queued", 96)
        done = await ended(detector, video)
        assert done["state"] == "done"
        assert done["progress"]["frames_done"] == done["progress"]["frames_total"] == FRAMES
        assert done["timings"]["ended_at"] >= done["timings"]["started_at"]
        result = await detector.client.get(done["links"]["result"])
        assert result.headers["content-type"] == "application/json"
        assert [one["index"] for one in result.json()["frames"]] == list(range(FRAMES))
        whole = await detector.client.get(done["links"]["annotated"])
        assert whole.headers["content-type"] == "video/mp4"
        part = await detector.client.get(done["links"]["annotated"], headers={"range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")
        beyond = await detector.client.get(
            done["links"]["annotated"], headers={"range": "bytes=99999999-"}
        )
        assert beyond.status_code == 416
        head = await detector.client.head(done["links"]["annotated"])
        assert int(head.headers["content-length"]) == len(whole.content)
        assert await detector.metric('detector_videos_ended_total{outcome="done"}') == 1
    seen = tmp_path / "seen.mp4"
    write(seen, whole.content)
    assert numbers(read_film(seen)) == list(range(FRAMES))


def write(path: Path, body: bytes) -> None:
    path.write_bytes(body)


async def test_a_form_a_plain_body_and_any_media_type_are_the_same_film(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        digests = set()
        for asked in (
            {"files": {"file": ("../../etc/passwd", film, "video/mp4")}},
            {"content": film, "headers": {"content-type": "video/mp4"}},
            {"content": film, "headers": {"content-type": "application/octet-stream"}},
            {"content": film, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        ):
            answer = await detector.client.post("/v1/videos", **asked)
            assert answer.status_code == 202
            digests.add(answer.json()["source"]["sha256"])
    assert len(digests) == 1


async def test_options_reach_the_job_and_are_told_back_by_their_names(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        asked = {"conf": 0.5, "iou": 0.6, "imgsz": 320, "frame_stride": 3, "checksums": True}
        video = await sent(detector, film, **asked, annotate=False)
        assert {name: video["options"][name] for name in asked} == asked
        assert video["options"]["annotate"] is False
        assert "sample_fps" not in video["options"]
        done = await ended(detector, video)
        assert done["settings"]["imgsz"] == 320
        result = (await detector.client.get(done["links"]["result"])).json()
        assert [one["index"] for one in result["frames"]] == [0, 3, 6, 9]
        assert all(one["crc32"] for one in result["frames"])
        assert len(result["frames"][0]["detections"]) == 2
        gone = await detector.client.get(f"{done['links']['self']}/annotated")
        assert refused(gone) == (404, "not_annotated")
        assert done["links"]["annotated"] is None


async def test_filter_mode_takes_its_rules_and_judges(tmp_path: Path, film: bytes) -> None:
    async with running(tmp_path) as detector:
        video = await sent(detector, film, mode="filter", sample_fps=25, min_segment_s=0.2)
        assert video["options"]["sample_fps"] == 25
        assert (video["options"]["max_gap_s"], video["options"]["annotate"]) == (2.0, False)
        done = await ended(detector, video)
        result = (await detector.client.get(done["links"]["result"])).json()
        assert result["filter"]["keep"] is True


WRONG_OPTIONS: list[tuple[dict[str, str], set[str]]] = [
    ({"conf": "2", "iou": "x"}, {"conf", "iou"}),
    ({"imgsz": "333"}, {"imgsz"}),
    ({"frame_stride": "0"}, {"frame_stride"}),
    ({"mode": "watch"}, {"mode"}),
    ({"annotate": "perhaps"}, {"annotate"}),
    ({"sample_fps": "1"}, {"sample_fps"}),
    ({"mode": "filter", "frame_stride": "2"}, {"frame_stride"}),
    ({"mode": "filter", "min_cursor_share": "nan"}, {"min_cursor_share"}),
    ({"colour": "red"}, {"colour"}),
    ({"url": "http://a.test/"}, {"url"}),
]


async def test_an_option_that_cannot_be_meant_is_refused_by_its_name(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        for query, fields in WRONG_OPTIONS:
            answer = await detector.client.post("/v1/videos", content=film, params=query)
            assert (*refused(answer), set(answer.json()["problems"])) == (422, "invalid", fields)
        assert stored(tmp_path) == []
        count = await detector.metric('detector_rejected_total{reason="invalid"}')
        assert count == len(WRONG_OPTIONS)


def unwatchable(folder: Path) -> dict[str, tuple[bytes, str]]:
    still = folder / "still.png"
    Pillow.new("RGB", (64, 48)).save(still)
    return {
        "nothing": (b"", "empty"),
        "text": (b"hello" * 100, "not_a_video"),
        "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not_a_video"),
        "a page": (b"<html>" + b" " * 1000, "not_a_video"),
        "a picture": (still.read_bytes(), "not_a_video"),
    }


async def test_what_is_no_film_is_refused_in_words_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        for name, (body, reason) in unwatchable(tmp_path).items():
            answer = await detector.client.post("/v1/videos", content=body)
            assert refused(answer) == (422, reason), name
        assert stored(tmp_path) == []
        assert (await detector.client.get("/v1/videos")).json() == {"videos": [], "next": None}
        assert await detector.metric('detector_rejected_total{reason="not_a_video"}') == 4


async def test_a_film_larger_longer_or_wider_than_allowed_is_413(
    tmp_path: Path, film: bytes
) -> None:
    for number, (told, reason) in enumerate(
        [
            ({"max_video_bytes": 1024}, "too_large"),
            ({"max_video_frames": FRAMES - 1}, "too_long"),
            ({"max_video_s": 0.1}, "too_long"),
            ({"max_pixels": 1024}, "too_many_pixels"),
        ]
    ):
        folder = tmp_path / str(number)
        async with running(folder, **told) as detector:
            for asked in ({"content": film}, {"files": {"file": ("a", film)}}):
                answer = await detector.client.post("/v1/videos", **asked)
                assert refused(answer) == (413, reason)
            assert stored(folder) == []


async def ask(detector: Running, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send the head of a request."""
    port = int(detector.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\n" + head + b"\r\n")
    await writer.drain()
    return reader, writer


async def status(detector: Running, head: bytes) -> bytes:
    """Return the status line for a request whose body waits for ``100 Continue``."""
    reader, writer = await ask(detector, head + b"Expect: 100-continue\r\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


async def test_what_the_headers_decide_is_decided_before_the_body_is_read(
    tmp_path: Path, film: bytes
) -> None:
    length = b"Content-Length: %d\r\n"
    async with listening(tmp_path, video_queue=1, max_video_bytes=10_000_000) as detector:
        assert b"413" in await status(detector, length % 10_000_001)
        assert b"100" in await status(detector, length % 1000)
        await until(lambda: stored(tmp_path) == [])
        await hold(detector, film)
        assert b"429" in await status(detector, length % 1000)
        answer = await detector.client.post("/v1/videos", content=b"x")
        assert refused(answer) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        await detector.client.post("/v1/drain", json={"owner": "me", "reason": "a test"})
        assert b"503" in await status(detector, length % 1000)
        draining = await detector.client.post("/v1/videos", content=b"x")
        assert refused(draining) == (503, "draining")
        detector.backend.gate.set()


async def test_a_full_store_is_507_and_says_what_to_do(tmp_path: Path, film: bytes) -> None:
    async with running(tmp_path, video_store_bytes=2**20) as detector:

        async def long() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(2**17)

        for body in (bytes(2**20 + 1), long()):
            answer = await detector.client.post("/v1/videos", content=body)
            assert refused(answer) == (507, "storage_full")
            assert "delete videos" in answer.json()["error"]
        assert stored(tmp_path) == []
        await sent(detector, film)


async def test_a_client_that_leaves_mid_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    async with listening(tmp_path) as detector:
        long, chunked = b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"
        for head, leave in (
            (long, asyncio.StreamWriter.close),
            (long, asyncio.StreamWriter.write_eof),  # it said more than it sends
            (chunked, asyncio.StreamWriter.close),
        ):
            _reader, writer = await ask(detector, head)
            writer.write(b"5\r\nabcde\r\n")
            await until(lambda: stored(tmp_path))
            leave(writer)
            await until(lambda: stored(tmp_path) == [])
            writer.close()
            await writer.wait_closed()
        assert (await detector.client.get("/v1/videos")).json()["videos"] == []


async def test_an_upload_does_not_hold_up_the_end_of_the_service(tmp_path: Path) -> None:
    async with listening(tmp_path) as detector:
        reader, writer = await ask(detector, b"Content-Length: 1000000\r\n")
        writer.write(b"abc")
        await until(lambda: stored(tmp_path))
        detector.parts.stop()
        assert b"503" in await reader.readline()
        writer.close()
        await writer.wait_closed()
        await until(lambda: stored(tmp_path) == [])


async def test_a_video_is_accepted_while_the_model_loads_and_worked_off_after(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        detector.parts.warm = False
        assert (await detector.detect()).json()["reason"] == "loading"
        video = await sent(detector, film)
        assert (await looked(detector, video))["state"] == "queued"
        detector.parts.warm = True
        assert (await ended(detector, video))["state"] == "done"


async def test_an_idempotency_key_makes_a_repeated_upload_the_same_job(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        key = {"idempotency-key": "one"}

        async def again(body: bytes, **query: Any) -> httpx.Response:
            return await detector.client.post("/v1/videos", content=body, params=query, headers=key)

        first, second = await again(film), await again(film)
        assert first.json()["id"] == second.json()["id"]
        assert "idempotent-replayed" not in first.headers
        assert second.headers["idempotent-replayed"] == "true"
        for other in (await again(film + b"x"), await again(film, conf=0.9)):
            assert refused(other) == (409, "idempotency_key_reused")
        assert stored(tmp_path) == [first.json()["id"]]
        long = await detector.client.post(
            "/v1/videos", content=film, headers={"idempotency-key": "x" * 300}
        )
        assert refused(long) == (422, "invalid")


async def test_a_full_queue_does_not_keep_out_the_repeat_of_what_is_in_it(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path, video_queue=1) as detector:
        detector.backend.gate.clear()
        key = {"idempotency-key": "one"}
        first = await detector.client.post("/v1/videos", content=film, headers=key)
        again = await detector.client.post("/v1/videos", content=film, headers=key)
        assert again.json()["id"] == first.json()["id"]
        other = await detector.client.post("/v1/videos", content=film)
        assert refused(other) == (429, "queue_full")
        detector.backend.gate.set()


NO_IDS = [
    "toy." + "a" * 26,
    "toy." + "A" * 26,
    "toy." + "1" * 26,
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "..%5c..%5c",
    "toy.%00" + "a" * 25,
    "toy." + "a" * 26 + "%0a",
    "a" * 5000,
    "source",
    "%F0%9F%8E%AC",
]


async def test_an_id_that_is_none_is_404_whatever_is_asked_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        for name in NO_IDS:
            base = f"/v1/videos/{name}"
            answers = [
                await detector.client.get(base),
                await detector.client.delete(base),
                await detector.client.post(f"{base}/cancel"),
                await detector.client.get(f"{base}/result"),
                await detector.client.get(f"{base}/annotated"),
                await detector.client.get(f"{base}/events"),
            ]
            assert {answer.status_code for answer in answers} == {404}, name


async def test_the_list_is_newest_first_in_pages_and_by_state(tmp_path: Path, film: bytes) -> None:
    async with running(tmp_path) as detector:
        ids = [(await sent(detector, film))["id"] for _ in range(3)]

        async def listed(**query: Any) -> tuple[list[str], int | None]:
            found = (await detector.client.get("/v1/videos", params=query)).json()
            return [video["id"] for video in found["videos"]], found["next"]

        assert await listed() == (ids[::-1], None)
        page, after = await listed(limit=2)
        assert page == [ids[2], ids[1]]
        assert await listed(limit=2, before=after) == ([ids[0]], None)
        for name in ids:
            await ended(detector, {"links": {"events": f"/v1/videos/{name}/events"}})
        assert (await listed(state="done"))[0] == ids[::-1]
        assert await listed(state="failed") == ([], None)
        for query in ({"state": "lost"}, {"limit": 0}, {"before": 10**30}, {"page": 1}):
            answer = await detector.client.get("/v1/videos", params=query)
            assert refused(answer) == (422, "invalid")


async def test_only_the_list_asks_who_you_are_because_it_tells_the_ids(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path, client_host="10.0.0.9") as detector:
        assert refused(await detector.client.get("/v1/videos")) == (403, "forbidden")
        video = await sent(detector, film)
        assert (await ended(detector, video))["state"] == "done"


async def test_a_cancelled_video_stays_so_and_is_then_deleted(tmp_path: Path, film: bytes) -> None:
    async with running(tmp_path) as detector:
        video = await hold(detector, film)
        link = video["links"]["self"]
        assert refused(await detector.client.delete(link)) == (409, "not_ended")
        early = await detector.client.get(f"{link}/result")
        assert (*refused(early), early.json()["state"]) == (409, "not_done", "running")
        for _ in range(2):
            answer = await detector.client.post(f"{link}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        detector.backend.gate.set()
        for what in ("result", "annotated"):
            answer = await detector.client.get(f"{link}/{what}")
            assert refused(answer) == (410, "cancelled")
        await until(lambda: not detector.parts.limiter.running)
        assert (await detector.client.delete(link)).status_code == 204
        for answer in (await detector.client.get(link), await detector.client.delete(link)):
            assert refused(answer) == (404, "not_found")
        await until(lambda: stored(tmp_path) == [])


async def test_events_tell_the_progress_then_the_end_and_then_end(
    tmp_path: Path, film: bytes
) -> None:
    async with listening(tmp_path) as detector:
        video = await hold(detector, film)
        async with detector.client.stream("GET", video["links"]["events"]) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-cache"
            heard = events(stream)
            kind, first = await anext(heard)
            assert (kind, first["id"]) == ("progress", video["id"])
            await detector.client.post("/v1/drain", json={"owner": "me", "reason": "a test"})
            detector.backend.gate.set()
            await until(lambda: not detector.parts.limiter.running)
            await detector.client.request(
                "DELETE", "/v1/drain", json={"owner": "me", "reason": "a test"}
            )
            rest = [(kind, data["state"]) async for kind, data in heard]
        assert rest[-1] == ("end", "done")
        assert {kind for kind, _ in rest[:-1]} <= {"progress"}
        assert detector.parts.listeners == 0


async def test_a_browser_that_comes_back_after_the_end_is_told_to_stop(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        video = await sent(detector, film)
        await ended(detector, video)
        again = await detector.client.get(
            video["links"]["events"], headers={"last-event-id": "end"}
        )
        assert (again.status_code, again.content) == (204, b"")


async def test_listeners_are_bounded_and_one_that_leaves_gives_its_seat_back(
    tmp_path: Path, film: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_service.routes.videos.MAX_LISTENERS", 1)
    async with listening(tmp_path) as detector:
        video = await hold(detector, film)
        link = video["links"]["events"]
        async with detector.client.stream("GET", link) as stream:
            await anext(events(stream))
            full = await detector.client.get(link)
            assert refused(full) == (429, "too_many_listeners")
            assert full.headers["retry-after"]
        await until(lambda: detector.parts.listeners == 0)
        detector.backend.gate.set()
        assert (await ended(detector, video))["state"] == "done"


async def test_listeners_do_not_hold_up_the_end_of_the_service(tmp_path: Path, film: bytes) -> None:
    async with listening(tmp_path) as detector:
        video = await hold(detector, film)
        async with detector.client.stream("GET", video["links"]["events"]) as stream:
            heard = events(stream)
            await anext(heard)
            detector.parts.desk.stop()
            states = [data["state"] async for _, data in heard]
        assert set(states) <= {"running", "parked"}
        detector.backend.gate.set()


async def test_a_film_by_url_is_fetched_and_worked_off(tmp_path: Path, film: bytes) -> None:
    async with site(film=says(film)) as films, running(tmp_path, video_urls=films.url) as detector:
        body = {"url": f"{films.url}{FILM_PATH}?sig=secret", "frame_stride": 4}
        answer = await detector.client.post("/v1/videos", json=body)
        assert answer.status_code == 202
        video = answer.json()
        assert video["state"] in {"fetching", "queued"}
        assert video["source"]["url"] == f"{films.url}{FILM_PATH}?..."
        done = await ended(detector, video)
        assert (done["state"], done["options"]["frame_stride"]) == ("done", 4)
        assert done["source"]["size"] == len(film)
        assert "secret" not in json.dumps(done)


async def test_a_film_that_cannot_be_fetched_fails_in_words_without_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = says(b"x", "404 Not Found")
    async with site(film=gone) as films, running(tmp_path, video_urls=films.url) as detector:
        body = {"url": f"{films.url}{FILM_PATH}?sig=secret"}
        video = (await detector.client.post("/v1/videos", json=body)).json()
        failed = await ended(detector, video)
        assert (failed["state"], failed["reason"]) == ("failed", "fetch_failed")
        assert "404" in failed["words"]
        answer = await detector.client.get(failed["links"]["result"])
        assert refused(answer) == (410, "failed")
    ours = [line for line in caplog.messages if "HTTP Request" not in line]  # the client's own
    assert "secret" not in json.dumps([failed, ours])


async def test_a_fetch_that_a_restart_cut_short_starts_over(tmp_path: Path, film: bytes) -> None:
    begun = asyncio.Event()
    async with site(film=stalls(begun)) as films:
        async with running(tmp_path, video_urls=films.url) as detector:
            body = {"url": f"{films.url}{FILM_PATH}"}
            video = (await detector.client.post("/v1/videos", json=body)).json()
            await begun.wait()
            assert (await looked(detector, video))["state"] == "fetching"
        films.answers[FILM_PATH] = says(film)
        async with running(tmp_path, video_urls=films.url) as detector:
            assert (await ended(detector, video))["state"] == "done"


WRONG_URLS: list[tuple[Any, dict[str, str], tuple[int, str]]] = [
    ({"url": "http://films.test/a"}, {}, (403, "url_not_allowed")),
    ({"url": "http://127.0.0.1:1/a/../b"}, {}, (422, "invalid")),
    ({"url": "http://127.0.0.1:1/a#b"}, {}, (422, "invalid")),
    ({"url": ""}, {}, (422, "invalid")),
    ({"url": 5}, {}, (422, "invalid")),
    ({}, {}, (422, "invalid")),
    ([], {}, (422, "invalid")),
    ({"url": "http://127.0.0.1:1/a", "conf": 7}, {}, (422, "invalid")),
    ({"url": "http://127.0.0.1:1/a", "colour": "red"}, {}, (422, "invalid")),
    ({"url": "http://127.0.0.1:1/a"}, {"conf": "0.5"}, (422, "invalid")),
]


async def test_a_url_that_is_not_allowed_or_not_plain_is_refused_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, video_urls="http://127.0.0.1:1/a") as detector:
        for body, query, refusal in WRONG_URLS:
            answer = await detector.client.post("/v1/videos", json=body, params=query)
            assert refused(answer) == refusal, body
        assert stored(tmp_path) == []


async def test_the_api_describes_itself_and_names_every_operation_once(tmp_path: Path) -> None:
    async with running(tmp_path) as detector:
        described = (await detector.client.get("/openapi.json")).json()
    assert {"get", "delete"} == set(described["paths"]["/v1/videos/{name}"])


async def test_images_and_videos_at_once_do_not_mix_their_answers(
    tmp_path: Path, film: bytes
) -> None:
    async with running(tmp_path) as detector:
        video = await sent(detector, film)
        for value in (1, 2, 3):
            found = (await detector.detect(value)).json()["detections"]
            assert {item["xyxy"][0] for item in found} == {float(value)}
        done = await ended(detector, video)
        result = (await detector.client.get(done["links"]["result"])).json()
    first = [one["detections"][0]["xyxy"][0] for one in result["frames"]]
    shown = [int(bars(number)[0, 0, 0]) for number in range(FRAMES)]
    assert all(abs(one - other) <= 8 for one, other in zip(first, shown, strict=True))
