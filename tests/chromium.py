"""Debian's Chromium, driven by Playwright: for tests that look at pages as people do."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without windows. It must not be started by a sidecar: agents' programs are refused."""
    program = shutil.which("chromium")
    assert program, "Chromium is needed on PATH: `make browser` installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            await browser.close()
