"""A real Chromium for tests that must see what a person sees: Debian's own, driven by Playwright.

Surprise: Playwright brings no browser here; it drives the one that is on PATH, over a pipe. As root
Chromium has no sandbox, so it is only ever shown our own pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable")
FLAGS = (
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
    "--password-store=basic",
)


@asynccontextmanager
async def chromium(path: str) -> AsyncIterator[Browser]:
    """Start the Chromium at ``path`` without a window, on an empty profile; end it on leaving.

    Raises:
        playwright.async_api.Error: it does not start.
    """
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=path,
            args=[*FLAGS, "--autoplay-policy=no-user-gesture-required"],
            chromium_sandbox=False,
        )
        try:
            yield browser
        finally:
            await browser.close()
