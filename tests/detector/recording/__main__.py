"""``python -m tests.detector.recording OUT.mp4``: film by hand."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.browser import NAMES
from tests.detector.recording import COMES_AND_GOES, Programs, busy_screen, film


def found(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"{names[0]} is not installed; scripts/setup.sh screen installs it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    told = parser.parse_args()
    programs = Programs(found("Xvfb"), found("xdotool"), found("xterm"), found(*NAMES))
    with (
        tempfile.TemporaryDirectory() as home,
        busy_screen(programs, (960, 540), Path(home)) as screen,
    ):
        made = film(screen, told.out, COMES_AND_GOES)
    print(f"{made.path}: {len(made.pointer)} frames, {made.duration_s} s")  # noqa: T201 - a command


if __name__ == "__main__":
    main()
