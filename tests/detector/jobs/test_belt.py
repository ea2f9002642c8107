"""A belt between two threads: in order, bounded, and broken for both when one stops."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from detector_service.jobs.belt import Belt, BrokenBeltError


def feed(belt: Belt[int], items: Iterable[int]) -> None:
    with belt.feeding():
        for item in items:
            belt.put(item)


def take(belt: Belt[int]) -> list[int]:
    with belt.emptying() as items:
        return list(items)


def test_everything_arrives_in_order_however_short_the_belt() -> None:
    belt: Belt[int] = Belt(1)
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed, belt, range(500))
        assert take(belt) == list(range(500))
        feeding.result()


def test_who_feeds_stops_when_nobody_takes_any_more() -> None:
    belt: Belt[int] = Belt(1)
    with ThreadPoolExecutor(1) as pool:
        feeding = pool.submit(feed, belt, range(500))
        with belt.emptying() as items:
            assert next(items) == 0
        with pytest.raises(BrokenBeltError):
            feeding.result()


def test_who_takes_stops_when_the_feeder_fails_and_gets_nothing_half_done() -> None:
    belt: Belt[int] = Belt(5)

    def fail() -> Iterable[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        feed(belt, fail())
    with pytest.raises(BrokenBeltError):
        take(belt)
