"""A SearXNG instance as LiteLLM asks one: `GET /search?q=...&format=json`. It knows no domain filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

PAGES = ("https://docs.example.com/guide", "https://evil.test/page")


@dataclass(slots=True)
class SearxNG:
    """Where it is, and what it was asked."""

    url: str = ""
    queries: list[dict[str, str]] = field(default_factory=list)


@asynccontextmanager
async def searxng() -> AsyncIterator[SearxNG]:
    """Run it."""
    fake = SearxNG()

    async def search(request: web.Request) -> web.Response:
        fake.queries.append(dict(request.query))
        results = [
            {"title": f"About {request.query['q']}", "url": url, "content": "What was found."}
            for url in PAGES
        ]
        return web.json_response({"query": request.query["q"], "results": results})

    app = web.Application()
    app.router.add_get("/search", search)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()
