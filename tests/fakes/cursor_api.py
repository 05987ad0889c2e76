"""A small server shaped like Cursor's Cloud Agents API: v1 with objects or strings, and v0.

Source: Cursor's endpoint documentation; `{"error", "message"}` for errors.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.anthropic_api import VendorFake

V1_OBJECTS: list[dict[str, Any]] = [
    {
        "id": "claude-4.5-opus-high-thinking",
        "displayName": "Claude 4.5 Opus (thinking)",
        "description": "Deep reasoning",
        "aliases": ["opus", "opus-4.5"],
        "parameters": [
            {
                "id": "effort",
                "displayName": "Effort",
                "values": [{"value": "low"}, {"value": "high", "displayName": "High"}],
            }
        ],
        "variants": [
            {
                "params": [{"id": "effort", "value": "high"}],
                "displayName": "High",
                "isDefault": True,
            }
        ],
    },
    {"id": "gpt-5.2", "displayName": "GPT-5.2"},
]


@dataclass
class CursorApi(VendorFake):
    """Serves `items` on v1 (None: 404, as before v1 existed) and `v0_models` on v0.

    `page_size` turns on `nextCursor`; `schemes` are the ways in which the key is accepted.
    """

    key: str = "cur_right-key"
    items: list[Any] | None = field(default_factory=lambda: list(V1_OBJECTS))
    v0_models: list[Any] = field(default_factory=list)
    page_size: int | None = None
    schemes: frozenset[str] = frozenset({"basic", "bearer"})

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self._v1)
        app.router.add_get("/v0/models", self._v0)

    def _is_allowed(self, request: web.Request) -> bool:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in self.schemes:
            return False
        if scheme.lower() == "bearer":
            return rest == self.key
        return base64.b64decode(rest) == f"{self.key}:".encode()

    async def _v1(self, request: web.Request) -> web.Response:
        if not self._is_allowed(request):
            return _error(401, "unauthorized", "Invalid User API Key")
        if self.items is None:
            return _error(404, "not_found", "Not found")
        if self.page_size is None:
            return web.json_response({"items": self.items})
        start = int(request.query.get("cursor", "0"))
        end = start + self.page_size
        body: dict[str, Any] = {"items": self.items[start:end]}
        if end < len(self.items):
            body["nextCursor"] = str(end)
        return web.json_response(body)

    async def _v0(self, request: web.Request) -> web.Response:
        if not self._is_allowed(request):
            return _error(401, "unauthorized", "Invalid User API Key")
        return web.json_response({"models": self.v0_models})


def _error(status: int, error: str, message: str) -> web.Response:
    return web.json_response({"error": error, "message": message}, status=status)
