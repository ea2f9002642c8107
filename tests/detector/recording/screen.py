"""A real X screen without a monitor, with real programs on it; the recorder films it.

Surprise: every program shows the plain arrow everywhere. The shipped weights mostly miss hands and
I-beams (docs/model-card.md), and what is proved with this screen is the service, not the weights.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer

from tests.browser import FLAGS

THEME, CURSOR_PX = "Adwaita", 48  # a theme the weights were never trained on
PROGRAM_S = 30.0

# Text in bursts, so that some samples of a film change and others do not.
SCROLLING = """
i=0
while :; do
    i=$((i + 1))
    echo frame $i latency $((i * 37 % 91)) ms queue $((i % 9))
    sleep $((i % 12 ? 0 : 2)).3
done
"""
ROWS = "".join(
    f"<tr><td>worker-{row}</td><td>{row * 37 % 91} ms</td><td>{'ready' if row % 3 else 'busy'}</td>"
    "</tr>"
    for row in range(14)
)
PAGE = f"""<!doctype html><meta charset=utf-8><title>workers</title><style>
* {{ cursor: default }}
body {{ margin: 18px; font: 15px sans-serif; background: #f4f5f7; color: #1d2733 }}
table {{ border-collapse: collapse; background: #fff }}
td {{ border: 1px solid #ccd3da; padding: 5px 22px }}
</style><h2>Workers</h2><table>{ROWS}</table>"""


@dataclass(frozen=True)
class Programs:
    """Paths of the programs that a screen needs; scripts/setup.sh screen installs them."""

    xvfb: str
    xdotool: str
    xterm: str
    chromium: str


@dataclass(frozen=True)
class Screen:
    """A running screen of ``size`` (width, height in pixels)."""

    display: str
    size: tuple[int, int]
    xdotool: str
    environment: Mapping[str, str]

    def move(self, x: int, y: int) -> None:
        """Put the pointer's hot spot on a pixel; it is there when this returns."""
        self.ask("mousemove", str(x), str(y))

    def ask(self, *words: str) -> None:
        """Run xdotool to its end.

        Raises:
            subprocess.SubprocessError: it failed, or the screen does not answer.
        """
        subprocess.run(
            [self.xdotool, *words],
            env=self.environment,
            check=True,
            timeout=PROGRAM_S,
            stdout=subprocess.DEVNULL,
        )

    def grab(self, fps: int) -> InputContainer:
        """Return an open grab of what the screen shows, pointer included."""
        size = f"{self.size[0]}x{self.size[1]}"
        options = {"framerate": str(fps), "video_size": size, "draw_mouse": "1"}
        return av.open(self.display, format="x11grab", options=options)


@contextmanager
def busy_screen(programs: Programs, size: tuple[int, int], home: Path) -> Iterator[Screen]:
    """Start a screen with a page in Chromium and a terminal whose text scrolls; end it all."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),  # Chromium reads the theme from there, xterm from the next two
        "XCURSOR_THEME": THEME,
        "XCURSOR_SIZE": str(CURSOR_PX),
    }
    theme = home / ".icons" / "default"
    theme.mkdir(parents=True)
    (theme / "index.theme").write_text(f"[Icon Theme]\nInherits={THEME}\n", encoding="utf-8")
    (home / "page.html").write_text(PAGE, encoding="utf-8")
    with ExitStack() as stack:
        environment["DISPLAY"] = stack.enter_context(_server(programs.xvfb, size))
        screen = Screen(environment["DISPLAY"], size, programs.xdotool, environment)
        stack.enter_context(_running(environment, programs.chromium, *_page(size, home)))
        screen.ask("search", "--sync", "--onlyvisible", "--name", "workers")
        stack.enter_context(_running(environment, programs.xterm, *_terminal(size)))
        screen.ask("search", "--sync", "--onlyvisible", "--class", "xterm")
        yield screen


def _page(size: tuple[int, int], home: Path) -> tuple[str, ...]:
    return (
        *FLAGS,
        "--test-type",  # no bar that warns of the flags
        "--window-position=0,0",
        f"--window-size={size[0]},{size[1]}",
        f"--user-data-dir={home / 'profile'}",
        f"--app={(home / 'page.html').as_uri()}",
    )


def _terminal(size: tuple[int, int]) -> tuple[str, ...]:
    at = f"48x24+{size[0] // 2}+{size[1] // 5}"
    arrow = ("-xrm", "XTerm*pointerShape: left_ptr")
    return (*arrow, "-geometry", at, "-e", "sh", "-c", SCROLLING)


@contextmanager
def _server(xvfb: str, size: tuple[int, int]) -> Iterator[str]:
    """Start an X server on any display that is free; give its name."""
    reading, writing = os.pipe()
    told = ("-displayfd", str(writing), "-screen", "0", f"{size[0]}x{size[1]}x24")
    argv = (xvfb, "-noreset", "-nolisten", "tcp", *told)
    with os.fdopen(reading) as answer, _ended(_start(argv, None, keep=(writing,))):
        os.close(writing)
        yield f":{answer.readline().strip()}"


@contextmanager
def _running(environment: Mapping[str, str], *argv: str) -> Iterator[None]:
    with _ended(_start(argv, environment)):
        yield


def _start(
    argv: tuple[str, ...], environment: Mapping[str, str] | None, keep: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(argv, env=environment, stdout=quiet, stderr=quiet, pass_fds=keep)


@contextmanager
def _ended(program: subprocess.Popen[bytes]) -> Iterator[None]:
    with program:
        try:
            yield
        finally:
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
