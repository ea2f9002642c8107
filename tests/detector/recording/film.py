"""Film a screen while its pointer comes and goes by a script; the truth is the script.

Surprise: the pointer is moved between two grabs, by frame number and not by the clock, so the truth
is exact to the frame even on a machine that is too busy to keep up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
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
    """A recording and the truth about it."""

    path: Path
    frames: int
    spells: tuple[Spell, ...]

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
    told = Film(path, round(script[-1].end_s * FPS), script)
    with screen.grab(FPS) as grabbed, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *screen.size, "yuv420p"
        stream.options = {"crf": "21", "preset": "veryfast"}
        places = _places(script, told.frames, screen.size)
        pictures = grabbed.decode(video=0)
        for number, _ in enumerate(_moved(screen, places)):
            picture = next(pictures).reformat(format="yuv420p")
            picture.pict_type = 0  # the grab calls every frame a keyframe; let x264 choose
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    truth = {"fps": FPS, "theme": THEME, "cursor_px": CURSOR_PX, "spells": _as_json(script)}
    path.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return told


def _moved(screen: Screen, places: Iterable[tuple[int, int]]) -> Iterator[None]:
    for x, y in places:
        screen.move(x, y)
        yield


def _places(
    script: tuple[Spell, ...], frames: int, size: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield where the pointer is in each frame: on a slow curve, or all but one pixel outside."""
    width, height = size
    for number in range(frames):
        at_s = number / FPS
        if next(spell for spell in script if at_s < spell.end_s).visible:
            x, y = math.sin(at_s * 0.9), math.sin(at_s * 1.3 + 1)
            yield round(width * (0.5 + 0.4 * x)), round(height * (0.5 + 0.4 * y))
        else:
            yield width - 1, height - 1


def _as_json(script: tuple[Spell, ...]) -> list[dict[str, object]]:
    return [asdict(spell) for spell in script]
