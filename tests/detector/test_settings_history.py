"""The history of the settings: what is entered, by whom, how long it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector_service.tunables import Author, Document, Drain, PinWish, Preconditions, Write
from detector_service.tunables.changes import drain, end_lease, pin, unpin, write
from detector_service.tunables.history import KEPT_CHANGES
from detector_service.tunables.knobs import defaults
from detector_service.tunables.statefile import StateFile, write_durably
from detector_service.tunables.store import Command, TunableStore
from tests.detector.toys import Clock, running, until

ANN = Author("direct", "ann", "a talk")
CONTROLLER = Author("lease", "controller", "too slow")


class Steered:
    """A store, the clock it follows, and what its watcher was told."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.told: list[tuple[str, str]] = []
        file = StateFile(folder)
        self.store = TunableStore(
            file,
            file.load(defaults()),
            self.clock,
            monotonic=self.clock.steady,
            watch=lambda knob, kind: self.told.append((knob, kind)),
        )

    def do(self, command: Command, author: Author, **asked: Any) -> None:
        self.store.apply(command, Preconditions(**asked), lambda _document: {}, author=author)

    def write(self, author: Author = ANN, *, lease_s: float | None = None, **values: Any) -> None:
        wish = Write(values, author.owner, author.reason, lease_s=lease_s)
        self.do(lambda document, now: write(document, wish, now), author)

    @property
    def entries(self) -> list[tuple[Any, ...]]:
        return [
            (change.knob, change.before, change.after, change.owner, change.kind, change.reason)
            for change in self.store.current.history
        ]


def test_every_value_of_a_write_is_entered_and_logged_with_its_author(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    steered = Steered(tmp_path)
    steered.write(imgsz=480, batch_size=4, queue_limit=20)
    assert steered.entries == [
        ("batch_size", 8, 4, "ann", "direct", "a talk"),
        ("imgsz", 640, 480, "ann", "direct", "a talk"),
    ]
    assert "imgsz from 640 to 480, direct by 'ann': 'a talk'" in caplog.messages
    change = steered.store.current.history[0]
    assert (change.at, change.generation) == (steered.clock(), 2)


def test_a_lease_its_ramp_and_its_end_are_entered_with_the_one_who_held_it(tmp_path: Path) -> None:
    steered = Steered(tmp_path)
    steered.write(CONTROLLER, lease_s=60, max_concurrency=8)
    for _ in range(2):
        steered.clock.forward(60)
        steered.store.tick()
    assert [entry[1:] for entry in steered.entries] == [
        (10, 8, "controller", "lease", "too slow"),
        (8, 9, "controller", "expiry", "too slow"),
        (9, 10, "controller", "expiry", "too slow"),
    ]
    assert [change.generation for change in steered.store.current.history] == [2, 3, 4]


def test_an_expiry_that_a_write_comes_upon_is_entered_and_counted_as_one(tmp_path: Path) -> None:
    steered = Steered(tmp_path)
    steered.write(CONTROLLER, lease_s=60, max_concurrency=8)
    steered.clock.forward(60)
    steered.write(imgsz=480)
    assert [(entry[0], entry[4]) for entry in steered.entries] == [
        ("max_concurrency", "lease"),
        ("max_concurrency", "expiry"),
        ("imgsz", "direct"),
    ]
    assert steered.told == [(entry[0], entry[4]) for entry in steered.entries]


def test_a_lease_given_back_and_a_pin_set_removed_and_expired_are_entered(tmp_path: Path) -> None:
    steered = Steered(tmp_path)
    steered.write(CONTROLLER, lease_s=60, max_concurrency=8)
    steered.do(lambda d, _now: end_lease(d, "max_concurrency", "controller"), CONTROLLER)
    human = Author("pin", "ann", "mine")
    wish = PinWish("imgsz", "ann", "mine", ttl_s=60)
    steered.do(lambda document, now: pin(document, wish, now), human)
    steered.do(lambda document, _now: unpin(document, "imgsz"), Author("pin", "bob", "no"))
    steered.do(lambda document, now: pin(document, wish, now), human)
    steered.clock.forward(60)
    steered.store.tick()
    assert steered.entries[1:] == [
        ("max_concurrency", 8, 10, "controller", "lease", "too slow"),
        ("imgsz", 640, 640, "ann", "pin", "mine"),
        ("imgsz", 640, 640, "bob", "pin", "no"),
        ("imgsz", 640, 640, "ann", "pin", "mine"),
        ("imgsz", 640, 640, "ann", "expiry", "mine"),
    ]
    assert ("imgsz", "pin") not in steered.told  # the metric counts values


def test_what_moves_nothing_is_not_entered(tmp_path: Path) -> None:
    steered = Steered(tmp_path)
    steered.write(CONTROLLER, lease_s=60, max_concurrency=8)
    steered.write(CONTROLLER, lease_s=90, max_concurrency=8)
    stop = Drain("controller", "restart", steered.clock() + 5)
    steered.do(lambda document, _now: drain(document, stop), Author("drain"))
    wish = Write({"max_concurrency": 3}, "controller", "why")
    steered.store.apply(
        lambda document, now: write(document, wish, now),
        Preconditions(),
        lambda _document: {},
        author=CONTROLLER,
        dry_run=True,
    )
    assert len(steered.entries) == 1


def test_a_retry_with_the_same_key_is_entered_once(tmp_path: Path) -> None:
    steered = Steered(tmp_path)
    wish = Write({"max_concurrency": 3}, "controller", "why")
    for _ in range(2):
        steered.do(lambda document, now: write(document, wish, now), CONTROLLER, key="k")
    assert len(steered.entries) == 1


def test_the_last_two_hundred_changes_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _file: None)
    steered = Steered(tmp_path)
    for count in range(KEPT_CHANGES + 10):
        steered.write(batch_size=1 + count % 2)
    again = Steered(tmp_path, steered.clock)
    assert again.entries == steered.entries
    assert len(again.entries) == KEPT_CHANGES
    assert again.store.current.history[-1].generation == KEPT_CHANGES + 11


