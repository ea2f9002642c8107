"""The rules of the settings document: pure functions, a clock that is a number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector_service.errors import RefusedError
from detector_service.tunables import KNOBS, Document, Drain, PinWish, Write
from detector_service.tunables.changes import (
    advance,
    drain,
    end_lease,
    pin,
    undrain,
    unpin,
    write,
)
from detector_service.tunables.knobs import defaults, nearest, problem

NOW = 1000.0


def fresh() -> Document:
    return Document(base=defaults())


def lease(
    values: dict[str, Any], *, owner: str = "controller", lease_s: float = 100, **more: Any
) -> Write:
    return Write(values, owner, "too slow", lease_s=lease_s, **more)


def refused(status: int, reason: str) -> Any:
    return pytest.raises(RefusedError, check=lambda e: (e.status, e.reason) == (status, reason))


def test_a_write_without_a_lease_changes_the_base() -> None:
    after = write(fresh(), Write({"max_concurrency": 4}, "me", "why"), NOW)
    assert after.base["max_concurrency"] == 4
    assert after.values["max_concurrency"] == 4
    assert after.owners["max_concurrency"] == "me"


def test_a_lease_lies_over_the_base_and_a_second_one_inherits_it_and_renews_the_expiry() -> None:
    once = write(fresh(), lease({"max_concurrency": 6}), NOW)
    twice = write(once, lease({"max_concurrency": 3}), NOW + 50)
    assert twice.values["max_concurrency"] == 3
    assert twice.base["max_concurrency"] == 10
    assert twice.leases["max_concurrency"].expires_at == NOW + 150


def test_the_owner_ends_a_lease_by_writing_without_one() -> None:
    held = write(fresh(), lease({"max_concurrency": 6}), NOW)
    after = write(held, Write({"max_concurrency": 8}, "controller", "measured"), NOW)
    assert after.base["max_concurrency"] == 8
    assert not after.leases


def test_a_leased_knob_refuses_other_owners_and_the_refused_write_changes_nothing_else() -> None:
    held = write(fresh(), lease({"max_concurrency": 6}), NOW)
    with refused(409, "leased") as caught:
        write(held, Write({"imgsz": 320, "max_concurrency": 9}, "other", "why"), NOW)
    assert caught.value.evidence == {"knob": "max_concurrency", "owner": "controller"}


def test_a_lapsed_lease_ramps_back_one_step_per_interval_and_never_jumps() -> None:
    state = write(fresh(), lease({"max_concurrency": 7}), NOW)
    seen = []
    for second in range(0, 400, 5):
        state = advance(state, NOW + second)
        seen.append((second, state.values["max_concurrency"]))
    changes = [(t, v) for (t, v), (_, before) in zip(seen[1:], seen, strict=False) if v != before]
    assert changes == [(100, 8), (160, 9), (220, 10)]
    assert not state.leases


def test_a_service_that_was_down_over_the_expiry_comes_back_throttled_and_ramps_from_there() -> (
    None
):
    state = write(fresh(), lease({"max_concurrency": 2}), NOW)
    long_after = NOW + 100_000
    state = advance(state, long_after)
    assert state.values["max_concurrency"] == 3
    assert state.leases["max_concurrency"].state == "reverting"
    assert advance(state, long_after + 59) is state
    assert advance(state, long_after + 60).values["max_concurrency"] == 4


def test_a_value_leased_above_its_base_ramps_down() -> None:
    state = write(fresh(), lease({"max_concurrency": 12}), NOW)
    assert advance(state, NOW + 100).values["max_concurrency"] == 11


def test_knobs_other_than_concurrency_jump_back_unless_a_step_is_given() -> None:
    state = write(fresh(), lease({"imgsz": 320}), NOW)
    assert advance(state, NOW + 100).values["imgsz"] == 640
    stepped = write(
        fresh(), lease({"conf_threshold": 0.5}, revert_step=0.1, revert_every_s=10), NOW
    )
    assert advance(stepped, NOW + 100).values["conf_threshold"] == 0.4


def test_anyone_may_take_over_a_reverting_knob_but_the_articles_endpoints() -> None:
    ramping = advance(write(fresh(), lease({"max_concurrency": 2}), NOW), NOW + 100)
    taken = write(ramping, lease({"max_concurrency": 5}, owner="other"), NOW + 110)
    assert taken.leases["max_concurrency"].owner == "other"
    assert taken.base["max_concurrency"] == 10
    with refused(409, "leased"):
        write(ramping, Write({"max_concurrency": 10}, "legacy", "why"), NOW + 110)


def test_giving_a_lease_back_restores_the_base_at_once_and_only_its_owner_may() -> None:
    held = write(fresh(), lease({"max_concurrency": 2}), NOW)
    with refused(409, "leased"):
        end_lease(held, "max_concurrency", "other")
    assert end_lease(held, "max_concurrency", "controller").values["max_concurrency"] == 10
    with refused(404, "no_lease"):
        end_lease(fresh(), "max_concurrency", "controller")


def test_a_pin_ends_a_lease_without_reverting_and_keeps_others_out() -> None:
    held = write(fresh(), lease({"max_concurrency": 4}), NOW)
    pinned = pin(held, PinWish("max_concurrency", "ann", "I watch it"), NOW)
    assert pinned.values["max_concurrency"] == 4
    assert pinned.base["max_concurrency"] == 4
    with refused(409, "pinned") as caught:
        write(pinned, lease({"max_concurrency": 2}), NOW)
    assert caught.value.evidence == {"knob": "max_concurrency", "owner": "ann"}
    assert (
        write(pinned, Write({"max_concurrency": 5}, "ann", "mine"), NOW).base["max_concurrency"]
        == 5
    )


def test_a_pin_may_bring_a_value_and_expires_by_itself() -> None:
    pinned = pin(fresh(), PinWish("imgsz", "ann", "why", ttl_s=60, value=480), NOW)
    assert pinned.values["imgsz"] == 480
    assert advance(pinned, NOW + 59) is pinned
    after = advance(pinned, NOW + 60)
    assert not after.pins
    assert after.values["imgsz"] == 480
    assert after.generation == pinned.generation + 1


def test_a_second_human_is_told_of_the_first_ones_pin() -> None:
    pinned = pin(fresh(), PinWish("imgsz", "ann", "why"), NOW)
    with refused(409, "pinned"):
        pin(pinned, PinWish("imgsz", "bob", "why"), NOW)
    assert not unpin(pinned, "imgsz").pins
    with refused(404, "no_pin"):
        unpin(fresh(), "imgsz")


def test_a_drain_ends_by_itself_without_touching_the_generation() -> None:
    drained = drain(fresh(), Drain("controller", "restart", NOW + 300))
    with refused(409, "drained"):
        undrain(drained, "other")
    assert undrain(drained, "controller").drain is None
    after = advance(drained, NOW + 300)
    assert after.drain is None
    assert after.generation == drained.generation


@pytest.mark.parametrize(
    ("values", "knob"),
    [
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": 2.5}, "max_concurrency"),
        ({"max_concurrency": float("nan")}, "max_concurrency"),
        ({"conf_threshold": float("inf")}, "conf_threshold"),
        ({"imgsz": 333}, "imgsz"),
        ({"speed": 1}, "speed"),
        ({}, "values"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], knob: str) -> None:
    with refused(422, "invalid") as caught:
        write(fresh(), Write(values, "me", "why"), NOW)
    assert knob in caught.value.evidence["problems"]


@pytest.mark.parametrize(
    ("values", "step", "allowed"),
    [
        ({"max_concurrency": 4}, 0.5, False),
        ({"max_concurrency": 4}, 2, True),
        ({"imgsz": 320}, 1, False),
        ({"imgsz": 320}, 48, False),
        ({"imgsz": 320}, 64, True),
        ({"imgsz": 320, "max_concurrency": 4}, 1, False),
        ({"conf_threshold": 0.5}, 0.15, True),
    ],
)
def test_a_step_that_leads_to_values_that_are_not_allowed_is_refused(
    values: dict[str, Any], step: float, *, allowed: bool
) -> None:
    wish = lease(values, revert_step=step)
    if allowed:
        assert write(fresh(), wish, NOW).leases
        return
    with refused(422, "invalid") as caught:
        write(fresh(), wish, NOW)
    assert set(caught.value.evidence["problems"]) == {"revert_step"}


@pytest.mark.parametrize("name", sorted(KNOBS))
def test_only_the_ceiling_ramps_back_by_itself(name: str) -> None:
    other = KNOBS[name].high
    state = write(fresh(), lease({name: other}, revert_every_s=1), NOW)
    after = advance(state, NOW + 100)
    assert (name in after.leases) is (name == "max_concurrency")


@given(
    name=st.sampled_from(sorted(KNOBS)),
    step=st.floats(0.01, 300),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_value_on_the_way_back_is_allowed_even_by_a_step_from_an_old_state_file(
    name: str, step: float, ends: tuple[float, float]
) -> None:
    knob = KNOBS[name]
    leased, base = (nearest(name, knob.low + (knob.high - knob.low) * share) for share in ends)
    state = write(
        replace(fresh(), base={**defaults(), name: base}), lease({name: leased}, lease_s=10), NOW
    )
    held = replace(state.leases[name], revert_step=step, revert_every_s=1.0)
    state = replace(state, leases={name: held})
    for second in range(10, 30):
        state = advance(state, NOW + second)
        assert problem(name, state.values[name]) is None


def test_an_unknown_knob_in_a_path_is_not_found() -> None:
    with refused(404, "unknown_knob"):
        end_lease(fresh(), "speed", "me")
    with refused(404, "unknown_knob"):
        pin(fresh(), PinWish("speed", "me", "why"), NOW)


@given(
    leased=st.integers(1, 256),
    base=st.integers(1, 256),
    step=st.integers(1, 300),
    pauses=st.lists(st.floats(0, 500), max_size=40),
)
def test_a_ramp_never_moves_by_more_than_a_step_nor_past_its_base(
    leased: int, base: int, step: int, pauses: list[float]
) -> None:
    start = replace(fresh(), base={**defaults(), "max_concurrency": base})
    state = write(start, lease({"max_concurrency": leased}, revert_step=step, lease_s=10), NOW)
    now, low, high = NOW, min(leased, base), max(leased, base)
    for pause in pauses:
        now += pause
        after = advance(state, now)
        value = after.values["max_concurrency"]
        assert abs(value - state.values["max_concurrency"]) <= step
        assert low <= value <= high
        assert isinstance(value, int)
        state = after


def test_every_default_is_a_valid_value() -> None:
    assert write(fresh(), Write(defaults(), "me", "why"), NOW).base == defaults()
    assert set(defaults()) == set(KNOBS)
