"""Take screenshots with headless Chromium; called by the scripts that need real page pixels.

The surprise: every call starts a fresh browser on an empty profile, with all background
traffic switched off, so that a screenshot never depends on the one before or on a network.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

QUIET_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=Translate,MediaRouter,OptimizationHints",
    "--password-store=basic",
)


def screenshot(page: Path | str, out: Path, *, size: tuple[int, int], scale: float = 1.0) -> None:
    """Write a PNG of `page` (a file or a URL), `size` CSS pixels wide and high.

    Raises:
        subprocess.SubprocessError: the browser failed or took longer than 60 s.
        FileNotFoundError: Chromium is not installed, or it wrote no picture.
    """
    url = page if isinstance(page, str) else page.resolve().as_uri()
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                "chromium",
                "--headless",
                *QUIET_FLAGS,
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--window-size={size[0]},{size[1]}",
                f"--force-device-scale-factor={scale}",
                f"--screenshot={out}",
                url,
            ],
            check=True,
            timeout=60,
            capture_output=True,
        )
    if not out.is_file():
        raise FileNotFoundError(f"Chromium wrote no screenshot of {url}")
