"""Takes the README's picture of the console: a sidecar over the demo gateway, a browser, some work.

python -m tools.screenshot     (needs Debian's chromium on PATH: make browser)
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from pathlib import Path

from playwright.async_api import Page

from tests.chromium import chromium
from tests.harness import http_client
from tests.raw_client import RawClient
from tests.sidecar_process import serving

IMAGES = Path(__file__).parents[1] / "docs" / "images"
_KEY = "a-key-for-the-picture"
_WIDTH, _HEIGHT = 1180, 860
_QUALITY = 85
_MODELS = ("openai/gpt-4o", "claude-sonnet-4-5", "ollama/qwen3:8b")
_MESSAGES = (
    "Hello!",
    "$ ls -la",
    "[[slow: 6x0.1 tick]]",
    "[[bash: sleep 2]] [[then]] [[say: Done.]]",
    "[[slow: 20x0.2 tick]]",
    "[[error: 400]]",
    "$ uname -a",
    "[[think: Let me see.]] [[say: It is done.]]",
)
_ROUNDS = 3
_PAUSE_SECONDS = 20.0
"""Between two rounds: the chart has a time axis."""
_FIRST = "Hello! What can you do here?"
_LAST = "Which files are there, and how long are they?\n$ ls -la && wc -l *.py"


async def _work(raw: RawClient) -> None:
    for number in range(_ROUNDS):
        sessions = [await raw.new_session(model=model, name="coder") for model in _MODELS]
        for place, message in enumerate(_MESSAGES):
            await raw.turn(sessions[place % len(sessions)], message)
        if number + 1 < _ROUNDS:
            await asyncio.sleep(_PAUSE_SECONDS)


async def _save(page: Page, name: str) -> None:
    """Save what is seen as WebP, which Playwright itself does not write."""
    session = await page.context.new_cdp_session(page)
    shot = await session.send("Page.captureScreenshot", {"format": "webp", "quality": _QUALITY})
    (IMAGES / name).write_bytes(base64.b64decode(shot["data"]))


async def main() -> None:
    """Write docs/images/console-*.webp."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "DATA_DIR": directory,
            "PORT": "0",
            "SIDECAR_ADMIN_PORT": "0",
            "HOST": "127.0.0.1",
        }
        async with (
            serving(RUNTIME_API_KEY=_KEY, **settings) as sidecar,
            chromium() as browser,
            http_client(await sidecar.url(), _KEY) as http,
        ):
            url = await sidecar.url()
            await sidecar.logged("child ready")
            raw = RawClient(http)
            await _work(raw)
            page = await browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
            await page.goto(f"{url}/console")
            await page.get_by_label("Key").fill(_KEY)
            await page.get_by_role("button", name="Sign in").click()
            await page.locator("path.dot").first.wait_for(state="attached")
            await _save(page, "console-status.webp")
            await page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT + 100})
            await page.goto(f"{url}/console/try")
            await page.get_by_label("Message").fill(_FIRST)
            await page.get_by_role("button", name="Start").click()
            await page.get_by_text("turn ended").wait_for()
            await page.get_by_label("Message").fill(_LAST)
            await page.get_by_role("button", name="Send").click()
            await page.locator("#pending button").first.wait_for()
            await _save(page, "console-session.webp")


if __name__ == "__main__":
    asyncio.run(main())
