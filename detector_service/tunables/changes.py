"""The rules of the settings document: pure functions from a document and a change to a document.

Called by ``store`` under its lock. A refusal is a ``RefusedError`` with 422, 409 or 404.
Surprise: ``advance`` takes one ramp step however late it is called. A service that was down while
its lease lapsed comes back throttled and ramps from there; it never catches up in a jump.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from detector_service.errors import RefusedError
from detector_service.tunables.document import Document, Drain, Lease, Pin
from detector_service.tunables.knobs import (
    KNOBS,
    Number,
    Values,
    problems,
    step_problem,
    stride,
    typed,
)

LEGACY_OWNER = "legacy"

T = TypeVar("T")


@dataclass(frozen=True)
class Write:
    """New values by one owner; with ``lease_s`` they lie over the base, else they become it."""

    values: Values
    owner: str
    reason: str
    lease_s: float | None = None
    revert_step: Number | None = None
    revert_every_s: float | None = None


@dataclass(frozen=True)
class PinWish:
    """A human's wish to keep others from a knob, for ``ttl_s`` seconds or until removed."""

    knob: str
    owner: str
    reason: str
    ttl_s: float | None = None
    value: Number | None = None


def write(document: Document, wish: Write, now: float) -> Document:
    """Apply all values or none.

    Raises:
        RefusedError: 422 invalid values, 409 ``pinned`` or ``leased`` by somebody else.
    """
    _require_valid(wish)
    _require_free(document, wish.values, wish.owner)
    values = {name: typed(name, value) for name, value in wish.values.items()}
    owners = {**document.owners, **dict.fromkeys(values, wish.owner)}
    others = _without(document.leases, values)
    if wish.lease_s is None:
        return replace(document, base={**document.base, **values}, leases=others, owners=owners)
    held = {name: _lease(name, value, wish, now) for name, value in values.items()}
    return replace(document, leases={**others, **held}, owners=owners)


def end_lease(document: Document, knob: str, owner: str) -> Document:
    """Put a leased knob back on its base at once.

    Raises:
        RefusedError: 404 unknown knob or no lease; 409 ``leased`` by somebody else.
    """
    _require_knob(knob)
    lease = document.leases.get(knob)
    if lease is None:
        raise RefusedError(404, "no_lease", f"{knob} is not leased; nothing to give back")
    if lease.state == "held" and lease.owner != owner:
        raise _leased(knob, lease)
    owners = {**document.owners, knob: owner}
    return replace(document, leases=_without(document.leases, [knob]), owners=owners)


def pin(document: Document, wish: PinWish, now: float) -> Document:
    """Pin a knob; a lease on it ends and what is in force (or ``wish.value``) becomes the base.

    Raises:
        RefusedError: 404 unknown knob, 422 invalid value, 409 ``pinned`` by somebody else.
    """
    _require_knob(wish.knob)
    value = document.values[wish.knob] if wish.value is None else wish.value
    _require_valid(Write({wish.knob: value}, wish.owner, wish.reason))
    held = document.pins.get(wish.knob)
    if held is not None and held.owner != wish.owner:
        raise _pinned(wish.knob, held)
    expires_at = None if wish.ttl_s is None else now + wish.ttl_s
    return replace(
        document,
        base={**document.base, wish.knob: typed(wish.knob, value)},
        leases=_without(document.leases, [wish.knob]),
        pins={**document.pins, wish.knob: Pin(wish.owner, wish.reason, expires_at)},
        owners={**document.owners, wish.knob: wish.owner},
    )


def unpin(document: Document, knob: str) -> Document:
    """Remove a pin, whoever set it; its value stays.

    Raises:
        RefusedError: 404 unknown knob or no pin.
    """
    _require_knob(knob)
    if knob not in document.pins:
        raise RefusedError(404, "no_pin", f"{knob} is not pinned")
    return replace(document, pins=_without(document.pins, [knob]))


def drain(document: Document, wish: Drain) -> Document:
    """Start or renew a drain.

    Raises:
        RefusedError: 409 ``drained`` when somebody else drains already.
    """
    _require_own_drain(document, wish.owner)
    return replace(document, drain=wish)


def undrain(document: Document, owner: str) -> Document:
    """End the drain; ending none is fine.

    Raises:
        RefusedError: 409 ``drained`` when it is somebody else's.
    """
    _require_own_drain(document, owner)
    return replace(document, drain=None)


