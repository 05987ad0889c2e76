"""The two shapes in which Anthropic, the sidecar and LiteLLM list models.

Anthropic: `{"data": [{"type": "model", "id", "display_name", "created_at", ...}], "has_more",
"first_id", "last_id"}`. OpenAI: `{"object": "list", "data": [{"id", "object": "model", "created",
"owned_by", ...}]}`, to which LiteLLM adds `mode`, `max_input_tokens` and `max_output_tokens` per item.
One reader takes both, and the sidecar's superset of the two.
"""

from __future__ import annotations

from typing import Any

from sidecar.sdk.errors import BadAnswerError
from sidecar.sdk.models import ModelInfo
from sidecar.sdk.paging import Fetched, Walked, walk
from sidecar.sdk.runtime import path_segment
from sidecar.sdk.transport import Upstream
from sidecar.wire.litellm import LITELLM_CREATED, items_of
from sidecar.wire.scalars import read_flag, read_whole


async def walk_anthropic(
    upstream: Upstream, *, headers: dict[str, str], limit: int | None = None
) -> Walked:
    """Walk `GET /v1/models` by `after_id`; `limit` items a page, None for the server's choice."""

    async def fetch(cursor: str | None) -> Fetched:
        query = {} if limit is None else {"limit": str(limit)}
        if cursor is not None:
            query["after_id"] = cursor
        body = await upstream.get_json("/v1/models", query=query, headers=headers)
        items = data_of(upstream.runtime, body)
        has_more = isinstance(body, dict) and read_flag(body.get("has_more")) is True
        return Fetched(items, body.get("last_id") if has_more and items else None)

    return await walk(fetch, max_pages=upstream.policy.max_pages, runtime=upstream.runtime)


async def fetch_anthropic(
    upstream: Upstream, model_id: str, *, headers: dict[str, str]
) -> ModelInfo:
    """Read `GET /v1/models/{id}`."""
    path = f"/v1/models/{path_segment(upstream.runtime, model_id)}"
    item = await upstream.get_json(path, headers=headers)
    model = read_item(item, runtime=upstream.runtime)
    if model is None:
        raise BadAnswerError("the answer is not a model: it has no id", runtime=upstream.runtime)
    return model


def data_of(runtime: str, body: Any) -> list[Any]:
    """Return the array of items, as the sidecar reads it. Raises BadAnswerError when there is none."""
    items = items_of(body)
    if items is None:
        raise BadAnswerError(
            "the answer is JSON and not a list of models: it has no 'data' array",
            runtime=runtime,
        )
    return items


def read_item(item: Any, *, runtime: str) -> ModelInfo | None:
    """Read one item of either shape, or an id alone; what only OpenAI's names have is moved to Anthropic's
    names."""
    if not isinstance(item, dict | str):
        return None
    fields = {"id": item} if isinstance(item, str) else dict(item)
    if fields.get("created_at") is None:
        created = fields.get("created")
        fields["created_at"] = None if read_whole(created) == LITELLM_CREATED else created
    if fields.get("max_tokens") is None:
        fields["max_tokens"] = fields.get("max_output_tokens")
    return ModelInfo.read(fields, runtime=runtime, raw=item)
