"""The journal: what it promises about states, tries and chunks, and what it refuses to open."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from detector_service.errors import RefusedError, StartError
from detector_service.jobs.journal import Journal
from detector_service.jobs.video import (
    MOVES,
    Chunk,
    Job,
    Options,
    Recipe,
    Seen,
    State,
    is_id,
    new_id,
    slug_of,
)
from detector_service.media import Bookmark, FilmInfo
from detector_service.screenfilter import Rules

RECIPE = Recipe(
    *(0.3, 0.7, 640, 1, 1, 4, 8, "ultrafast", 23),
    *("toy.pt", "0123456789ab", "torch", "fp32", "none"),
)
FILM = FilmInfo(
    *("mov", "h264", 96, 64, 90, 25.0, None, None),
    has_audio=True,
    sample_aspect_ratio=Fraction(4, 3),
)


def fresh(**changes: object) -> Job:
    job = Job(0, new_id("d"), State.QUEUED, Options(), 1.0, size=5, digest="d", film=FILM)
    return replace(job, **changes)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "videos.db")
    made.open()
    return made


def chunk(number: int, **changes: object) -> Chunk:
    seen: tuple[Seen, ...]
    seen = (Seen(number, 3, ((0, "cursor", 0.5, (1.25, 2.0, 3.0, 4.0)),), crc32=2**32 - 1),)
    mark = Bookmark(number * 8, number * 100, None, "digest")
    seen = (*seen, Seen(number + 1, 4, None))
    made = Chunk(number, (number - 1) * 8, 8, mark, last=False, decode_errors=1, seen=seen)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_job_comes_back_as_it_was_kept(journal: Journal) -> None:
    options = Options(
        *("filter", 0.1, 0.2, 320, 7), annotate=True, checksums=True, rules=Rules(sample_fps=1)
    )
    kept, new = journal.add(fresh(options=options), key=None, fingerprint="f")
    assert new
    assert journal.job(kept.id) == kept
    started = journal.start(kept, RECIPE, 2.0)
    assert started == replace(kept, state=State.RUNNING, recipe=RECIPE, started_at=2.0, tries=1)
    assert journal.live() == [started]


def test_chunks_come_back_in_order_as_they_were_kept(journal: Journal) -> None:
    job, _ = journal.add(fresh(), key=None, fingerprint="f")
    journal.start(job, RECIPE, 2.0)
    kept = [chunk(1), chunk(2, bookmark=None, last=True, frames=0)]
    assert all(journal.add_chunk(job, each, 1.5) for each in kept)
    assert list(journal.chunks(job)) == kept
    assert journal.pieces(job) == [1]
    tail = journal.tail(job)
    assert (tail.number, tail.frames, tail.last, tail.bookmark) == (2, 8, True, None)
    after = journal.job(job.id)
    assert after is not None
    assert (after.frames_done, after.worked_s, after.tries) == (8, 3.0, 0)


def test_a_chunk_of_a_job_that_was_cancelled_is_not_kept(journal: Journal) -> None:
    job, _ = journal.add(fresh(), key=None, fingerprint="f")
    journal.start(job, RECIPE, 2.0)
    assert journal.end(job, State.CANCELLED, 3.0) is not None
    assert journal.add_chunk(job, chunk(1), 1.0) is False
    assert list(journal.chunks(job)) == []
    assert journal.end(job, State.DONE, 4.0) is None


def test_another_engine_drops_the_chunks_and_keeps_the_settings(journal: Journal) -> None:
    job, _ = journal.add(fresh(), key=None, fingerprint="f")
    started = journal.start(job, RECIPE, 2.0)
    assert started is not None
    journal.add_chunk(job, chunk(1), 1.0)
    other = replace(RECIPE, conf=0.9, version="new", backend="openvino")
    again = journal.start(started, other, 3.0)
    assert again is not None
    assert again.recipe == replace(RECIPE, version="new", backend="openvino")
    assert (again.frames_done, journal.tail(job).number) == (0, 0)


def test_a_key_is_kept_as_long_as_its_job(journal: Journal) -> None:
    job, _ = journal.add(fresh(), key="k", fingerprint="f")
    assert journal.add(fresh(), key="k", fingerprint="f") == (job, False)
    with pytest.raises(RefusedError, match="new key"):
        journal.add(fresh(), key="k", fingerprint="g")
    journal.forget(job)
    assert journal.job(job.id) == job, "a live job is not forgotten"
    journal.end(job, State.CANCELLED, 2.0)
    journal.forget(job)
    assert journal.add(fresh(), key="k", fingerprint="g")[1] is True


def test_the_list_goes_on_where_a_page_ended(journal: Journal) -> None:
    ids = [journal.add(fresh(), key=None, fingerprint="f")[0].id for _ in range(5)]
    first = journal.jobs(most=3)
    second = journal.jobs(before=first[-1].seq, most=3)
    assert [job.id for job in (*first, *second)] == ids[::-1]
    assert journal.jobs(state=State.DONE) == []


@pytest.mark.parametrize("damage", ["text", "torn", "foreign"])
def test_a_damaged_file_is_refused_by_its_path_and_kept(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "videos.db"
    if damage == "text":
        path.write_bytes(b"this is no database at all, but it is long enough to be read" * 50)
    elif damage == "torn":
        whole = Journal(path)
        whole.open()
        for _ in range(9):
            whole.add(fresh(), key=None, fingerprint="f" * 10_000)
        whole.close()
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    else:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE mine (a)")
        other.close()
    before = path.read_bytes()
    with pytest.raises(StartError, match=str(path)):
        Journal(path)
    assert path.read_bytes() == before or damage == "foreign"


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "videos.db"
    Journal(path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StartError, match="newer"):
        Journal(path)


def test_ids_name_their_instance_and_nothing_else_passes_for_one() -> None:
    assert slug_of("127.0.0.1:7860") == "127-0-0-1-7860"
    assert slug_of("Détecteur Nº 1") == "d-tecteur-n-1"
    assert slug_of("...") == "detector"
    assert slug_of("x" * 39 + "--y" * 9).count("x") == 39
    for instance in ("127.0.0.1:7860", "...", "a" * 100, "é", "x" * 39 + "-y"):
        assert is_id(new_id(slug_of(instance)))
    good = new_id("d")
    for bad in (
        "",
        "d",
        good.upper(),
        good + "\n",
        "../" + good,
        good[:-1],
        "-" + good,
        good + "/",
    ):
        assert not is_id(bad)


def test_final_states_have_no_way_out_and_every_other_has_one() -> None:
    assert {state for state in State if state.final} == {
        State.DONE,
        State.FAILED,
        State.CANCELLED,
    }
    assert set(MOVES) == set(State)


class Jobs(RuleBasedStateMachine):
    """Whatever is asked in whatever order, only allowed moves happen, and the answer says which."""

    jobs = Bundle("jobs")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "videos.db"
        self.journal = Journal(self.path)
        self.journal.open()
        self.states: dict[str, State] = {}
        self.chunks: dict[str, int] = {}

    @rule(target=jobs, fetching=st.booleans())
    def add(self, *, fetching: bool) -> Job:
        state = State.FETCHING if fetching else State.QUEUED
        job, _ = self.journal.add(fresh(state=state), key=None, fingerprint="f")
        self.states[job.id], self.chunks[job.id] = state, 0
        return job

    @rule(job=jobs, tries=st.integers(0, 3))
    def fetch(self, job: Job, tries: int) -> None:
        fetching = self.journal.fetch(job, tries=tries)
        if self._moved(job, State.FETCHING, fetching):
            assert fetching is not None
            assert fetching.tries == tries

    @rule(job=jobs)
    def fetched(self, job: Job) -> None:
        self._moved(job, State.QUEUED, self.journal.fetched(job, FILM, size=1, digest="d"))

    @rule(job=jobs)
    def start(self, job: Job) -> None:
        known = self.journal.job(job.id)
        assert known is not None
        started = self.journal.start(known, RECIPE, 1.0)
        if self._moved(job, State.RUNNING, started):
            assert started is not None
            assert started.tries == known.tries + 1

    @rule(job=jobs, clean=st.booleans())
    def park(self, job: Job, *, clean: bool) -> None:
        parked = self.journal.park(job, "limit", "words", clean=clean)
        if self._moved(job, State.PARKED, parked) and clean:
            assert parked is not None
            assert parked.tries == 0

    @rule(job=jobs, to=st.sampled_from([State.DONE, State.FAILED, State.CANCELLED]))
    def end(self, job: Job, to: State) -> None:
        self._moved(job, to, self.journal.end(job, to, 2.0))

    @rule(job=jobs)
    def commit(self, job: Job) -> None:
        kept = self.journal.add_chunk(job, chunk(self.chunks[job.id] + 1), 1.0)
        assert kept is (self.states[job.id] is State.RUNNING)
        self.chunks[job.id] += kept

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)
        self.journal.open()

    def _moved(self, job: Job, to: State, after: Job | None) -> bool:
        allowed = to in MOVES[self.states[job.id]]
        assert (after is not None) is allowed
        if allowed:
            self.states[job.id] = to
        return allowed

    @invariant()
    def the_file_says_the_same(self) -> None:
        for name, state in self.states.items():
            job = self.journal.job(name)
            assert job is not None
            assert job.state is state
            assert job.frames_done == 8 * self.chunks[name]

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()


TestJobs = Jobs.TestCase
TestJobs.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)
