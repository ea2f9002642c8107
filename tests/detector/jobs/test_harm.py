"""Films and stops that do harm: one film fails, nothing else; what was accepted is never lost."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from detector_service.errors import MediaError, RefusedError
from detector_service.jobs import Options, State
from detector_service.jobs import attempt as attempt_module
from detector_service.jobs import crew as crew_module
from detector_service.jobs import pipeline as pipeline_module
from detector_service.jobs import probing as probing_module
from detector_service.jobs.journal import Journal
from detector_service.jobs.probing import Prober
from detector_service.jobs.video import MAX_TRIES, Job, new_id
from detector_service.media import Reader, join
from detector_service.screenfilter import Rules
from tests.detector.films import LIMITS
from tests.detector.jobs.cinema import cinema, done, ended, make_film, result_of, submit, until
from tests.detector.jobs.test_desk import site


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mp4", frames=50)


async def test_what_nobody_foresaw_in_a_film_fails_that_film_and_the_next_is_worked_off(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object, **__: object) -> Reader:
        raise IndexError("nobody thought of this")

    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        with monkeypatch.context() as patched:
            patched.setattr(pipeline_module, "Reader", faulty)
            bad = await ended(desk, (await submit(desk, film))[0].job.id)
        assert (bad.job.state, bad.job.reason) == (State.FAILED, "internal")
        assert "IndexError" in (bad.job.words or "")
        await done(desk, (await submit(desk, film))[0].job.id)


async def test_what_nobody_foresaw_in_a_fetch_fails_that_film_and_the_next_is_fetched(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise IndexError("nobody thought of this")

    async with site(film) as url, cinema(tmp_path, video_urls=(url,)) as detector:
        desk = detector.parts.desk
        with monkeypatch.context() as patched:
            patched.setattr(probing_module, "probe", faulty)
            sent, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
            bad = await ended(desk, sent.job.id)
        assert (bad.job.state, bad.job.reason) == (State.FAILED, "internal")
        sent, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
        await done(desk, sent.job.id)


async def test_a_fetch_that_the_disk_fails_rests_and_says_why(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    async with site(film) as url, cinema(tmp_path, video_urls=(url,)) as detector:
        desk = detector.parts.desk
        with monkeypatch.context() as patched:
            patched.setattr(probing_module, "probe", unreadable)
            sent, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
            await until(lambda: desk._register._rest_until)
        resting = (await desk.look(sent.job.id)).job
        assert (resting.state, resting.reason, resting.tries) == (State.FETCHING, "storage", 0)
        desk._register._rest_until.clear()
        await done(desk, sent.job.id)


async def test_a_film_by_url_that_ends_the_process_three_times_is_given_up(tmp_path: Path) -> None:
    async with cinema(tmp_path):
        pass
    journal = Journal(tmp_path / "state" / "videos.db")
    journal.open()
    told: dict[str, Any] = {"url": "http://127.0.0.1:1/film.mp4", "origin": "there"}
    job = Job(0, new_id("d"), State.FETCHING, Options(), 1.0, **told)
    job, _ = journal.add(job, key=None, fingerprint="f")
    for tries in range(1, MAX_TRIES + 1):  # what processes wrote that were killed in the fetch
        assert journal.fetch(job, tries=tries) is not None
    journal.close()
    async with cinema(tmp_path) as detector:
        failed = (await detector.parts.desk.look(job.id)).job
        assert (failed.state, failed.reason) == (State.FAILED, "crashes")
        assert "fetch" in (failed.words or "")


async def test_orderly_stops_during_a_fetch_never_give_a_film_up(
    tmp_path: Path, film: Path
) -> None:
    stuck, name = asyncio.Event(), ""
    async with site(film, stuck) as url:
        for _ in range(MAX_TRIES + 1):
            async with cinema(tmp_path, video_urls=(url,)) as detector:
                desk = detector.parts.desk
                if not name:
                    sent, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
                    name = sent.job.id
                await until(lambda desk=desk: any(h.waiting for h in desk._register.hands.values()))
        stuck.set()
        async with cinema(tmp_path, video_urls=(url,)) as detector:
            await done(detector.parts.desk, name)


async def test_orderly_stops_while_a_film_is_joined_never_give_it_up(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slow(segments: Sequence[Path], source: Path, out: Path, wanted: Callable[[], bool]) -> bool:
        begun.set()
        while wanted():
            threading.Event().wait(0.001)
        return join(segments, source, out, wanted)

    name = ""
    with monkeypatch.context() as patched:
        patched.setattr(attempt_module, "join", slow)
        for _ in range(MAX_TRIES + 1):
            begun.clear()
            async with cinema(tmp_path) as detector:
                desk = detector.parts.desk
                name = name or (await submit(desk, film))[0].job.id
                await until(begun.is_set)
    async with cinema(tmp_path) as detector:
        await done(detector.parts.desk, name)


async def test_one_that_does_not_let_go_in_time_is_put_aside_without_blame(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def deaf(*_: object) -> bool:
        begun.set()
        return go.wait(10) and False

    monkeypatch.setattr(attempt_module, "join", deaf)
    monkeypatch.setattr(crew_module, "CLOSE_S", 0.05)
    async with cinema(tmp_path) as detector:
        seen, _ = await submit(detector.parts.desk, film)
        await until(begun.is_set)
    go.set()
    journal = Journal(tmp_path / "state" / "videos.db")
    journal.open()
    job = journal.job(seen.job.id)
    journal.close()
    assert job is not None
    assert (job.state, job.reason, job.tries) == (State.PARKED, "stopping", 0)


async def test_a_stop_while_a_start_is_written_waits_for_it_and_parks(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go = threading.Event(), threading.Event()
    start = Journal.start

    def slow(self: Journal, *told: Any) -> Job | None:
        inside.set()
        assert go.wait(10)
        return start(self, *told)

    monkeypatch.setattr(Journal, "start", slow)
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film)
        await until(inside.is_set)
        closing = asyncio.create_task(desk.close())
        await until(lambda: desk._register.closing)
        go.set()
        await closing
        job = desk._journal.job(seen.job.id)
        assert job is not None
        assert (job.state, job.tries) == (State.PARKED, 0)


async def test_a_result_that_is_deleted_while_it_is_sent_breaks_off(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen = await done(desk, (await submit(desk, film))[0].job.id)
        pieces = await desk.result(seen.job.id)
        got = [next(pieces), next(pieces)]
        await desk.delete(seen.job.id)
        with pytest.raises(RefusedError, match="deleted while"):
            got.extend(pieces)
        with pytest.raises(json.JSONDecodeError):
            json.loads(b"".join(got))


async def test_a_class_that_the_model_does_not_have_fails_the_film_and_names_those_it_has(
    tmp_path: Path, film: Path
) -> None:
    rules = Rules(cursor_class="pointer")
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        sent, _ = await submit(desk, film, Options(mode="filter", rules=rules))
        failed = (await ended(desk, sent.job.id)).job
        assert (failed.state, failed.reason) == (State.FAILED, "no_such_class")
        assert failed.words is not None
        assert "pointer, but: cursor" in failed.words


async def test_a_full_store_lets_a_fetch_wait_and_one_that_does_not_fit_fails(
    tmp_path: Path, film: Path
) -> None:
    async with site(film) as url, cinema(tmp_path, video_urls=(url,)) as detector:
        desk = detector.parts.desk
        room = 0

        async def left() -> int:
            return room

        desk._crew._room = left
        sent, _ = await desk.accept_url(f"{url}/film.mp4", Options(), None)
        await until(lambda: desk._register._rest_until)
        assert (await desk.look(sent.job.id)).job.reason == "disk_full"
        room = 100
        desk._register._rest_until.clear()
        failed = (await ended(desk, sent.job.id)).job
        assert (failed.state, failed.reason) == (State.FAILED, "storage_full")


async def test_a_slow_site_does_not_hold_up_another(tmp_path: Path, film: Path) -> None:
    stuck = asyncio.Event()
    async with (
        site(film, stuck) as slow,
        site(film) as quick,
        cinema(tmp_path, video_urls=(slow, quick)) as detector,
    ):
        desk = detector.parts.desk
        held, _ = await desk.accept_url(f"{slow}/film.mp4", Options(), None)
        sent, _ = await desk.accept_url(f"{quick}/film.mp4", Options(), None)
        await done(desk, sent.job.id)
        assert (await desk.look(held.job.id)).job.state is State.FETCHING
        stuck.set()
        await done(desk, held.job.id)


async def test_a_film_that_takes_too_long_to_look_at_is_refused_in_words(film: Path) -> None:
    prober = Prober(LIMITS, deadline_s=-1)
    with pytest.raises(MediaError, match="encode it anew") as refused:
        await prober.look(film)
    assert refused.value.reason == "slow_to_read"
    assert (await Prober(LIMITS).look(film)).width
    prober.shut()


async def test_films_that_take_long_to_look_at_stop_neither_the_clock_nor_the_end(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go = threading.Event(), threading.Event()

    def endless(*_: object, **__: object) -> None:
        inside.set()
        assert go.wait(10)

    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        monkeypatch.setattr(probing_module, "probe", endless)
        data = await asyncio.to_thread(film.read_bytes)
        post = detector.client.post
        sending = [asyncio.create_task(post("/v1/videos", content=data)) for _ in range(12)]
        await until(inside.is_set)
        await detector.patch({"max_concurrency": 3}, lease_s=5)
        detector.clock.forward(6)
        await until(lambda: detector.parts.store.current.values["max_concurrency"] != 3)
        detector.parts.stop()
        answers = await asyncio.gather(*sending)
        assert {answer.status_code for answer in answers} == {503}
        assert not desk._drafts
    go.set()


async def test_worked_seconds_are_told_while_a_film_runs(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        assert (await desk.look(seen.job.id)).job.worked_s > 0
        detector.backend.gate.set()
        assert (await done(desk, seen.job.id)).job.worked_s > 0


async def test_a_film_stays_open_while_images_go_first(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Path]()

    class Counting(Reader):
        def __init__(self, path: Path, *told: Any, **more: Any) -> None:
            opened.append(path)
            super().__init__(path, *told, **more)

    monkeypatch.setattr(pipeline_module, "Reader", Counting)
    async with cinema(tmp_path, max_concurrency=1) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        seen, _ = await submit(desk, film)
        await until(lambda: detector.backend.calls)
        images = await detector.held_up(1)
        detector.backend.gate.set()
        assert (await images[0]).status_code == 200
        await done(desk, seen.job.id)
        assert await detector.metric('detector_video_parked_total{reason="images"}') == 1
        assert len(opened) == 1
        assert len((await result_of(desk, seen.job.id))["frames"]) == 50


async def test_a_film_that_gives_way_is_listed_as_parked_and_a_drain_parks_it_for_good(
    tmp_path: Path, film: Path
) -> None:
    async with cinema(tmp_path, max_concurrency=2, video_workers=2) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        await submit(desk, film)
        young, _ = await submit(desk, film)
        await until(lambda: detector.parts.limiter.running == 2)
        await until(lambda: len(detector.backend.calls) > 0)
        await detector.patch({"max_concurrency": 1})
        detector.backend.passes = len(detector.backend.calls) + 6
        detector.backend.gate.set()
        await until(lambda: desk.count(State.PARKED))
        (listed,) = await desk.listing(state=State.PARKED)
        assert (listed.job.id, listed.job.reason) == (young.job.id, "limit")
        drain = {"owner": "me", "reason": "a test"}
        await detector.client.post("/v1/drain", json=drain)
        detector.backend.passes = None
        detector.backend.gate.set()
        await until(lambda: not detector.parts.limiter.running)
        await until(lambda: not desk._register.hands)
        job = desk._journal.job(young.job.id)
        assert job is not None
        assert (job.state, job.reason) == (State.PARKED, "draining")
