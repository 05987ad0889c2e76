"""Pages of a list of models, whoever's list it is: the paging parameters, the page, its bytes and tag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import hdrs, web

from sidecar.errors import InvalidRequestError
from sidecar.http.queries import query_int, query_list

MAX_LIMIT = 1000
LIFECYCLES = frozenset({"active", "deprecated", "retired"})
PAGING_PARAMETERS = frozenset({"limit", "after_id", "before_id", "lifecycle[]", "lifecycle"})

ItemOf = Callable[[str], dict[str, Any]]
"""Returns the model object of an id."""


class PageQuery:
    """The checked paging parameters. Raises InvalidRequestError."""

    def __init__(self, request: web.Request) -> None:
        has_limit = "limit" in request.query
        self._limit = (
            query_int(request, "limit", default=MAX_LIMIT, low=1, high=MAX_LIMIT)
            if has_limit
            else None
        )
        self._after = request.query.get("after_id")
        self._before = request.query.get("before_id")
        if self._after is not None and self._before is not None:
            raise InvalidRequestError(
                "after_id and before_id cannot be used together", field="before_id"
            )
        lifecycles = query_list(request, "lifecycle")
        if unknown := set(lifecycles) - LIFECYCLES:
            raise InvalidRequestError(
                f"lifecycle[]: must be active, deprecated or retired, got {sorted(unknown)[0][:80]!r}",
                field="lifecycle",
            )
        self.lifecycles = frozenset(lifecycles)
        """The wanted ones; empty means all."""

    def of(self, ids: Sequence[str], item_of: ItemOf) -> dict[str, Any]:
        """Return the page. Raises InvalidRequestError for a cursor that is not in the list."""
        start, end = 0, len(ids)
        if self._after is not None:
            start = _position(ids, self._after, "after_id") + 1
        if self._before is not None:
            end = _position(ids, self._before, "before_id")
        limit = self._limit or len(ids)
        if self._before is not None:
            first = max(start, end - limit)
            return page(ids[first:end], item_of, has_more=first > start)
        last = min(end, start + limit)
        return page(ids[start:last], item_of, has_more=last < end)


def page(ids: Sequence[str], item_of: ItemOf, *, has_more: bool) -> dict[str, Any]:
    """Return the Anthropic list; `object` is for OpenAI clients."""
    return {
        "data": [item_of(model_id) for model_id in ids],
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "object": "list",
    }


def etag_of(body: bytes) -> str:
    """Return the strong tag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def conditional(
    request: web.Request, body: bytes, etag: str, *, stale_seconds: float | None
) -> web.Response:
    """Answer the body, or 304 when the caller has it; `age` only when it is the last good one."""
    headers = {hdrs.ETAG: etag, hdrs.CACHE_CONTROL: "no-cache"}
    if stale_seconds is not None:
        headers[hdrs.AGE] = str(int(stale_seconds))
    if _matches(request.headers.get(hdrs.IF_NONE_MATCH, ""), etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers, content_type="application/json")


def _position(ids: Sequence[str], cursor: str, field: str) -> int:
    try:
        return ids.index(cursor)
    except ValueError:
        raise InvalidRequestError(
            f"{field}: {cursor[:200]!r} is not in the list; use an id of the page before",
            field=field,
        ) from None


def _matches(if_none_match: str, etag: str) -> bool:
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in offered or "*" in offered