def advance(document: Document, now: float) -> Document:
    """Do what is due at ``now``: lapse leases, ramp one step, drop expired pins and drain.

    Returns the same object when nothing is due. Only settings raise the generation, a drain that
    ends does not.
    """
    if document.due_at is None or now < document.due_at:
        return document
    pins = {
        name: held
        for name, held in document.pins.items()
        if held.expires_at is None or now < held.expires_at
    }
    stepped = {name: _step(document, name, now) for name in document.leases}
    leases = {name: lease for name, lease in stepped.items() if lease is not None}
    ended = document.drain is not None and now >= document.drain.expires_at
    moved = leases != document.leases or pins != document.pins
    return replace(
        document,
        leases=leases,
        pins=pins,
        drain=None if ended else document.drain,
        generation=document.generation + moved,
    )


def earlier(document: Document, seconds: float) -> Document:
    """Bring every expiry and the next step of every ramp forward by ``seconds``."""
    leases = {
        name: replace(
            lease,
            expires_at=lease.expires_at - seconds,
            next_step_at=None if lease.next_step_at is None else lease.next_step_at - seconds,
        )
        for name, lease in document.leases.items()
    }
    pins = {
        name: held
        if held.expires_at is None
        else replace(held, expires_at=held.expires_at - seconds)
        for name, held in document.pins.items()
    }
    held = document.drain
    ends = None if held is None else replace(held, expires_at=held.expires_at - seconds)
    return replace(document, leases=leases, pins=pins, drain=ends)


def _step(document: Document, name: str, now: float) -> Lease | None:
    lease = document.leases[name]
    if now < lease.due_at:
        return lease
    distance = document.base[name] - lease.value
    if lease.revert_step is None:
        return None
    # A state file may hold a step that was asked for when any was allowed.
    step = stride(name, lease.revert_step)
    if abs(distance) <= step:
        return None
    towards = step if distance > 0 else -step
    # Rounding keeps 0.1 + 0.2 from showing up as 0.30000000000000004.
    value = typed(name, round(lease.value + towards, 9))
    return replace(lease, value=value, next_step_at=now + lease.revert_every_s)


def _lease(name: str, value: Number, wish: Write, now: float) -> Lease:
    ramp = KNOBS[name].ramp
    step = ramp[0] if ramp and wish.revert_step is None else wish.revert_step
    every_s = ramp[1] if ramp and wish.revert_every_s is None else wish.revert_every_s
    return Lease(
        owner=wish.owner,
        reason=wish.reason,
        value=value,
        expires_at=now + (wish.lease_s or 0.0),
        revert_step=step,
        revert_every_s=60.0 if every_s is None else every_s,
    )


def _require_valid(wish: Write) -> None:
    found = problems(wish.values)
    if not wish.values:
        found["values"] = "must name at least one setting"
    if wish.revert_step is not None:
        known = (name for name in wish.values if name in KNOBS)
        phrases = [phrase for name in known if (phrase := step_problem(name, wish.revert_step))]
        if phrases:
            found["revert_step"] = "; ".join(phrases)
    if found:
        words = "; ".join(f"{name}: {phrase}" for name, phrase in found.items())
        raise RefusedError(422, "invalid", words, evidence={"problems": found})


def _require_knob(knob: str) -> None:
    if knob not in KNOBS:
        known = ", ".join(KNOBS)
        raise RefusedError(404, "unknown_knob", f"no setting named {knob!r}; known are {known}")


def _require_free(document: Document, names: Iterable[str], owner: str) -> None:
    for name in names:
        held = document.pins.get(name)
        if held is not None and held.owner != owner:
            raise _pinned(name, held)
        lease = document.leases.get(name)
        # A lapsed lease is nobody's: it may be taken over in mid-ramp. Only the article's
        # endpoints, which know nothing of leases, must not cut a ramp short.
        guarded = lease is not None and (lease.state == "held" or owner == LEGACY_OWNER)
        if lease is not None and guarded and lease.owner != owner:
            raise _leased(name, lease)


def _require_own_drain(document: Document, owner: str) -> None:
    held = document.drain
    if held is not None and held.owner != owner:
        words = f"drained by {held.owner} ({held.reason}); only {held.owner} may change that"
        raise RefusedError(409, "drained", words, evidence={"owner": held.owner})


def _pinned(knob: str, held: Pin) -> RefusedError:
    words = f"{knob} is pinned by {held.owner} ({held.reason}); ask them, or remove the pin"
    return RefusedError(409, "pinned", words, evidence={"knob": knob, "owner": held.owner})


def _leased(knob: str, lease: Lease) -> RefusedError:
    words = f"{knob} is leased by {lease.owner} ({lease.reason}); pin it to overrule"
    return RefusedError(409, "leased", words, evidence={"knob": knob, "owner": lease.owner})


def _without(mapping: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    gone = set(names)
    return {name: item for name, item in mapping.items() if name not in gone}
