"""The one writer: preconditions, replays, and the disk before the answer."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from detector_service.errors import RefusedError, StartError, StateWriteError
from detector_service.tunables import (
    Author,
    Document,
    Drain,
    PinWish,
    Preconditions,
    StateFile,
    TunableStore,
    Write,
)
from detector_service.tunables.changes import drain, pin, write
from detector_service.tunables.knobs import defaults
from detector_service.tunables.statefile import UnsyncedError, write_durably
from detector_service.tunables.store import KEPT_REPLIES, Command
from tests.detector.toys import Clock


def view(document: Document) -> Mapping[str, Any]:
    return {"generation": document.generation, "values": document.values}


def concurrency(value: int, *, owner: str = "controller", lease_s: float | None = None) -> Command:
    wish = Write({"max_concurrency": value}, owner, "why", lease_s=lease_s)
    return lambda document, now: write(document, wish, now)


def opened(folder: Path, clock: Clock | None = None) -> TunableStore:
    return store_on(StateFile(folder), clock or Clock())


def store_on(file: StateFile, clock: Clock) -> TunableStore:
    return TunableStore(file, file.load(defaults()), clock, monotonic=clock.steady)


def asked(**more: Any) -> Preconditions:
    return Preconditions(**more)


def test_a_write_is_there_after_a_restart(tmp_path: Path) -> None:
    reply = opened(tmp_path).apply(
        concurrency(4, lease_s=60), asked(), view, author=Author("lease", "me", "why")
    )
    again = opened(tmp_path).current
    assert again.values["max_concurrency"] == 4
    assert again.base["max_concurrency"] == 10
    assert again.generation == reply.generation == 2


WRITE_AND_DIE = """
import os, signal, sys, time
from pathlib import Path
from detector_service.tunables import Author, Preconditions, StateFile, TunableStore, Write
from detector_service.tunables.changes import write
from detector_service.tunables.knobs import defaults
file = StateFile(Path(sys.argv[1]))
wish = Write({"max_concurrency": 4}, "controller", "why", lease_s=60)
TunableStore(file, file.load(defaults()), time.time).apply(
    lambda document, now: write(document, wish, now),
    Preconditions(fencing_token=9),
    lambda document: {},
    author=Author("lease", "me", "why"),
)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_write_that_was_answered_survives_kill_9(tmp_path: Path) -> None:
    # A program of its own rather than this module in a new process: it imports far less.
    died = subprocess.run(
        [sys.executable, "-c", WRITE_AND_DIE, str(tmp_path)], timeout=30, check=False
    )
    assert died.returncode == -signal.SIGKILL
    survived = opened(tmp_path).current
    assert survived.values["max_concurrency"] == 4
    assert survived.fencing_token == 9


