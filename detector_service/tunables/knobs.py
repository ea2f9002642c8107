"""The table of knobs: kind, range and default of every tunable; used by all of ``tunables``.

Surprise: the ranges are what the service survives, not what is wise; a controller brings its own,
narrower bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Number = int | float
Values = Mapping[str, Number]


@dataclass(frozen=True)
class Knob:
    """One tunable.

    Attributes:
        default: value of a service that was told nothing.
        low: smallest allowed value.
        high: largest allowed value.
        whole: only whole numbers are allowed.
        multiple_of: the value must be a multiple of this (0: any).
        ramp: default ``(step, seconds)`` of the way back after a lease; None: it jumps.
        grid: distance of neighbouring values; 0 where there is always one in between.
    """

    default: Number
    low: Number
    high: Number
    whole: bool = True
    multiple_of: int = 0
    ramp: tuple[Number, float] | None = None

    @property
    def grid(self) -> int:
        """Return the distance of neighbouring values."""
        return self.multiple_of or int(self.whole)


KNOBS: Final[Mapping[str, Knob]] = {
    "max_concurrency": Knob(10, 1, 256, ramp=(1, 60.0)),
    "conf_threshold": Knob(0.3, 0.01, 1.0, whole=False),
    "iou_threshold": Knob(0.7, 0.05, 1.0, whole=False),
    "batch_size": Knob(8, 1, 64),
    "batch_wait_ms": Knob(0.0, 0.0, 1000.0, whole=False),
    # A YOLO backbone halves the image five times, so sides are multiples of 2**5.
    "imgsz": Knob(640, 160, 1280, multiple_of=32),
    "frame_stride": Knob(1, 1, 300),
    "queue_limit": Knob(20, 0, 1024),
    "deadline_s": Knob(10.0, 0.1, 300.0, whole=False),
}


def defaults() -> dict[str, Number]:
    """Return every knob at its default."""
    return {name: knob.default for name, knob in KNOBS.items()}


def ranges() -> dict[str, dict[str, Number]]:
    """Return ``{knob: {min, max}}`` (and ``multiple_of`` where it applies)."""
    return {
        name: {"min": knob.low, "max": knob.high}
        | ({"multiple_of": knob.multiple_of} if knob.multiple_of else {})
        for name, knob in KNOBS.items()
    }


def problem(name: str, value: Number) -> str | None:
    """Say in one phrase why ``value`` is no value for the knob ``name``, or None."""
    knob = KNOBS.get(name)
    if knob is None:
        return f"no such setting; known are {', '.join(KNOBS)}"
    if not knob.low <= value <= knob.high:  # also refuses NaN
        return f"must be between {knob.low} and {knob.high}, got {value}"
    if knob.whole and value != int(value):
        return f"must be a whole number, got {value}"
    if knob.multiple_of and value % knob.multiple_of:
        return f"must be a multiple of {knob.multiple_of}, got {value}"
    return None


def problems(values: Values) -> dict[str, str]:
    """Return ``{knob: phrase}`` for every value that is out of range, wrong in kind or unknown."""
    found = {name: problem(name, value) for name, value in values.items()}
    return {name: phrase for name, phrase in found.items() if phrase is not None}


def typed(name: str, value: Number) -> Number:
    """Return ``value`` as an int or a float, as the knob has it; it must be valid."""
    return int(value) if KNOBS[name].whole else float(value)


def step_problem(name: str, step: Number) -> str | None:
    """Say in one phrase why ``step`` is no way to walk along a known knob's values, or None."""
    grid = KNOBS[name].grid
    if not grid or not step % grid:
        return None
    return f"must be a multiple of {grid} for {name}, got {step}"


def stride(name: str, step: Number) -> Number:
    """Return ``step``, made longer until it leads from one allowed value to another."""
    grid = KNOBS[name].grid
    return math.ceil(step / grid) * grid if grid else step


def nearest(name: str, value: Number) -> Number:
    """Return the allowed value nearest to a finite ``value``."""
    knob = KNOBS[name]
    near = round(value / knob.grid) * knob.grid if knob.grid else value
    return typed(name, min(max(near, knob.low), knob.high))
