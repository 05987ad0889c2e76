"""`/v1/models`: served from memory, never from the child, and last good when the gateway is away."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import hdrs, web

from sidecar.errors import (
    GatewayError,
    GatewayUnavailableError,
    InvalidRequestError,
    NotFoundError,
)
from sidecar.gateway.catalogue import Catalogue, CatalogueSnapshot
from sidecar.http.answers import query_bool, query_int, query_list
from sidecar.http.model_info import model_info

MAX_LIMIT = 1000
LIFECYCLES = frozenset({"active", "deprecated", "retired"})

_PARAMETERS = frozenset({"limit", "after_id", "before_id", "lifecycle[]", "lifecycle", "refresh"})
_FIRST_LIST_SECONDS = 2.5
"""How long a caller waits for the very first list. Claude Code gives up after 3 s."""
_RETRY_AFTER_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class ModelsApi:
    """The Models API. Without `limit` the page holds everything: LAP reads one page and sends none."""

    def __init__(self, *, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._whole: tuple[int, bytes, str] | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes. The id may hold slashes, raw or encoded."""
        return [
            web.get("/v1/models", self.list),
            web.get("/v1/models/{id:.+}", self.retrieve),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/models?limit=&after_id=&before_id=&lifecycle[]=`.

        `refresh=true` is ours: read the gateway first, sharing a read under way; when that fails the last
        good list is served as always.
        """
        if not _PARAMETERS & request.query.keys():
            snapshot = self._catalogue.snapshot or await self._first()
            body, etag = self._whole_page(snapshot)
            return self._answer(request, body, etag)
        page = _PageQuery(request)
        if query_bool(request, "refresh"):
            await self._refresh()
        snapshot = self._catalogue.snapshot or await self._first()
        body = _encode(page.of(snapshot))
        return self._answer(request, body, _etag(body))

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/models/{id}`: an id, an alias, or either with `litellm/` before it."""
        snapshot = self._catalogue.snapshot or await self._first()
        name = request.match_info["id"]
        entry = snapshot.find(name)
        if entry is None:
            try:
                _, entry = await self._catalogue.resolve(name)
            except InvalidRequestError as error:
                raise NotFoundError(error.message) from error
        if entry is None:
            raise NotFoundError(f"model: {name[:200]!r} is not a model of the gateway")
        body = _encode(model_info(entry))
        return self._answer(request, body, _etag(body))

    async def _first(self) -> CatalogueSnapshot:
        """Wait, briefly, for the gateway's first answer ever. Raises GatewayUnavailableError."""
        try:
            async with asyncio.timeout(_FIRST_LIST_SECONDS):
                return await self._catalogue.refresh()
        except (GatewayError, TimeoutError) as error:
            why = error.message if isinstance(error, GatewayError) else "no answer yet"
            raise GatewayUnavailableError(
                f"there is no list of models yet: {why}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error

    async def _refresh(self) -> None:
        try:
            await self._catalogue.refresh()
        except GatewayError as error:
            _log.info("refresh on demand failed", error=error.message)

    def _whole_page(self, snapshot: CatalogueSnapshot) -> tuple[bytes, str]:
        if self._whole is None or self._whole[0] != snapshot.generation:
            body = _encode(_page(snapshot, snapshot.listed, has_more=False))
            self._whole = (snapshot.generation, body, _etag(body))
        return self._whole[1], self._whole[2]

    def _answer(self, request: web.Request, body: bytes, etag: str) -> web.Response:
        headers = {hdrs.ETAG: etag, hdrs.CACHE_CONTROL: "no-cache"}
        stale_seconds = self._catalogue.stale_seconds
        if stale_seconds is not None:
            headers[hdrs.AGE] = str(int(stale_seconds))
        if _matches(request.headers.get(hdrs.IF_NONE_MATCH, ""), etag):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers, content_type="application/json")


class _PageQuery:
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
        # A gateway lists what can be called: all of it is active.
        self._has_active = not lifecycles or "active" in lifecycles

    def of(self, snapshot: CatalogueSnapshot) -> dict[str, Any]:
        """Return the page. Raises InvalidRequestError for a cursor that is not in the list."""
        ids = snapshot.listed
        start, end = 0, len(ids)
        if self._after is not None:
            start = _position(ids, self._after, "after_id") + 1
        if self._before is not None:
            end = _position(ids, self._before, "before_id")
        if not self._has_active:
            return _page(snapshot, (), has_more=False)
        limit = self._limit or len(ids)
        if self._before is not None:
            first = max(start, end - limit)
            return _page(snapshot, ids[first:end], has_more=first > start)
        last = min(end, start + limit)
        return _page(snapshot, ids[start:last], has_more=last < end)


def _position(ids: Sequence[str], cursor: str, field: str) -> int:
    try:
        return ids.index(cursor)
    except ValueError:
        raise InvalidRequestError(
            f"{field}: {cursor[:200]!r} is not in the list; use an id of the page before",
            field=field,
        ) from None


def _page(snapshot: CatalogueSnapshot, ids: Sequence[str], *, has_more: bool) -> dict[str, Any]:
    return {
        "data": [model_info(snapshot.entries[model_id]) for model_id in ids],
        "has_more": has_more,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "object": "list",
    }


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _etag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _matches(if_none_match: str, etag: str) -> bool:
    offered = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in offered or "*" in offered
