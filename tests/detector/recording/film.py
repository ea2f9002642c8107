"""Film a screen while its pointer comes and goes by a script; the truth is the script.

Surprise: the pointer is moved between two grabs, by frame number and not by the clock, so the truth
is exact to the frame even on a machine that is too busy to keep up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av

from tests.detector.recording.screen import CURSOR_PX, THEME, Screen

FPS = 10


@dataclass(frozen=True)
class Spell:
    """The pointer is on the screen, or is not, from ``start_s`` to ``end_s`` (seconds of film)."""

    start_s: float
    end_s: float
    visible: bool


@dataclass(frozen=True)
class Film:
    """A recording and the truth about it.

    Attributes:
        pointer: its hot spot in each frame, in pixels; None: it is away.
    """

    path: Path
    spells: tuple[Spell, ...]
    pointer: tuple[tuple[int, int] | None, ...]

    @property
    def duration_s(self) -> float:
        """Seconds of film."""
        return self.spells[-1].end_s


def spells(*lengths: tuple[str, float]) -> tuple[Spell, ...]:
    """Return spells that follow each other, from ("visible" or "away", seconds)."""
    told: list[Spell] = []
    for word, length_s in lengths:
        start_s = told[-1].end_s if told else 0.0
        told.append(Spell(start_s, start_s + length_s, word == "visible"))
    return tuple(told)


def film(screen: Screen, path: Path, script: tuple[Spell, ...]) -> Film:
    """Film ``script`` in real time as H.264 to ``path``, and write the truth as JSON beside it."""
    pointer = tuple(_pointer(script, screen.size))
    outside = (screen.size[0] - 1, screen.size[1] - 1)  # one pixel of it stays on the screen
    with screen.grab(FPS) as grabbed, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *screen.size, "yuv420p"
        stream.options = {"crf": "21", "preset": "veryfast"}
        pictures = grabbed.decode(video=0)
        for number, place in enumerate(pointer):
            screen.move(*(place or outside))
            picture = next(pictures).reformat(format="yuv420p")
            picture.pict_type = 0  # the grab calls every frame a keyframe; let x264 choose
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    truth = {
        "fps": FPS,
        "theme": THEME,
        "cursor_px": CURSOR_PX,
        "spells": [asdict(spell) for spell in script],
        "pointer": pointer,
    }
    path.with_suffix(".json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    return Film(path, script, pointer)


def _pointer(script: tuple[Spell, ...], size: tuple[int, int]) -> Iterator[tuple[int, int] | None]:
    """Yield where the pointer is in each frame: on a slow curve over everything, or nowhere."""
    width, height = size
    for number in range(round(script[-1].end_s * FPS)):
        at_s = number / FPS
        x, y = math.sin(at_s * 0.9), math.sin(at_s * 1.3 + 1)
        seen = next(spell for spell in script if at_s < spell.end_s).visible
        place = round(width * (0.5 + 0.4 * x)), round(height * (0.5 + 0.4 * y))
        yield place if seen else None
