"""The console's routes. What makes pages is loaded with the first
request for one, so that a sidecar whose console is not used does not carry it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.console.guard import ROOT, Guard
from sidecar.console.recent import Recent
from sidecar.console.sign_in import Attempts, SignIns
from sidecar.errors import SidecarError
from sidecar.http.admin import AdminApi
from sidecar.http.events import IS_WATCHING
from sidecar.instruments import Sources
from sidecar.managed.agents.agents import Agents
from sidecar.managed.agents.environments import Environments
from sidecar.managed.sessions.service import Sessions

if TYPE_CHECKING:
    from sidecar.console.pages import Pages

API = f"{ROOT}/api"
"""Below it the script finds the handlers of the API that it needs."""
_API_ROUTES = frozenset(
    {
        ("GET", "/v1/sessions/{id}/events"),
        ("POST", "/v1/sessions/{id}/events"),
        ("GET", "/v1/sessions/{id}/events/stream"),
    }
)

ChoosePage = Callable[["Pages"], Callable[[web.Request], Awaitable[web.Response]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pages read and call."""

    sources: Sources
    admin: AdminApi
    sessions: Sessions
    agents: Agents
    environments: Environments
    recent: Recent
    confinement: dict[str, object]
    """The summary that `/health` shows."""
    gateway_url: str


class Console:
    """The console of one sidecar."""

    def __init__(
        self,
        parts: Parts,
        *,
        sign_ins: SignIns,
        attempts: Attempts,
        refuse_agents: Middleware | None,
    ) -> None:
        self._parts = parts
        self._sign_ins = sign_ins
        self._attempts = attempts
        self._guard = Guard(sign_ins, error_page=self._error_page, refuse_agents=refuse_agents)
        self._pages: Pages | None = None

    def routes(self, api: Iterable[web.RouteDef]) -> list[web.RouteDef]:
        """Return the routes; put them before those that match everything. `api` has the API's own."""
        page, public = self._page, self._public
        return [
            web.get(ROOT, page(lambda pages: pages.status)),
            web.get(f"{ROOT}/models", page(lambda pages: pages.models)),
            web.post(f"{ROOT}/models/refresh", page(lambda pages: pages.refresh)),
            web.get(f"{ROOT}/sessions", page(lambda pages: pages.sessions)),
            web.get(f"{ROOT}/sessions/{{id}}", page(lambda pages: pages.session)),
            web.get(f"{ROOT}/try", page(lambda pages: pages.show_try)),
            web.post(f"{ROOT}/try", page(lambda pages: pages.start_try)),
            web.post(f"{ROOT}/sign-out", page(lambda pages: pages.sign_out)),
            web.get(f"{ROOT}/sign-in", public(lambda pages: pages.show_sign_in)),
            web.post(f"{ROOT}/sign-in", public(lambda pages: pages.sign_in)),
            web.get(f"{ROOT}/static/{{name}}", public(lambda pages: pages.static)),
            *(
                self._at_console(route)
                for route in api
                if (route.method, route.path) in _API_ROUTES
            ),
            # So that nothing below reaches opencode, whatever its own API may declare one day.
            web.route("*", f"{ROOT}/{{path:.*}}", page(lambda pages: pages.missing)),
        ]

    def _page(self, choose: ChoosePage) -> Handler:
        return self._guard.page(self._loaded(choose))

    def _public(self, choose: ChoosePage) -> Handler:
        return self._guard.public(self._loaded(choose))

    def _loaded(self, choose: ChoosePage) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await choose(await self._loaded_pages())(request)

        return handle

    async def _loaded_pages(self) -> Pages:
        if self._pages is None:
            self._pages = await asyncio.to_thread(self._load)
        return self._pages

    def _load(self) -> Pages:
        from sidecar.console.pages import Pages  # noqa: PLC0415  # brings the template engine
        from sidecar.console.rendering import Renderer  # noqa: PLC0415

        return Pages(
            self._parts,
            renderer=Renderer(),
            guard=self._guard,
            sign_ins=self._sign_ins,
            attempts=self._attempts,
        )

    async def _error_page(self, request: web.Request, error: SidecarError) -> web.Response:
        return (await self._loaded_pages()).error(request, error)

    def _at_console(self, route: web.RouteDef) -> web.RouteDef:
        """Return the API's route for the console's script, which is let in by its cookie."""

        async def handle(request: web.Request) -> web.StreamResponse:
            # As the API's own caller would have sent it: another pod may be asked for it.
            inner = request.clone(rel_url=str(request.rel_url).removeprefix(API))
            inner[IS_WATCHING] = True
            response: web.StreamResponse = await route.handler(inner)
            return response

        return web.RouteDef(
            route.method, API + route.path, self._guard.call(handle), dict(route.kwargs)
        )
