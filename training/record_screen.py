"""Record a real screen with a moving pointer, and the true box of the cursor in every frame.

Usage: python training/record_screen.py OUT.mp4 [--theme Adwaita] [--cursor-size 32] [--seconds 10]

Called by a person; writes OUT.mp4 and OUT.json. Xvfb shows Chromium, xterm and xcalc without a
window manager; xdotool moves the pointer. The surprise: the pointer stands still while a frame is
grabbed and its box is asked, so box and picture belong together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from pages import Page, dashboard, form
from screens import FIRST_TEST_SEED, photos
from x_pointer import Display
from x_screen import Screen, virtual_screen
from xcursor import kind_of

WIDTH, HEIGHT, FPS = 960, 540, 12
BROWSER_SIZE = (640, HEIGHT)
# Hot spots the pointer glides through, in screen pixels: text, buttons, terminal, calculator.
PATH = (
    (60, 480),
    (150, 40),
    (330, 58),
    (520, 210),
    (300, 330),
    (610, 300),
    (780, 120),
    (880, 230),
    (800, 430),
    (930, 500),
    (420, 470),
    (120, 250),
    (360, 120),
)
STYLE = """
  body { margin:14px; font:15px 'Liberation Sans'; background:#f4f5f7; color:#1d2733 }
  .card { background:#fff; border:1px solid #ccd3da; border-radius:6px; padding:10px;
          margin:6px; display:inline-block }
  span[style*=inline-block] { cursor:pointer }
"""
SCROLLING_TEXT = (
    "for n in $(seq 400); do date +%T.%N; echo frame $n latency $((n*37%91)) ms; sleep .4; done"
)


def browser_page() -> str:
    """Return the HTML that Chromium shows."""
    page = Page(FIRST_TEST_SEED, photos(held_out=True))
    page.paper = "#fff"
    body = form(page) + dashboard(page)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><body>{body}"


def glide(frames: int) -> Iterator[tuple[int, int]]:
    """Yield one pointer position a frame: eased from point to point, with a rest at each."""
    legs = len(PATH) - 1
    for frame in range(frames):
        at = frame / max(1, frames - 1) * legs
        leg = min(int(at), legs - 1)
        part = min(1.0, (at - leg) * 1.3)  # the last quarter of a leg is rest
        eased = part * part * (3 - 2 * part)
        (x1, y1), (x2, y2) = PATH[leg], PATH[leg + 1]
        yield round(x1 + (x2 - x1) * eased), round(y1 + (y2 - y1) * eased)


def record(screen: Screen, out: Path, frames: int, theme: str) -> list[dict[str, object]]:
    """Move, grab and encode `frames` frames; return pointer, true box and shape of each."""
    told: list[dict[str, object]] = []
    positions = list(glide(frames))
    server = Display(screen.display)
    screen.move(positions[0])
    with (
        screen.grab(FPS) as grabbed,
        av.open(str(out), "w", options={"movflags": "+faststart"}) as film,
    ):
        stream = film.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "21", "preset": "slow"}
        pictures = grabbed.decode(video=0)
        for number, position in enumerate(positions):
            picture = next(pictures).reformat(format="yuv420p")
            shown = server.shown()
            box = shown.box(WIDTH, HEIGHT)
            told.append(
                {
                    "frame": number,
                    "pointer": position,
                    "xyxy": box,
                    "shape": kind_of(theme, shown.cursor),
                }
            )
            if number + 1 < frames:
                screen.move(positions[number + 1])
            picture.pict_type = 0  # the grab says "intra" of every frame; let x264 choose
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            film.mux(stream.encode(picture))
        film.mux(stream.encode())
    return told


def main() -> None:
    """Record, and write the true boxes beside the film."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--theme", default="Adwaita")
    arguments.add_argument("--cursor-size", type=int, default=32)
    arguments.add_argument("--seconds", type=float, default=10)
    options = arguments.parse_args()
    size, theme = options.cursor_size, options.theme
    with virtual_screen((WIDTH, HEIGHT), theme=theme, cursor_size=size) as screen:
        screen.start("xterm", "-geometry", "52x21+642+0", "-e", "sh", "-c", SCROLLING_TEXT)
        screen.start("xcalc", "-geometry", "316x230+642+302")
        screen.start_browser(browser_page(), BROWSER_SIZE)
        frames = record(screen, options.out, round(options.seconds * FPS), theme)
    truth = {
        "width": WIDTH,
        "height": HEIGHT,
        "fps": FPS,
        "class_name": "cursor",
        "cursor_theme": theme,
        "cursor_size": size,
        "frames": frames,
    }
    text = json.dumps(truth).replace(' {"frame"', '\n {"frame"')
    options.out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(f"{options.out}: {len(frames)} frames, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
