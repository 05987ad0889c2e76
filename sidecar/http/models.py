"""`/v1/models`: served from memory, never from the child, and last good when the gateway is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from aiohttp import web
from pydantic import Field

from sidecar.aiokit import aside
from sidecar.errors import (
    GatewayError,
    GatewayUnavailableError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    RuntimeListError,
)
from sidecar.gateway.catalogue import Catalogue, CatalogueSnapshot
from sidecar.http import declare
from sidecar.http.model_info import model_info
from sidecar.http.model_pages import (
    CONDITIONAL,
    IF_NONE_MATCH,
    ModelsQuery,
    conditional,
    etag_of,
    page,
)
from sidecar.http.queries import QueryModel
from sidecar.http.responses import encode
from sidecar.wire.objects.service import ModelList, ModelObject, RuntimeModelObject

OWN_RUNTIME = "opencode"
"""The name under which this server's own list is asked for; the same as asking for none."""

_FIRST_LIST_SECONDS = 2.5
"""How long a caller waits for the very first list. Claude Code gives up after 3 s."""
_RETRY_AFTER_SECONDS = 5.0

_ITEM_BYTES = 500
"""Of a model in a list, about: long lists are made in a thread."""

_log = structlog.get_logger(__name__)


class ModelQuery(QueryModel):
    """Whose model it is."""

    runtime: str | None = Field(
        None,
        description="a model of another runtime, such as `cursor`; `opencode` is this one's own",
    )


_EVERYTHING = ModelsQuery()


class OtherRuntimes(Protocol):
    """Answers for runtimes that are not ours."""

    async def list(self, request: web.Request, runtime: str, query: ModelsQuery) -> web.Response:
        """Answer the list."""

    async def retrieve(self, request: web.Request, runtime: str, model_id: str) -> web.Response:
        """Answer one model."""


class ModelsApi:
    """The Models API. Without `limit` the page holds everything: LAP reads one page and sends none."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        other_runtimes: Callable[[], OtherRuntimes] | None = None,
    ) -> None:
        """`other_runtimes` makes what answers for them; called once, when they are first asked for."""
        self._catalogue = catalogue
        self._make_others = other_runtimes
        self._made_others: OtherRuntimes | None = None
        self._whole: tuple[int, bytes, str] | None = None

    @declare.get(
        "/v1/models",
        response=ModelList,
        others=CONDITIONAL,
        raises=(RateLimitedError, RuntimeListError),
        headers=(IF_NONE_MATCH,),
    )
    async def list(self, request: web.Request, query: ModelsQuery) -> web.Response:
        """List the models of the gateway, or of another runtime."""
        if (runtime := _foreign(query.runtime)) is not None:
            return await self._others.list(request, runtime, query)
        if query.refresh:
            await self._refresh()
        snapshot = self._catalogue.snapshot or await self._first()
        if query == _EVERYTHING:
            body, etag = await self._whole_page(snapshot)
            return self._answer(request, body, etag)
        # A gateway lists what can be called: all of it is active.
        has_active = not query.lifecycles or "active" in query.lifecycles
        item_of = _item_of(snapshot)

        def make() -> bytes:
            shown = query.of(snapshot.listed, item_of)
            return encode(shown if has_active else page((), item_of, has_more=False))

        body = await aside(_ITEM_BYTES * len(snapshot.listed), make)
        return self._answer(request, body, etag_of(body))

    @declare.get(
        "/v1/models/{id:.+}",
        response=ModelObject | RuntimeModelObject,
        others=CONDITIONAL,
        raises=(NotFoundError, RateLimitedError, RuntimeListError),
        headers=(IF_NONE_MATCH,),
    )
    async def retrieve(self, request: web.Request, query: ModelQuery) -> web.Response:
        """Retrieve a model by its id, an alias, or either with `litellm/` before it.

        The id may hold slashes, raw or encoded.
        """
        name = request.match_info["id"]
        if (runtime := _foreign(query.runtime)) is not None:
            return await self._others.retrieve(request, runtime, name)
        snapshot = self._catalogue.snapshot or await self._first()
        entry = snapshot.find(name)
        if entry is None:
            try:
                _, entry = await self._catalogue.resolve(name)
            except InvalidRequestError as error:
                raise NotFoundError(error.message) from error
        body = encode(model_info(entry))
        return self._answer(request, body, etag_of(body))

    @property
    def _others(self) -> OtherRuntimes:
        if self._make_others is None:
            raise InvalidRequestError(f"runtime: only {OWN_RUNTIME} is served", field="runtime")
        if self._made_others is None:
            self._made_others = self._make_others()
        return self._made_others

    async def _first(self) -> CatalogueSnapshot:
        """Wait, briefly, for the first list of the gateway's models. Raises GatewayUnavailableError."""
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

    async def _whole_page(self, snapshot: CatalogueSnapshot) -> tuple[bytes, str]:
        whole = self._whole
        if whole is None or whole[0] != snapshot.generation:
            body = await aside(
                _ITEM_BYTES * len(snapshot.listed),
                lambda: encode(page(snapshot.listed, _item_of(snapshot), has_more=False)),
            )
            whole = self._whole = (snapshot.generation, body, etag_of(body))
        return whole[1], whole[2]

    def _answer(self, request: web.Request, body: bytes, etag: str) -> web.Response:
        return conditional(request, body, etag, stale_seconds=self._catalogue.stale_seconds)


def _foreign(runtime: str | None) -> str | None:
    """Return the runtime asked for, None for our own."""
    return None if runtime in {None, OWN_RUNTIME} else runtime


def _item_of(snapshot: CatalogueSnapshot) -> Any:
    return lambda model_id: model_info(snapshot.entries[model_id])
