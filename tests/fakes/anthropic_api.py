"""A small server shaped like Anthropic's Models API; also holds the faults that all vendor fakes share.

Source: contracts of `GET /v1/models` (pages by `after_id`, `limit` up to 1000) and of its errors.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(frozen=True)
class Fault:
    """One answer in place of the regular one; `hangs` sends headers never."""

    status: int = 500
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    hangs: bool = False


HTML_PAGE = Fault(200, "<!doctype html><title>Sign in</title>", content_type="text/html")
NOT_JSON = Fault(200, "{'data': [}", content_type="application/json")


@dataclass
class VendorFake:
    """Faults first, then regular answers; every request is kept."""

    faults: deque[Fault] = field(default_factory=deque)
    requests: list[web.Request] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._script])
        app.on_shutdown.append(self._release)
        self.add_routes(app)
        return app

    def add_routes(self, app: web.Application) -> None:
        raise NotImplementedError

    def release(self) -> None:
        """Let hanging answers go."""
        self._released.set()

    async def _release(self, _app: web.Application) -> None:
        self.release()

    @web.middleware
    async def _script(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(request)
        self.arrived.set()
        if not self.faults:
            return await handler(request)
        fault = self.faults.popleft()
        if fault.hangs:
            self.hanging.set()
            await self._released.wait()
        return web.Response(
            status=fault.status,
            text=fault.body,
            headers=fault.headers,
            content_type=fault.content_type,
        )


@contextmanager
def serving_in_a_thread(fake: VendorFake) -> Iterator[str]:
    """Serve from a loop of its own, for tests that block theirs; yields the base URL."""
    started = threading.Event()
    state: dict[str, Any] = {}

    async def main() -> None:
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with TestServer(fake.app()) as server:
            state["url"] = str(server.make_url("/")).rstrip("/")
            started.set()
            await state["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    started.wait()
    try:
        yield state["url"]
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join()


def anthropic_error(kind: str, message: str) -> str:
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    )


def anthropic_model(model_id: str, **more: Any) -> dict[str, Any]:
    """One item with every field that the hosted API sends."""
    yes = {"supported": True}
    capabilities = {
        "batch": yes,
        "citations": yes,
        "code_execution": yes,
        "image_input": yes,
        "pdf_input": yes,
        "structured_outputs": yes,
        "context_management": {**yes, "compact_20260112": yes},
        "effort": {**yes, "low": yes, "medium": yes, "high": yes, "max": yes, "xhigh": None},
        "server_tools": {**yes, "code_execution": yes, "web_search": yes},
        "thinking": {
            **yes,
            "types": {"adaptive": yes, "between_tools": yes, "disabled": yes, "enabled": yes},
        },
    }
    return {
        "type": "model",
        "id": model_id,
        "display_name": model_id.replace("-", " ").title(),
        "created_at": "2026-02-03T04:05:06Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": capabilities,
        "line": "opus",
        "deprecated_at": None,
        "retires_at": None,
        **more,
    }


@dataclass
class AnthropicApi(VendorFake):
    """`models` are served in pages; with `repeats_cursor` the second page is served again and again."""

    key: str = "sk-ant-right"
    models: list[Any] = field(default_factory=list)
    largest_limit: int = 1000
    repeats_cursor: bool = False

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self._list)
        app.router.add_get("/v1/models/{id}", self._retrieve)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("x-api-key") == self.key and "anthropic-version" in request.headers:
            return None
        return web.Response(
            status=401,
            text=anthropic_error("authentication_error", "invalid x-api-key"),
            headers={"request-id": "req_401"},
            content_type="application/json",
        )

    async def _list(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        limit = min(int(request.query.get("limit", "20")), self.largest_limit)
        ids = [m["id"] if isinstance(m, dict) else None for m in self.models]
        after = request.query.get("after_id")
        start = ids.index(after) + 1 if after in ids else 0
        if self.repeats_cursor and after is not None:
            start = limit
        data = self.models[start : start + limit]
        has_more = start + limit < len(self.models) or self.repeats_cursor
        edges = [m["id"] for m in data if isinstance(m, dict)]
        body = {
            "data": data,
            "has_more": has_more,
            "first_id": edges[0] if edges else None,
            "last_id": edges[-1] if edges else None,
        }
        return web.json_response(body, headers={"request-id": "req_list"})

    async def _retrieve(self, request: web.Request) -> web.Response:
        if refusal := self._refusal(request):
            return refusal
        for model in self.models:
            if model["id"] == request.match_info["id"]:
                return web.json_response(model)
        text = anthropic_error("not_found_error", f"model: {request.match_info['id']}")
        return web.Response(status=404, text=text, content_type="application/json")