def test_a_stale_generation_is_refused_and_the_right_one_is_not(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.apply(concurrency(4), asked(if_match='"1"'), view, author=Author("direct", "me", "why"))
    with pytest.raises(RefusedError, match="generation 2") as caught:
        store.apply(
            concurrency(5), asked(if_match='"1"'), view, author=Author("direct", "me", "why")
        )
    assert (caught.value.status, caught.value.reason) == (412, "generation")
    store.apply(concurrency(5), asked(if_match="*"), view, author=Author("direct", "me", "why"))
    assert store.current.values["max_concurrency"] == 5


def test_an_older_fencing_token_is_refused_and_an_equal_one_is_not(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.apply(concurrency(4), asked(fencing_token=7), view, author=Author("direct", "me", "why"))
    store.apply(concurrency(5), asked(fencing_token=7), view, author=Author("direct", "me", "why"))
    with pytest.raises(RefusedError) as caught:
        opened(tmp_path).apply(
            concurrency(6), asked(fencing_token=6), view, author=Author("direct", "me", "why")
        )
    assert (caught.value.status, caught.value.reason) == (412, "fencing")


def test_a_retry_with_the_same_key_gets_the_first_answer_even_when_stale_and_fenced(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    first = asked(key="k1", fingerprint="a", if_match='"1"', fencing_token=1)
    once = store.apply(concurrency(4), first, view, author=Author("direct", "me", "why"))
    store.apply(concurrency(9), asked(fencing_token=5), view, author=Author("direct", "me", "why"))
    again = opened(tmp_path).apply(
        concurrency(4), first, view, author=Author("direct", "me", "why")
    )
    assert again.replayed
    assert again.body == once.body
    assert opened(tmp_path).current.values["max_concurrency"] == 9


def test_a_key_belongs_to_one_request(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.apply(
        concurrency(4), asked(key="k", fingerprint="a"), view, author=Author("direct", "me", "why")
    )
    with pytest.raises(RefusedError) as caught:
        store.apply(
            concurrency(5),
            asked(key="k", fingerprint="b"),
            view,
            author=Author("direct", "me", "why"),
        )
    assert (caught.value.status, caught.value.reason) == (409, "idempotency_key_reused")


def test_kept_replies_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    file = StateFile(tmp_path, lambda _path, _data: None)
    store = store_on(file, Clock())
    for number in range(KEPT_REPLIES + 5):
        store.apply(
            concurrency(4), asked(key=f"k{number}"), view, author=Author("direct", "me", "why")
        )
    assert len(store.current.replies) == KEPT_REPLIES
    assert "k4" not in store.current.replies
    assert f"k{KEPT_REPLIES + 4}" in store.current.replies


def test_a_dry_run_answers_and_keeps_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    reply = store.apply(
        concurrency(4),
        asked(key="k", fencing_token=3),
        view,
        author=Author("direct", "me", "why"),
        dry_run=True,
    )
    assert reply.body["dry_run"] is True
    assert reply.body["values"]["max_concurrency"] == 4
    assert store.current == Document(base=defaults(), owners=store.current.owners)
    assert not (tmp_path / "settings.json").exists()


def test_a_full_disk_refuses_the_write_and_changes_nothing_in_memory(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.apply(concurrency(6), asked(), view, author=Author("direct", "me", "why"))
    before = store.current, (tmp_path / "settings.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StateWriteError, match=r"nothing was changed") as caught:
            store.apply(concurrency(2), asked(), view, author=Author("direct", "me", "why"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.disk_full
    assert (store.current, (tmp_path / "settings.json").read_bytes()) == before


def test_a_lease_lapses_even_while_the_disk_is_full_and_is_saved_once_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = False

    def writer(path: Path, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(data)

    file, clock = StateFile(tmp_path, writer), Clock()
    store = store_on(file, clock)
    store.apply(concurrency(9, lease_s=60), asked(), view, author=Author("lease", "me", "why"))
    full = True
    clock.forward(60)
    assert store.tick()
    assert store.current.values["max_concurrency"] == 10
    assert "not on disk" in caplog.text
    full = False
    store.tick()
    assert file.load(defaults()).values["max_concurrency"] == 10


def test_a_tick_before_anything_is_due_does_not_touch_the_disk(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    store.apply(concurrency(4, lease_s=60), asked(), view, author=Author("lease", "me", "why"))
    before = (tmp_path / "settings.json").stat().st_mtime_ns
    clock.forward(59)
    assert not store.tick()
    assert (tmp_path / "settings.json").stat().st_mtime_ns == before


def test_a_write_whose_folder_cannot_be_synced_is_in_force_and_a_retry_makes_it_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, broken = os.fsync, True

    def fsync(descriptor: int) -> None:
        if broken and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store, once = opened(tmp_path), asked(key="k", fingerprint="a")
    for _ in range(2):
        with pytest.raises(StateWriteError, match="a power cut may undo it") as caught:
            store.apply(concurrency(4), once, view, author=Author("direct", "me", "why"))
        assert caught.value.replaced
        assert store.current == opened(tmp_path).current
        assert store.current.values["max_concurrency"] == 4
    broken = False
    again = store.apply(concurrency(4), once, view, author=Author("direct", "me", "why"))
    assert again.replayed
    assert (again.generation, again.body["values"]["max_concurrency"]) == (2, 4)


def test_a_folder_that_could_not_be_synced_is_synced_by_the_clock(tmp_path: Path) -> None:
    broken, written = True, 0

    def writer(path: Path, data: bytes) -> None:
        nonlocal written
        write_durably(path, data)
        written += 1
        if broken:
            raise UnsyncedError(errno.EIO, os.strerror(errno.EIO))

    store = store_on(StateFile(tmp_path, writer), Clock())
    with pytest.raises(StateWriteError):
        store.apply(concurrency(4), asked(), view, author=Author("direct", "me", "why"))
    store.tick()
    broken = False
    store.tick()
    store.tick()
    assert written == 3


def everything_held(store: TunableStore, clock: Clock) -> None:
    store.apply(concurrency(9, lease_s=60), asked(), view, author=Author("lease", "me", "why"))
    wish, stop = PinWish("imgsz", "ann", "why", ttl_s=60), Drain("c", "why", clock() + 60)
    store.apply(
        lambda document, now: pin(document, wish, now),
        asked(),
        view,
        author=Author("pin", "me", "why"),
    )
    store.apply(
        lambda document, _now: drain(document, stop),
        asked(),
        view,
        author=Author("drain", "me", "why"),
    )


def test_a_clock_that_is_set_back_holds_nothing_longer_not_even_over_a_restart(
    tmp_path: Path,
) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    everything_held(store, clock)
    clock.forward(20)
    clock.set(-3600)
    store.tick()
    after_restart = opened(tmp_path, clock)
    for subject in (store, after_restart):
        assert not subject.tick()
    clock.forward(40)
    for subject in (store, after_restart):
        assert subject.tick()
        assert not subject.current.leases
    assert not store.current.leases
    assert not store.current.pins
    assert store.current.drain is None


def test_a_clock_that_is_set_forward_ends_what_it_says_is_over(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    everything_held(store, clock)
    clock.set(60)
    assert store.tick()
    assert not store.current.leases
    assert store.current.drain is None


def test_a_clock_that_is_set_back_in_mid_ramp_does_not_stop_the_ramp(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    store.apply(concurrency(8, lease_s=60), asked(), view, author=Author("lease", "me", "why"))
    clock.forward(60)
    store.tick()
    clock.set(-86_400)
    clock.forward(60)
    assert store.tick()
    assert store.current.values["max_concurrency"] == 10


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"base": {}, "version": 2}',
        b'{"base": {"max_concurrency": "ten"}, "version": 1}',
        b'{"base": {"max_concurrency": NaN}, "version": 1}',
        b'{"base": {"conf_threshold": Infinity}, "version": 1}',
        b'{"base": {}, "leases": {"imgsz": {"value": 320}}, "version": 1}',
        b'{"base": {}, "version": 1, "history": [{"at": NaN}]}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_state_file_is_refused_by_name_and_kept(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(damage)
    with pytest.raises(StartError, match=r"settings\.json is damaged: .*repair it"):
        StateFile(tmp_path).load(defaults())
    assert path.read_bytes() == damage


def test_a_torn_state_file_is_refused_at_every_length(tmp_path: Path) -> None:
    opened(tmp_path).apply(
        concurrency(4, lease_s=60), asked(key="k"), view, author=Author("lease", "me", "why")
    )
    path = tmp_path / "settings.json"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 17):
        path.write_bytes(whole[:length])
        with pytest.raises(StartError):
            StateFile(tmp_path).load(defaults())


def test_a_setting_that_the_file_does_not_know_yet_starts_at_its_first_value(
    tmp_path: Path,
) -> None:
    (tmp_path / "settings.json").write_text(
        json.dumps({"base": {"max_concurrency": 3}, "version": 1})
    )
    loaded = StateFile(tmp_path).load({**defaults(), "imgsz": 480})
    assert (loaded.base["max_concurrency"], loaded.base["imgsz"]) == (3, 480)


def test_a_lapsed_lease_on_a_knob_with_a_grid_never_keeps_the_service_from_starting(
    tmp_path: Path,
) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    wish = Write({"imgsz": 320}, "c", "why", lease_s=60, revert_step=32, revert_every_s=5)
    store.apply(
        lambda document, now: write(document, wish, now),
        asked(),
        view,
        author=Author("lease", "me", "why"),
    )
    seen = []
    clock.forward(60)
    while store.current.leases:
        store.tick()
        clock.forward(5)
        store = opened(tmp_path, clock)
        seen.append(store.current.values["imgsz"])
    assert seen == [352, 384, 416, 448, 480, 512, 544, 576, 608, 640]


def test_a_state_file_of_another_version_is_fitted_with_a_warning_rather_than_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = {"owner": "c", "reason": "r", "expires_at": 1e12, "revert_every_s": 1.0}
    document = {
        "base": {"max_concurrency": 1000, "imgsz": 321, "conf_threshold": 0.0, "speed": 3},
        "leases": {
            "imgsz": held | {"value": 335.0, "revert_step": 1},
            "speed": held | {"value": 1, "revert_step": None},
        },
        "pins": {"speed": {"owner": "ann", "reason": "r", "expires_at": None}},
        "owners": {"speed": "ann", "imgsz": "c"},
        "moods": ["good"],
        "version": 1,
    }
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(document))
    loaded = StateFile(tmp_path).load(defaults())
    wanted = {"max_concurrency": 256, "imgsz": 320, "conf_threshold": 0.01}
    assert loaded.base == defaults() | wanted
    assert {name: lease.value for name, lease in loaded.leases.items()} == {"imgsz": 320}
    assert (dict(loaded.pins), set(loaded.owners)) == ({}, set(defaults()))
    for said in (
        "no setting 'speed'",
        "no part 'moods'",
        "multiple of 32, got 335",
        "between 1 and 256, got 1000",
    ):
        assert said in caplog.text


def test_one_state_folder_serves_one_process(tmp_path: Path) -> None:
    held = StateFile(tmp_path).hold()
    with pytest.raises(StartError, match="another detector uses the state folder"):
        StateFile(tmp_path).hold()
    os.close(held)
    os.close(StateFile(tmp_path).hold())


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot use the state folder"):
        StateFile(tmp_path / "file" / "below").hold()
