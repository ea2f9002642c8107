"""What is on disk before what is said: syncs before rows, rows before answers; who goes first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detector_service.batcher import Priority, Work
from detector_service.errors import RefusedError, StateWriteError
from detector_service.jobs import Options, State
from detector_service.jobs import crew as crew_module
from detector_service.jobs.desk import REPEATS
from detector_service.jobs.journal import Journal
from detector_service.jobs.video import Chunk, Job
from tests.detector.jobs.cinema import cinema, done, make_film, submit, until


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("films") / "film.mp4", frames=20)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every sync by the path it is of, and every row by what it says, in order."""
    told = list[str]()
    sync, add, add_chunk = os.fsync, Journal.add, Journal.add_chunk

    def synced(descriptor: int) -> None:
        sync(descriptor)
        told.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def added(self: Journal, job: Job, **more: Any) -> tuple[Job, bool]:
        told.append("row of the job")
        return add(self, job, **more)

    def chunk_added(self: Journal, job: Job, chunk: Chunk, worked_s: float) -> bool:
        told.append(f"row of chunk {chunk.number}")
        return add_chunk(self, job, chunk, worked_s)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Journal, "add", added)
    monkeypatch.setattr(Journal, "add_chunk", chunk_added)
    return told


async def test_a_film_and_every_way_to_it_are_synced_before_it_is_accepted(
    tmp_path: Path, film: Path, log: list[str]
) -> None:
    async with cinema(tmp_path) as detector:
        shelf = detector.parts.desk._shelf.folder
        seen, _ = await submit(detector.parts.desk, film)
        before = log[: log.index("row of the job")]
        source = shelf / seen.job.id / "source"
        for path in (source, source.parent, shelf, shelf.parent):
            assert str(path) in before


async def test_a_segment_and_its_name_are_synced_before_the_row_of_its_chunk(
    tmp_path: Path, film: Path, log: list[str]
) -> None:
    async with cinema(tmp_path) as detector:
        folder = detector.parts.desk._shelf.folder
        seen, _ = await submit(detector.parts.desk, film)
        await done(detector.parts.desk, seen.job.id)
        for number in (1, 2, 3):
            row = log.index(f"row of chunk {number}")
            segment = log.index(str(folder / seen.job.id / f"{number:06}.mp4"))
            assert segment < row
            assert str(folder / seen.job.id) in log[segment:row]


def test_a_row_that_was_written_is_on_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "videos.db")
    journal.open()
    full = 2  # https://www.sqlite.org/pragma.html#pragma_synchronous
    assert journal._connection().execute("PRAGMA synchronous").fetchone()[0] == full
    journal.close()


async def test_frames_of_a_film_go_behind_images(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[Priority]()
    async with cinema(tmp_path) as detector:
        submit_all = detector.parts.batcher.submit_all

        def spied(works: Sequence[Work]) -> Any:
            sent.extend(work.priority for work in works)
            return submit_all(works)

        monkeypatch.setattr(detector.parts.batcher, "submit_all", spied)
        seen, _ = await submit(detector.parts.desk, film)
        await done(detector.parts.desk, seen.job.id)
    assert sent == [Priority.VIDEO] * 20


async def test_old_films_are_removed_without_being_asked(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "SWEEP_S", 0.01)
    async with cinema(tmp_path, video_keep_s=100) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film)
        await done(desk, seen.job.id)
        detector.clock.forward(101)
        await until(lambda: desk._journal.job(seen.job.id) is None)
        await until(lambda: not list(desk._shelf.folder.iterdir()))


async def test_deleting_makes_room_even_where_the_journal_cannot_be_written(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, job: Job) -> None:
        raise StateWriteError("the disk is full", disk_full=True)

    async with cinema(tmp_path) as detector:
        desk = detector.parts.desk
        seen, _ = await submit(desk, film)
        await done(desk, seen.job.id)
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "forget", full)
            with pytest.raises(StateWriteError):
                await desk.delete(seen.job.id)
        assert list(desk._shelf.folder.iterdir()) == []
        await desk.delete(seen.job.id)
        assert desk._journal.job(seen.job.id) is None


async def test_repeats_that_a_full_queue_lets_in_are_bounded(tmp_path: Path, film: Path) -> None:
    async with cinema(tmp_path, video_queue=1) as detector:
        desk = detector.parts.desk
        detector.backend.gate.clear()
        await submit(desk, film, key="k")
        drafts = [await desk.admit(10, "k") for _ in range(REPEATS)]
        with pytest.raises(RefusedError, match=r"1 videos wait .* 4 are on their way"):
            await desk.admit(10, "k")
        for draft in drafts:
            await desk.discard(draft)
        await desk.discard(await desk.admit(10, "k"))
        detector.backend.gate.set()


async def test_a_cancel_while_the_disk_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cinema(tmp_path, video_urls=("http://127.0.0.1:1/",)) as detector:
        desk = detector.parts.desk
        left = list[str]()

        async def cancelled_meanwhile() -> int:
            name = left[0]
            await desk.cancel(name)
            raise StateWriteError("the disk fails")

        monkeypatch.setattr(desk._crew, "_room", cancelled_meanwhile)
        seen, _ = await desk.accept_url("http://127.0.0.1:1/film.mp4", Options(), None)
        left.append(seen.job.id)
        await until(lambda: not len(desk._register) and not desk._register.hands)
        assert (await desk.look(seen.job.id)).job.state is State.CANCELLED
        assert list(desk._shelf.folder.iterdir()) == []
