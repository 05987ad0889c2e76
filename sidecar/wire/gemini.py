"""Google's Gemini API, as far as it lists models.

Source: `GET /v1beta/models?pageSize<=1000&pageToken=...` answers `{"models": [{"name": "models/...",
"displayName", "inputTokenLimit", "outputTokenLimit", "supportedGenerationMethods": [...]}],
"nextPageToken"}`. Errors are `{"error": {"code", "message", "status", "details": [{"reason"}]}}`; a
wrong key is a 400 with the reason `API_KEY_INVALID`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Wire(BaseModel):
    model_config = ConfigDict(
        extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


class GeminiModel(_Wire):
    """One model. `name` is `models/<id>`; limits are tokens."""

    name: str = Field(min_length=1)
    display_name: Any = None
    input_token_limit: Any = None
    output_token_limit: Any = None
    supported_generation_methods: Any = None


class GeminiModels(_Wire):
    """`GET /v1beta/models`; the last page has no `nextPageToken`. `models` is absent when empty."""

    models: list[Any] = Field(default_factory=list)
    next_page_token: Any = None
    """A text; anything else ends the walk."""
