"""A small server shaped like Google's Gemini API: `GET /v1beta/models` with page tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.anthropic_api import VendorFake

MODELS: list[dict[str, Any]] = [
    {
        "name": "models/gemini-2.5-pro",
        "displayName": "Gemini 2.5 Pro",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    },
    {
        "name": "models/gemini-embedding-001",
        "displayName": "Gemini Embedding",
        "inputTokenLimit": 2048,
        "outputTokenLimit": 1,
        "supportedGenerationMethods": ["embedContent"],
    },
    {"name": "models/gemini-flash-latest", "supportedGenerationMethods": ["generateContent"]},
]


@dataclass
class GeminiApi(VendorFake):
    """Serves `models`, `page_size` at a time; a wrong key is a 400, as at Google."""

    key: str = "AIza-right"
    models: list[Any] = field(default_factory=lambda: list(MODELS))
    page_size: int = 50

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1beta/models", self._list)

    async def _list(self, request: web.Request) -> web.Response:
        if request.headers.get("x-goog-api-key") != self.key:
            error = {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
            }
            return web.json_response({"error": error}, status=400)
        start = int(request.query.get("pageToken", "0"))
        end = start + self.page_size
        body: dict[str, Any] = {"models": self.models[start:end]}
        if end < len(self.models):
            body["nextPageToken"] = str(end)
        return web.json_response(body)
