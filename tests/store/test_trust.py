"""Which runs count for trust: those that acted or watched to the end, of exactly this text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remediator.model.playbook import Mode
from remediator.store import trust
from tests.builders import a_playbook, a_retune, an_alert, pinned
from tests.world import World, a_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as made:
        yield made


def once(**changed: object) -> dict[str, object]:
    """Return a retune that runs once in half an hour."""
    found: dict[str, object] = a_retune({"batch_size": 4}, guards=[{"cooldown": "30m"}], **changed)
    return found


async def one_run(world: World, document: dict[str, object], *, heals: bool) -> None:
    world.serve(document)
    world.metrics.answers["p95"] = lambda _: 0.1 if heals else 0.6
    alert = an_alert()
    await world.fire(alert)
    await world.settle(600)
    await world.resolve(alert)
    await world.settle(2400)


@pytest.mark.slow
async def test_what_helped_and_what_did_not_are_counted_for_this_text_only(world: World) -> None:
    document = once(description="new")
    await one_run(world, once(description="old"), heals=True)
    await one_run(world, document, heals=True)
    await one_run(world, document, heals=False)
    found = world.db.transact(trust.record_of, pinned(document))
    assert found.verdicts["improved"] == 1
    assert found.improved.of == 2


@pytest.mark.slow
async def test_a_run_that_only_watched_counts_as_nature_and_never_as_help(world: World) -> None:
    document = once(mode="observe")
    await one_run(world, document, heals=True)
    found = world.db.transact(trust.record_of, pinned(document))
    assert (found.mode, found.improved.of) == (Mode.OBSERVE, 0)
    assert (found.observed, found.healed) == (1, 1)


async def test_a_run_that_only_watched_and_measured_nothing_says_nothing(world: World) -> None:
    document = a_playbook(mode="observe")
    world.serve(document)
    await world.fire(an_alert())
    await world.settle(5)
    assert world.run().closed_at
    assert world.db.transact(trust.record_of, pinned(document)).observed == 0


async def test_a_run_that_a_person_stopped_says_nothing(world: World) -> None:
    document = once()
    world.serve(document)
    world.metrics.answers["p95"] = 0.6
    await world.fire(an_alert())
    await world.settle(5)
    assert await world.cancel(world.run())
    await world.settle(60)
    assert world.db.transact(trust.record_of, pinned(document)).improved.of == 0


async def test_a_run_that_touched_nothing_says_nothing(world: World) -> None:
    document = a_playbook()
    world.serve(document)
    await world.fire(an_alert())
    await world.settle(5)
    assert world.run().closed_at
    assert world.db.transact(trust.record_of, pinned(document)).improved.of == 0
