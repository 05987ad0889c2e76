"""A sidecar whose turns never come to rest: it accepts interrupts and does nothing about them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer


class SilentSidecar:
    """Just enough of the API for `opencode-sidecar run`."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, str]] = []
        self.sent: list[str] = []
        self.is_running = asyncio.Event()
        self.is_interrupted = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer anything but the stream with an object that has an id."""
        self.calls.append((request.method, request.path))
        if request.path.endswith("/events/stream"):
            return await self._stream(request)
        if request.path.endswith("/events"):
            (event,) = (await request.json())["events"]
            self.sent.append(event["type"])
            if event["type"] == "user.interrupt":
                self.is_interrupted.set()
        return web.json_response({"id": "made_1"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        event = {"id": "sevt_1", "type": "session.status_running"}
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        self.is_running.set()
        while True:
            await asyncio.sleep(0.2)
            await response.write(b": silence\n\n")


@asynccontextmanager
async def silent_sidecar() -> AsyncIterator[SilentSidecar]:
    """Serve one on loopback."""
    silent = SilentSidecar()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", silent.answer)
    async with TestServer(app) as server:
        silent.url = str(server.make_url("")).rstrip("/")
        yield silent
