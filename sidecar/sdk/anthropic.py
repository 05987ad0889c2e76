"""The `anthropic` runtime: Anthropic's own Models API.

Source: `GET /v1/models?limit<=1000&after_id=...`, newest first, default limit 20; `GET
/v1/models/{id}`; errors `{"type": "error", "error": {"type", "message"}, "request_id"}`.
"""

from __future__ import annotations

from sidecar.sdk.endpoints import Endpoint, header
from sidecar.sdk.models import ModelInfo, ModelPage
from sidecar.sdk.paging import make_page
from sidecar.sdk.runtime import Runtime
from sidecar.sdk.shapes import fetch_anthropic, read_item, walk_anthropic
from sidecar.sdk.transport import Upstream

_HEADERS = {"anthropic-version": "2023-06-01"}
_LARGEST_LIMIT = 1000


class AnthropicRuntime(Runtime):
    """`ANTHROPIC_API_KEY`, and `ANTHROPIC_BASE_URL` for something that speaks the same API."""

    name = "anthropic"
    endpoints = (
        Endpoint(
            name="anthropic",
            key_variable="ANTHROPIC_API_KEY",
            base_url_variable="ANTHROPIC_BASE_URL",
            default_base_url="https://api.anthropic.com",
            authorise=header("x-api-key"),
        ),
    )

    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Walk all pages."""
        walked = await walk_anthropic(upstream, headers=_HEADERS, limit=_LARGEST_LIMIT)
        return make_page(
            self.name,
            walked.items,
            lambda item: read_item(item, runtime=self.name),
            has_more=walked.has_more,
        )

    async def retrieve_model(self, upstream: Upstream, model_id: str) -> ModelInfo:
        """Ask for the one model; ids and Anthropic's own aliases are known there."""
        return await fetch_anthropic(upstream, model_id, headers=_HEADERS)
