"""A gateway that answers fixed bodies per path, for the odd things real gateways say."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from aiohttp import web


@dataclass
class Fixed:
    """One answer. A non-string body is sent as JSON."""

    body: Any = ""
    status: int = 200
    content_type: str = "application/json"


class FixedGateway:
    """`answers[path]` is sent for that path, with any query that has no answer of its own, 404 for all
    others; `hits` counts requests per path.

    Clearing `is_open` makes every request wait until it is set again.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Fixed] = {}
        self.hits: Counter[str] = Counter()
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self.is_open.set()
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.hits[request.path] += 1
        await self.is_open.wait()
        missing = Fixed({"detail": "Not Found"}, 404)
        fixed = self.answers.get(request.path_qs) or self.answers.get(request.path, missing)
        text = fixed.body if isinstance(fixed.body, str) else json.dumps(fixed.body)
        return web.Response(text=text, status=fixed.status, content_type=fixed.content_type)


def model_list(*ids: str, **fields: Any) -> Fixed:
    """Return an OpenAI-shaped list of chat models."""
    data = [{"id": i, "object": "model", "created": 0, "mode": "chat", **fields} for i in ids]
    return Fixed({"object": "list", "data": data})
