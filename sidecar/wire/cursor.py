"""Cursor's Cloud Agents API, as far as it lists models.

Source: Cursor's endpoint documentation. v1 (`GET /v1/models`) answers `{"items": [...]}` with objects;
early v1 pages had plain strings there. v0 (`GET /v0/models`, legacy) answers `{"models": ["id", ...]}`.
No paging is documented; `nextCursor`, which Cursor's other v1 lists have, is tolerated. Errors are
`{"error", "message"}`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Wire(BaseModel):
    model_config = ConfigDict(
        extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


class CursorModel(_Wire):
    """One model object of v1. `parameters` and `variants` stay as they are: callers pass them back."""

    id: str = Field(min_length=1)
    display_name: Any = None
    description: Any = None
    aliases: Any = None
    parameters: Any = None
    variants: Any = None


class CursorModelsV1(_Wire):
    """`GET /v1/models`. Items are objects or strings; each is read on its own."""

    items: list[Any]
    next_cursor: Any = None
    """A text; anything else ends the walk."""


class CursorModelsV0(_Wire):
    """`GET /v0/models`."""

    models: list[Any]
