"""The part of LAP that runtimes are registered with: aliases are unique, keys are required."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

MASTER_KEY = "master-key-of-the-fake-lap"


class FakeLap:
    """`runtimes` holds what is registered; `calls` the method and path of every call but `/health`."""

    def __init__(self, *, unwell_checks: int = 0) -> None:
        self.runtimes: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self._unwell_checks = unwell_checks
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_post("/api/runtime-harnesses", self._create)
        app.router.add_put("/api/runtime-harnesses/{alias}", self._update)
        self._server = TestServer(app)

    async def __aenter__(self) -> FakeLap:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def _health(self, _request: web.Request) -> web.Response:
        self._unwell_checks -= 1
        return web.Response(status=200 if self._unwell_checks < 0 else 503)

    async def _create(self, request: web.Request) -> web.Response:
        body = await self._authorized(request)
        if set(body) != {"alias", "api_spec", "api_base", "api_key"} or not body["api_key"]:
            return web.json_response({"error": "fields"}, status=422)
        if body["alias"] in self.runtimes:
            return web.json_response({"error": "alias exists"}, status=400)
        self.runtimes[body["alias"]] = body
        return web.json_response(body, status=201)

    async def _update(self, request: web.Request) -> web.Response:
        body = await self._authorized(request)
        known = self.runtimes.get(request.match_info["alias"])
        if known is None:
            return web.json_response({"error": "no such alias"}, status=404)
        if set(body) != {"api_base", "api_key"}:
            return web.json_response({"error": "fields"}, status=422)
        known.update(body)
        return web.json_response(known)

    async def _authorized(self, request: web.Request) -> dict[str, Any]:
        self.calls.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {MASTER_KEY}":
            raise web.HTTPUnauthorized(text='{"error": "master key"}')
        body: dict[str, Any] = await request.json()
        return body
