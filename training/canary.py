"""Take the canary picture: a small real screen with one cursor, and its true box.

Usage: python training/canary.py OUT.png [--theme breeze_cursors] [--cursor-size 48]

Called by a person; writes OUT.png and OUT.json. The surprise: the cursor is large (48 px) on
purpose. The canary asks "does the model still see?", not "how small can it see?", and must hold
when imgsz is lowered to half of the picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
from pages import Page, dashboard
from screens import FIRST_TEST_SEED, photos
from x_pointer import Display
from x_screen import virtual_screen

SIZE = (640, 360)
POINTER = (402, 214)
STYLE = "body{margin:14px;font:15px 'Liberation Sans';background:#e9edf2;color:#1d2733}"


def main() -> None:
    """Show a page, put the pointer on it, grab."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--theme", default="breeze_cursors")
    arguments.add_argument("--cursor-size", type=int, default=48)
    options = arguments.parse_args()
    size, theme = options.cursor_size, options.theme
    body = dashboard(Page(FIRST_TEST_SEED + 1, photos(held_out=True)))
    body = f"<!doctype html><meta charset=utf-8><style>*{{cursor:default}}{STYLE}</style>{body}"
    with virtual_screen(SIZE, theme=theme, cursor_size=size) as screen:
        screen.start_browser(body, SIZE)
        screen.move(POINTER)
        with screen.grab(10) as grabbed:
            pictures = grabbed.decode(video=0)
            for _ in range(10):  # one second: the browser has answered the pointer
                picture = next(pictures)
            box = Display(screen.display).shown().box(*SIZE)
    cv2.imwrite(str(options.out), picture.to_ndarray(format="bgr24"))
    truth = {"class_name": "cursor", "xyxy": box, "cursor_theme": theme, "cursor_size": size}
    options.out.with_suffix(".json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    print(f"{options.out}: cursor at {box}")


if __name__ == "__main__":
    main()
