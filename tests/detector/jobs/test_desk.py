"""Videos from acceptance to result: whole, in order, resumed, parked, cancelled, failed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from detector_service.backends import Image, ModelInfo, Pass
from detector_service.errors import RefusedError, StartError
from detector_service.jobs import Desk, Options, State
from detector_service.jobs import pipeline as pipeline_module
from detector_service.jobs.journal import Journal
from detector_service.media import SegmentWriter
from detector_service.screenfilter import Rules
from tests.detector.films import bars, number
from tests.detector.jobs.cinema import (
    QUICK,
    BarReader,
    box_of,
    cinema,
    done,
    ended,
    harvest,
    make_film,
    result_of,
    shown_in,
    submit,
    until,
    worked_off,
)
from tests.detector.toys import is_canary, toy_app


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mp4", frames=50, sound="aac")


async def test_every_frame_is_looked_at_once_in_order_and_drawn_once_in_order(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen, new = await submit(desk, film, Options(checksums=True))
        assert new
        assert seen.job.state is State.QUEUED
        after = await done(desk, seen.job.id)
        assert (after.frames_done, after.frames_total) == (50, 50)
        result = await result_of(desk, seen.job.id)
        assert [frame["index"] for frame in result["frames"]] == list(range(50))
        for index, frame in enumerate(result["frames"]):
            (found,) = frame["detections"]
            assert found["xyxy"] == [round(edge, 2) for edge in box_of(index)]
            assert found["confidence"] == round(0.5 + index / 8192, 4)
            assert frame["time_s"] == pytest.approx(index / 25)
        assert len({frame["crc32"] for frame in result["frames"]}) == 50
        assert await shown_in(desk, seen.job.id) == list(range(50))
        assert detector.backend.seen == list(range(50))


async def test_totals_add_up(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path) as detector:
        seen, _ = await submit(detector.parts.desk, film)
        await done(detector.parts.desk, seen.job.id)
        totals = (await result_of(detector.parts.desk, seen.job.id))["totals"]
        assert totals == {
            "frames": 50,
            "looked": 50,
            "skipped": 0,
            "failed_frames": 0,
            "decode_errors": 0,
            "detections": 50,
            "objects": {"cursor": 50},
            "confidence": {"cursor": [0, 0, 0, 0, 0, 50, 0, 0, 0, 0]},
        }
        assert await detector.metric('detector_videos_ended_total{outcome="done"}') == 1
        assert await detector.metric("detector_video_frames_total") == 50
        assert await detector.metric('detector_video_jobs{state="running"}') == 0
        assert await detector.metric("detector_video_backlog_seconds") == 0


@pytest.mark.parametrize(
    ("options", "chunk_frames", "passes"),
    [
        pytest.param(Options(), 16, 4, marks=pytest.mark.slow),
        (Options(frame_stride=3, checksums=True), 16, 6),
        (Options(mode="filter"), 2, 1),
    ],
    ids=["detect", "stride", "filter"],
)
async def test_a_film_interrupted_after_every_chunk_has_the_result_of_one_that_was_not(
    tmp_path: Path, film: Path, options: Options, chunk_frames: int, passes: int
) -> None:
    whole = await worked_off(tmp_path / "whole", film, options, chunk_frames=chunk_frames)
    name, starts = None, 0
    while True:
        starts += 1
        backend = BarReader(passes=passes)  # as many as a chunk has
        told: dict[str, Any] = {"backend": backend, "chunk_frames": chunk_frames}
        async with cinema(tmp_path / "torn", **told) as detector:
            desk = detector.parts.desk
            if name is None:
                name = (await submit(desk, film, options))[0].job.id
            before = (await desk.look(name)).job.frames_done
            await until(partial(moved, desk, name, before))
            if (await desk.look(name)).job.state is State.DONE:
                assert await harvest(desk, name) == whole
                break
    assert starts >= 2


def moved(desk: Desk, name: str, before: int) -> bool:
    """Say whether one more chunk was finished, or the whole film."""
    job = desk._journal.job(name)
    return job is not None and (job.frames_done > before or job.state.final)


async def test_it_parks_on_a_drain_behind_a_whole_chunk_and_goes_on_after_it(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        drain = {"owner": "me", "reason": "a test"}
        assert (await detector.client.post("/v1/drain", json=drain)).status_code == 200
        detector.backend.gate.set()
        await until(lambda: desk.count(State.PARKED))
        parked = await desk.look(seen.job.id)
        assert parked.job.reason == "draining"
        assert parked.job.frames_done % 8 == 0
        assert 0 < parked.job.frames_done < 50
        await until(lambda: detector.parts.limiter.running == 0)
        assert (await detector.client.delete("/v1/drain", params=drain)).status_code == 200
        await done(desk, seen.job.id)
        assert await shown_in(desk, seen.job.id) == list(range(50))
        assert await detector.metric('detector_video_parked_total{reason="draining"}') == 1


async def test_it_gives_its_slot_to_an_image_behind_a_chunk_and_comes_back(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, max_concurrency=1, adaptive=False) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        (image,) = await detector.held_up(1)
        detector.backend.gate.set()
        assert (await image).status_code == 200
        await done(desk, seen.job.id)
        assert await detector.metric('detector_video_parked_total{reason="images"}') == 1
        assert await shown_in(desk, seen.job.id) == list(range(50))


async def test_a_lowered_ceiling_parks_the_younger_of_two_videos(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, video_workers=2, adaptive=False) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        old, _ = await submit(desk, film)
        young, _ = await submit(desk, film)
        await until(lambda: detector.parts.limiter.running == 2)
        await until(lambda: detector.backend.calls)
        await detector.patch({"max_concurrency": 1})
        detector.backend.gate.set()
        await done(desk, old.job.id)
        await done(desk, young.job.id)
        assert await detector.metric('detector_video_parked_total{reason="limit"}') == 1
        assert await shown_in(desk, young.job.id) == list(range(50))


async def test_a_retune_in_the_middle_changes_the_next_video_and_not_this_one(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        first, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        await detector.patch({"imgsz": 320, "conf_threshold": 0.25, "frame_stride": 5})
        second, _ = await submit(desk, film, Options(conf=0.4))
        detector.backend.gate.set()
        await done(desk, first.job.id)
        await done(desk, second.job.id)
        one, two = [(await result_of(desk, it.job.id))["settings"] for it in (first, second)]
        assert (one["imgsz"], one["conf"], one["frame_stride"]) == (640, 0.3, 1)
        assert (two["imgsz"], two["conf"], two["frame_stride"]) == (320, 0.4, 5)
        assert two["generation"] == one["generation"] + 1
        assert {(call.imgsz, call.conf) for call in detector.backend.calls} == {
            (640, 0.3),
            (320, 0.4),
        }


async def test_cancelling_a_running_video_is_prompt_final_and_leaves_no_file(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        assert (await desk.cancel(seen.job.id)).job.state is State.CANCELLED
        detector.backend.gate.set()
        await until(lambda: detector.parts.limiter.running == 0)
        folder = desk._shelf.folder / seen.job.id
        await until(lambda: not folder.exists())
        assert len(detector.backend.calls) <= 2
        assert (await desk.cancel(seen.job.id)).job.state is State.CANCELLED
        with pytest.raises(RefusedError) as refused:
            await desk.result(seen.job.id)
        assert (refused.value.status, refused.value.reason) == (410, "cancelled")
        assert await detector.metric('detector_videos_ended_total{outcome="cancelled"}') == 1


async def test_a_waiting_video_is_cancelled_without_a_slot_ever(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path, max_concurrency=1, adaptive=False) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        (image,) = await detector.held_up(1)
        seen, _ = await submit(desk, film)
        await until(lambda: desk._register.hands)
        await desk.cancel(seen.job.id)
        await until(lambda: not desk._register.hands)
        assert list(desk._shelf.folder.iterdir()) == []
        detector.backend.gate.set()
        await image
        assert detector.parts.limiter.running == 0
        assert len(detector.backend.seen) == 1, "the image alone"


async def test_a_frame_on_which_the_model_fails_is_told_and_the_film_goes_on(
    tmp_path: Path,
) -> None:
    film = make_film(tmp_path / "film.mp4", frames=20)
    async with cinema(tmp_path, backend=BarReader(poison=frozenset({7}))) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film)
        await done(desk, seen.job.id)
        result = await result_of(desk, seen.job.id)
        failed = [frame["index"] for frame in result["frames"] if frame.get("failed")]
        assert failed == [7]
        assert result["totals"]["failed_frames"] == 1
        assert result["totals"]["detections"] == 19


async def test_a_film_that_turns_out_bad_fails_alone(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        first, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        bad, _ = await submit(desk, film)
        good, _ = await submit(desk, film)
        desk._shelf.source(bad.job.id).write_bytes(b"not what it was")
        detector.backend.gate.set()
        failed = await ended(desk, bad.job.id)
        assert (failed.job.state, failed.job.reason) == (State.FAILED, "not_a_video")
        await done(desk, first.job.id)
        await done(desk, good.job.id)


async def test_a_full_disk_puts_the_video_aside_with_the_reason(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(SegmentWriter):
        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        with monkeypatch.context() as patched:
            patched.setattr(pipeline_module, "SegmentWriter", Full)
            seen, _ = await submit(desk, film)
            await until(lambda: desk.count(State.PARKED))
        parked = await desk.look(seen.job.id)
        assert (parked.job.reason, parked.job.tries) == ("disk_full", 0)
        desk._register._rest_until.clear()
        await done(desk, seen.job.id)


async def test_a_video_that_ended_the_process_three_times_is_given_up(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        detector.backend.gate.clear()
        seen, _ = await submit(detector.parts.desk, film)
        await until(lambda: detector.parts.desk.count(State.RUNNING))
        job = detector.parts.desk._journal.job(seen.job.id)
        assert job is not None
        assert job.tries == 1
        detector.backend.gate.set()
    journal = Journal(tmp_path / "state" / "videos.db")
    journal.open()
    for _ in range(3):  # what three processes wrote that were killed before their first chunk
        job = journal.job(seen.job.id)
        assert job is not None
        assert job.recipe is not None
        assert journal.start(job, job.recipe, 0.0) is not None
    journal.close()
    async with cinema(tmp_path) as detector:
        failed = await detector.parts.desk.look(seen.job.id)
        assert (failed.job.state, failed.job.reason) == (State.FAILED, "crashes")
        assert await detector.metric('detector_videos_ended_total{outcome="failed"}') == 1
        assert list(detector.parts.desk._shelf.folder.iterdir()) == []


async def test_one_key_makes_one_job_and_other_content_is_refused(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        one, new = await submit(desk, film, key="k")
        two, again = await submit(desk, film, key="k")
        assert (new, again) == (True, False)
        assert one.job.id == two.job.id
        with pytest.raises(RefusedError) as refused:
            await submit(desk, film, Options(conf=0.9), key="k")
        assert (refused.value.status, refused.value.reason) == (409, "idempotency_key_reused")
        await done(desk, one.job.id)
        assert (await submit(desk, film, key="k"))[0].job.state is State.DONE
        assert [path.name for path in desk._shelf.folder.iterdir()] == [one.job.id]


async def test_the_queue_and_the_store_are_bounded(tmp_path: Path, film: Path) -> None:
    room = 2**20
    async with cinema(tmp_path, video_queue=2, video_store_bytes=room) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        await submit(desk, film)
        await desk.discard(await desk.admit(1000))
        mine, _ = await submit(desk, film, key="k")
        assert (await submit(desk, film, key="k"))[0].job.id == mine.job.id, "a retry is let in"
        with pytest.raises(RefusedError) as refused:
            await desk.admit(1000)
        assert (refused.value.status, refused.value.reason) == (429, "queue_full")
        assert refused.value.retry_after_s
        await desk.cancel(mine.job.id)
        with pytest.raises(RefusedError) as refused:
            await desk.admit(room)
        assert (refused.value.status, refused.value.reason) == (507, "storage_full")
        detector.backend.gate.set()


async def test_an_ended_job_is_removed_when_asked_or_when_old_and_a_live_one_is_not(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, video_keep_s=100) as detector:
        desk = detector.parts.desk
        one, _ = await submit(desk, film)
        await done(desk, one.job.id)
        two, _ = await submit(desk, film)
        await done(desk, two.job.id)
        await desk.delete(one.job.id)
        detector.clock.forward(101)
        detector.backend.gate.clear()
        three, _ = await submit(desk, film)
        with pytest.raises(RefusedError) as refused:
            await desk.delete(three.job.id)
        assert refused.value.reason == "not_ended"
        desk._crew.sweep()
        assert [seen.job.id for seen in await desk.listing()] == [three.job.id]
        assert [path.name for path in desk._shelf.folder.iterdir()] == [three.job.id]
        detector.backend.gate.set()


async def test_a_slow_listener_misses_what_is_old_and_sees_the_end(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        watching = desk.watch(seen.job.id)
        first = await anext(watching)
        assert not first.job.state.final
        detector.backend.gate.set()
        await done(desk, seen.job.id)
        rest = [view.job.state async for view in watching]
        assert rest == [State.DONE]


async def test_listeners_are_let_go_when_the_service_ends(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)

        async def listen() -> list[Any]:
            return [view async for view in desk.watch(seen.job.id)]

        listening = asyncio.create_task(listen())
        await until(lambda: desk._register._news)
        detector.parts.stop()
        await asyncio.wait_for(listening, 10)
        detector.backend.gate.set()


@pytest.mark.parametrize("name", ["", "..", "x", "a.b/../c", "d.\0" + "a" * 25, "d." + "a" * 27])
async def test_what_is_no_job_id_is_unknown(tmp_path: Path, name: str) -> None:
    async with cinema(tmp_path) as detector:
        for ask in (detector.parts.desk.look, detector.parts.desk.cancel):
            with pytest.raises(RefusedError) as refused:
                await ask(name)
            assert refused.value.status == 404


async def test_filter_mode_finds_the_stretch_with_the_pointer(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=100, fps=5)
    backend = BarReader(hides=frozenset(range(60, 100)))
    rules = Rules(sample_fps=1, min_segment_s=6)
    async with cinema(tmp_path, backend=backend) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film, Options(mode="filter", rules=rules))
        await done(desk, seen.job.id)
        result = await result_of(desk, seen.job.id)
        judged = result["filter"]
        assert judged["keep"] is True
        assert judged["sampled"] == 20
        assert judged["cursor_share"] == 0.6
        assert [(part["start_s"], part["end_s"]) for part in judged["segments"]] == [(0, 12)]
        assert [frame["time_s"] for frame in result["frames"]] == list(range(20))
        with pytest.raises(RefusedError) as refused:
            await desk.annotated(seen.job.id)
        assert refused.value.reason == "not_annotated"


async def test_nothing_is_claimed_of_what_a_broken_off_download_does_not_show(
    tmp_path: Path,
) -> None:
    film = make_film(tmp_path / "film.mkv", frames=100, fps=5, options={"g": "5", "bf": "0"})
    data = await asyncio.to_thread(film.read_bytes)
    await asyncio.to_thread(film.write_bytes, data[: len(data) * 6 // 10])
    rules = Rules(sample_fps=1, min_segment_s=1)
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film, Options(mode="filter", rules=rules))
        assert seen.job.film is not None
        assert seen.job.film.duration_s == 20
        await done(desk, seen.job.id)
        result = await result_of(desk, seen.job.id)
        (kept,) = result["filter"]["segments"]
        assert kept["end_s"] <= result["totals"]["frames"] / 5 + 1
        assert kept["end_s"] < 19


async def test_a_still_picture_is_looked_at_once_a_chunk(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", fps=5, pictures=[bars(3)] * 100, frames=100)
    rules = Rules(sample_fps=1)
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film, Options(mode="filter", rules=rules))
        await done(desk, seen.job.id)
        totals = (await result_of(desk, seen.job.id))["totals"]
        assert (totals["looked"], totals["skipped"]) == (2, 18)
        assert detector.backend.seen == [3, 3]


async def test_a_model_of_another_kind_starts_the_film_over_with_the_same_settings(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, backend=BarReader(passes=2)) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film)
        await until(lambda: moved(desk, seen.job.id, 0))
        await detector.patch({"imgsz": 320})

    class Other(BarReader):
        @property
        def info(self) -> ModelInfo:
            return replace(super().info, version="another")

    async with cinema(tmp_path, backend=Other()) as detector:
        desk = detector.parts.desk
        await done(desk, seen.job.id)
        result = await result_of(desk, seen.job.id)
        assert (result["model"]["version"], result["settings"]["imgsz"]) == ("another", 640)
        assert detector.backend.seen == list(range(50))
        assert await shown_in(desk, seen.job.id) == list(range(50))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_lost_device_leaves_the_job_for_the_next_start(tmp_path: Path, film: Path) -> None:
    class Dying(BarReader):
        def infer(self, images: Sequence[Image], **asked: Any) -> Pass:
            if any(not is_canary(image) and number(image) == 20 for image in images):
                raise ZeroDivisionError
            return super().infer(images, **asked)

    async with cinema(tmp_path, backend=Dying()) as detector:
        desk = detector.parts.desk
        ends = asyncio.Event()
        detector.parts.end = ends.set
        seen, _ = await submit(desk, film)
        await asyncio.wait_for(ends.wait(), 10)
        await until(lambda: desk.count(State.PARKED))
        parked = (await desk.look(seen.job.id)).job
        assert (parked.reason, parked.frames_done) == ("sick", 16)
    async with cinema(tmp_path) as detector:
        await done(detector.parts.desk, seen.job.id)
        assert await shown_in(detector.parts.desk, seen.job.id) == list(range(50))


async def test_what_was_never_accepted_is_swept_and_what_is_not_ours_stays(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        draft = await detector.parts.desk.admit(1000)
        draft.path.write_bytes(b"half a fi")
        seen, _ = await submit(detector.parts.desk, film)
        await done(detector.parts.desk, seen.job.id)
        shelf = detector.parts.desk._shelf
        (shelf.folder / seen.job.id / "000001.mp4").write_bytes(b"a leftover")
        (shelf.folder / "lost+found").mkdir()
    async with cinema(tmp_path):
        assert {path.name for path in shelf.folder.iterdir()} == {seen.job.id, "lost+found"}
        assert [path.name for path in (shelf.folder / seen.job.id).iterdir()] == ["annotated.mp4"]


@pytest.mark.slow
async def test_two_workers_work_on_two_videos_and_their_frames_never_mix(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, video_workers=2) as detector:
        desk = detector.parts.desk
        names = [(await submit(desk, film))[0].job.id for _ in range(3)]
        for name in names:
            await done(desk, name)
            assert await shown_in(desk, name) == list(range(50))
        documents = [await result_of(desk, name) for name in names]
        for document in documents:
            del document["job"]
        assert documents[0] == documents[1] == documents[2]
        assert await detector.metric("detector_stream_last_frame_timestamp_seconds") is None


async def test_a_device_that_does_not_come_round_holds_up_the_reading(
    tmp_path: Path,
) -> None:
    film = make_film(tmp_path / "film.mp4", frames=80)
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        decoded = await detector.metric('detector_stage_duration_seconds_count{stage="decode"}')
        groups = 5  # forming, on the belt, two in flight, and one more that waits for the belt
        assert decoded is not None
        assert decoded <= groups * QUICK["batch_size"] + 1
        detector.backend.gate.set()
        await done(desk, seen.job.id)


async def test_progress_tells_how_far_and_how_long_still(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        waiting, _ = await submit(desk, film)
        await until(lambda: desk.count(State.RUNNING))
        assert desk.backlog_s() == pytest.approx(2)
        seen = await desk.look(waiting.job.id)
        assert (seen.frames_done, seen.frames_total, seen.eta_s) == (0, 50, None)
        detector.backend.gate.set()
        await done(desk, waiting.job.id)


async def test_a_film_is_fetched_and_worked_off(tmp_path: Path, film: Path) -> None:
    async with site(film) as url, cinema(tmp_path, video_urls=(url,)) as detector:
        desk = detector.parts.desk
        seen, new = await desk.accept_url(f"{url}/film.mp4?token=secret", Options(), "k")
        assert (new, seen.job.state) == (True, State.FETCHING)
        assert seen.job.origin == f"{url}/film.mp4?..."
        after = await done(desk, seen.job.id)
        assert after.job.size
        assert after.job.url is None, "the secret goes with the need for it"
        assert await shown_in(desk, seen.job.id) == list(range(50))
        missing, _ = await desk.accept_url(f"{url}/missing", Options(), None)
        failed = await ended(desk, missing.job.id)
        assert (failed.job.state, failed.job.reason) == (State.FAILED, "fetch_failed")
        assert {path.name for path in desk._shelf.folder.iterdir()} == {seen.job.id}


async def test_a_fetch_is_cancelled_at_once_and_taken_up_again_after_a_restart(
    tmp_path: Path, film: Path
) -> None:
    stuck = asyncio.Event()
    async with site(film, stuck) as url:
        async with cinema(tmp_path, video_urls=(url,)) as detector:
            desk = detector.parts.desk
            one, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
            two, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
            await until(lambda: desk._register.hands)
            await desk.cancel(one.job.id)
            await until(lambda: one.job.id not in desk._register.hands)
            assert not (desk._shelf.folder / one.job.id).exists()
            await until(lambda: two.job.id in desk._register.hands)
        stuck.set()
        async with cinema(tmp_path, video_urls=(url,)) as detector:
            await done(detector.parts.desk, two.job.id)


@asynccontextmanager
async def site(film: Path, go: asyncio.Event | None = None) -> AsyncIterator[str]:
    """A web server with one film, which it sends once ``go`` is set."""
    body = await asyncio.to_thread(film.read_bytes)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if go is not None:
            await go.wait()
        found = b"/film.mp4" in asked
        head = "200 OK" if found else "404 Not Found"
        size = len(body) if found else 0
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {size}\r\n\r\n".encode())
        writer.write(body if found else b"")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_state_folder_that_cannot_hold_videos_is_refused_at_the_start(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "videos").write_text("in the way")
    with pytest.raises(StartError, match="videos"):
        toy_app(tmp_path)
