"""Routes whose handlers are loaded while the first requests are answered already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from sidecar.errors import NotServingError

_EVERYTHING = "/{path:.*}"
_RETRY_AFTER_SECONDS = 1.0


class DeferredRoutes(web.DynamicResource):
    """Stands for every path that no other route has. Requests wait until it is opened, a moment."""

    def __init__(self) -> None:
        super().__init__(_EVERYTHING)
        self._router = web.UrlDispatcher()
        self._is_open = asyncio.Event()

    def open(self, routes: Iterable[web.RouteDef]) -> None:
        """From now on these are the routes."""
        self._router.add_routes(routes)
        self._router.freeze()
        self._is_open.set()

    def give_up(self) -> None:
        """Tell those who wait that there will be no routes; nothing if there are."""
        if not self._is_open.is_set():
            self.open([web.route("*", _EVERYTHING, _refuse)])

    async def resolve(
        self, request: web.Request
    ) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        """Find the route, once there are any."""
        await self._is_open.wait()
        found = await self._router.resolve(request)
        if isinstance(found.http_exception, web.HTTPMethodNotAllowed):
            return None, found.http_exception.allowed_methods
        return (found, set()) if found.http_exception is None else (None, set())


async def _refuse(_request: web.Request) -> web.StreamResponse:
    raise NotServingError(
        "the sidecar could not start; its log says why", retry_after_seconds=_RETRY_AFTER_SECONDS
    )
