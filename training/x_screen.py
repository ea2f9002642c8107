"""A real X screen without a monitor: Xvfb, programs on it, a pointer; used by the two recorders.

The surprise: nothing is ever pasted on a picture. Programs choose the cursor's shape, the X server
draws it, and its true box is asked from the server right after the grab.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.container import InputContainer
from browser import QUIET_FLAGS

Size = tuple[int, int]


@dataclass(frozen=True)
class Screen:
    """A running virtual screen; `stack` ends every program that was started on it."""

    display: str
    size: Size
    home: Path
    environment: dict[str, str]
    stack: ExitStack = field(repr=False)

    def start(self, *argv: str) -> None:
        """Start a program on the screen; it ends with the screen."""
        quiet = subprocess.DEVNULL
        program = subprocess.Popen(argv, env=self.environment, stdout=quiet, stderr=quiet)
        self.stack.callback(end, program)

    def run(self, *argv: str) -> None:
        """Run a short program on the screen to its end (60 s at most)."""
        quiet = subprocess.DEVNULL
        subprocess.run(argv, env=self.environment, check=True, timeout=60, stdout=quiet)

    def start_browser(self, page: str, size: Size) -> None:
        """Open Chromium at the top left corner and wait until its page is painted."""
        self.start(
            "chromium",
            *QUIET_FLAGS,
            f"--user-data-dir={self.home / 'profile'}",
            f"--window-size={size[0]},{size[1]}",
            "--window-position=0,0",
            "--test-type",  # no bar that warns of the flags above
            f"--app={self.write_page(page)}",
        )
        self.run("xdotool", "search", "--sync", "--onlyvisible", "--class", "chromium")
        time.sleep(4)  # the first paint has no event that a stranger could wait for

    def write_page(self, page: str) -> str:
        """Write HTML into the screen's home and return its URL."""
        path = self.home / "page.html"
        path.write_text(page, encoding="utf-8")
        return path.as_uri()

    def move(self, position: tuple[int, int]) -> None:
        """Put the pointer at `position`, in screen pixels."""
        self.run("xdotool", "mousemove", str(position[0]), str(position[1]))

    def grab(self, fps: int, *, pointer: bool = True) -> InputContainer:
        """Return an open grab of the screen, with or without the pointer."""
        size = f"{self.size[0]}x{self.size[1]}"
        options = {"framerate": str(fps), "video_size": size, "draw_mouse": str(int(pointer))}
        return av.open(self.display, format="x11grab", options=options)


@contextmanager
def virtual_screen(size: Size, *, theme: str, cursor_size: int) -> Iterator[Screen]:
    """Start a screen of `size` whose programs use the given cursor theme; end it all on leaving."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        display = start_server(stack, size)
        environment = {
            **os.environ,
            "DISPLAY": display,
            "HOME": folder,  # Chromium reads the theme from there, the others from the next two
            "XCURSOR_THEME": theme,
            "XCURSOR_SIZE": str(cursor_size),
        }
        chosen = Path(folder) / ".icons" / "default"
        chosen.mkdir(parents=True)
        (chosen / "index.theme").write_text(f"[Icon Theme]\nInherits={theme}\n", encoding="utf-8")
        programs = stack.enter_context(ExitStack())
        screen = Screen(display, size, Path(folder), environment, programs)
        screen.run("xsetroot", "-cursor_name", "left_ptr", "-solid", "#33515e")
        yield screen


def start_server(stack: ExitStack, size: Size) -> str:
    """Start Xvfb on a display that is free and return its name."""
    reading, writing = os.pipe()
    geometry = f"{size[0]}x{size[1]}x24"
    server = subprocess.Popen(
        [
            "Xvfb",
            "-noreset",  # a reset would forget the root window's cursor
            *("-nolisten", "tcp"),
            *("-displayfd", str(writing)),
            *("-screen", "0", geometry),
        ],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    stack.callback(end, server)
    os.close(writing)
    with os.fdopen(reading) as told:
        return f":{told.readline().strip()}"


def end(program: subprocess.Popen[bytes]) -> None:
    """End exactly this process."""
    program.terminate()
    try:
        program.wait(10)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
