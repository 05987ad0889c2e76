"""A web site on loopback, with the pages that fetching has to get right."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

PAGE = """<!doctype html><html><head><title>The Title</title><style>p {color: red}</style></head>
<body><script>var hidden = 1</script>
<h2>Heading</h2><p>Some <b>bold</b> text &amp; a <a href="/next?a=1">link</a>.</p>
<ul><li>one</li><li>two</li></ul>
<pre><code>x = 1</code></pre>
<img src="data:image/png;base64,AAAA"></body></html>
"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR4nGP4z8AARwzEcQCukw/x0F8j"
    "ngAAAABJRU5ErkJggg=="
)
"""Four by four red points: opencode decodes images."""


@dataclass(slots=True)
class Site:
    """Where it is, and what was asked of it."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str, host: str = "localhost") -> str:
        """Return a URL of the site."""
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def web_site() -> AsyncIterator[Site]:
    """Run the site on every loopback address."""
    site = Site()

    async def answer(request: web.Request) -> web.StreamResponse:
        site.asked.append(f"{request.url.host}{request.path}")
        site.headers.append({k.lower(): v for k, v in request.headers.items()})
        name = request.path.strip("/")
        if name == "to":
            return web.Response(status=302, headers={"Location": request.query["url"]})
        if name == "loop":
            return web.Response(status=302, headers={"Location": "/loop"})
        if name == "large":
            return web.Response(body=b"x" * 3_000_000, content_type="text/plain")
        if name == "bomb":
            response = web.Response(body=b"0" * 50_000_000, content_type="text/plain")
            response.enable_compression(web.ContentCoding.gzip)
            return response
        if name == "silent":
            await asyncio.sleep(60)
        if name == "deep":
            return web.Response(text="<div>" * 5000 + "found it", content_type="text/html")
        if name == "monster":
            return web.Response(text="<b><i><a>" * 500_000, content_type="text/html")
        if name == "latin":
            body = "<p>caf\u00e9</p>".encode("latin-1")
            return web.Response(body=body, headers={"Content-Type": "text/html; charset=latin-1"})
        if name == "image":
            return web.Response(body=PNG, content_type="image/png")
        if name == "zip":
            return web.Response(body=b"PK\0\0", content_type="application/zip")
        if name == "json":
            return web.json_response({"a": 1})
        if name == "gone":
            return web.Response(status=404)
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 0).start()
    site.port = runner.addresses[0][1]
    try:
        yield site
    finally:
        await runner.cleanup()
