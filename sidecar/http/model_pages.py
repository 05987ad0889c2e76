"""Pages of any list of models: the paging parameters, the page, its bytes and tag."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

from aiohttp import hdrs, web
from pydantic import Field, model_validator

from sidecar.errors import InvalidRequestError
from sidecar.http.operations import Content, HeaderParameter
from sidecar.http.queries import MAX_VALUES, Flag, LargeLimit, OneOf, QueryModel

IF_NONE_MATCH = HeaderParameter("if-none-match", "The `etag` of the answer that the caller has.")
CONDITIONAL = {304: Content("The caller has it already.", headers=("etag", "age"))}

ItemOf = Callable[[str], dict[str, Any]]
"""Returns the model object of an id."""


class ModelsQuery(QueryModel):
    """Which models are listed. Without `limit` the page holds all of them: LAP reads one page."""

    limit: LargeLimit | None = Field(None, description="the most models of a page")
    after_id: str | None = Field(None, description="the page after this model")
    before_id: str | None = Field(None, description="the page before this model")
    lifecycles: Annotated[
        list[Annotated[str, OneOf(("active", "deprecated", "retired"))]],
        Field(max_length=MAX_VALUES),
    ] = Field(default_factory=list, alias="lifecycle[]", description="only of these; all if none")
    refresh: Flag = Field(
        False, description="read the gateway first; the last good list is served when that fails"
    )
    runtime: str | None = Field(
        None,
        description="the list of another runtime, such as `cursor`; `opencode` is this one's own",
    )

    @model_validator(mode="after")
    def _one_cursor(self) -> Self:
        if self.after_id is not None and self.before_id is not None:
            raise ValueError("after_id and before_id cannot be used together")
        return self

    def of(self, ids: Sequence[str], item_of: ItemOf) -> dict[str, Any]:
        """Return the page. Raises InvalidRequestError for a cursor that is not in the list."""
        start, end = 0, len(ids)
        if self.after_id is not None:
            start = _position(ids, self.after_id, "after_id") + 1
        if self.before_id is not None:
            end = _position(ids, self.before_id, "before_id")
        limit = self.limit or len(ids)
        if self.before_id is not None:
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