def test_a_file_of_the_version_before_has_no_history_and_loads(tmp_path: Path) -> None:
    Steered(tmp_path).write(imgsz=480)
    path = tmp_path / "settings.json"
    document = json.loads(path.read_bytes())
    del document["history"]
    write_durably(path, json.dumps(document).encode())
    loaded: Document = StateFile(tmp_path).load(defaults())
    assert (loaded.history, loaded.base["imgsz"]) == ((), 480)


async def test_the_history_is_told_newest_first_to_anybody_who_may_read_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector_service.app.TICK_S", 0.01)
    async with running(tmp_path, token="s3cret") as detector:
        empty = (await detector.client.get("/v1/settings/history")).json()
        assert empty == {"generation": 1, "kept": 200, "changes": []}
        bearer = {"Authorization": "Bearer s3cret"}
        await detector.patch({"max_concurrency": 9}, lease_s=60, headers=bearer)
        form = {"confidence_threshold": "0.5"}
        await detector.client.post("/update-params", data=form, headers=bearer)
        detector.clock.forward(60)
        await until(lambda: not detector.parts.document.leases)
        told = (await detector.client.get("/v1/settings/history")).json()
    assert [(c["knob"], c["kind"], c["owner"], c["reason"]) for c in told["changes"]] == [
        ("max_concurrency", "expiry", "controller", "a test"),
        ("conf_threshold", "legacy", "legacy", "POST /update-params"),
        ("max_concurrency", "lease", "controller", "a test"),
    ]
    assert told["changes"][2] == {
        "at": "2027-01-15T08:00:00.000Z",
        "generation": 2,
        "knob": "max_concurrency",
        "before": 10,
        "after": 9,
        "owner": "controller",
        "kind": "lease",
        "reason": "a test",
    }
