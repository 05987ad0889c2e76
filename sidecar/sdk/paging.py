"""Walking a paged list within bounds, and making the one page that callers get."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sidecar.sdk.errors import BadAnswerError
from sidecar.sdk.models import ModelInfo, ModelPage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One foreign page: its items, and the cursor of the next page; no text means the end."""

    items: list[Any]
    next_cursor: object


@dataclass(frozen=True, slots=True)
class Walked:
    """All items of all pages; `has_more` when the bound ended the walk."""

    items: list[Any]
    has_more: bool


async def walk(
    fetch: Callable[[str | None], Awaitable[Fetched]], *, max_pages: int, runtime: str
) -> Walked:
    """Call `fetch(None)`, then `fetch(cursor)`, until no cursor comes, one repeats, or the bound."""
    items: list[Any] = []
    seen: set[str] = set()
    cursor: str | None = None
    for _ in range(max_pages):
        page = await fetch(cursor)
        items += page.items
        cursor = page.next_cursor if isinstance(page.next_cursor, str) else None
        if not cursor:
            return Walked(items, has_more=False)
        if cursor in seen:
            _log.warning("%s repeats a page cursor; the list ends there", runtime)
            return Walked(items, has_more=False)
        seen.add(cursor)
    _log.warning("%s has more than %d pages; the list is cut", runtime, max_pages)
    return Walked(items, has_more=True)


def make_page(
    runtime: str,
    items: Iterable[Any],
    read: Callable[[Any], ModelInfo | None],
    *,
    has_more: bool = False,
) -> ModelPage:
    """Read every item, drop repeated ids, and skip items without an id (`read` returns None).

    Raises BadAnswerError when there are items and none is usable: an empty picker would hide that.
    """
    models: dict[str, ModelInfo] = {}
    skipped = 0
    for item in items:
        model = read(item)
        if model is None:
            skipped += 1
        else:
            models.setdefault(model.id, model)
    if skipped and not models:
        raise BadAnswerError(f"none of the {skipped} listed items has an id", runtime=runtime)
    if skipped:
        _log.warning("%s: %d listed items without an id were skipped", runtime, skipped)
    ids = list(models)
    return ModelPage(
        data=tuple(models.values()),
        has_more=has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        runtime=runtime,
    )
