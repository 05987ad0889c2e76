"""The commonest mistake in a client's base URL, answered with a sentence that says so."""

from __future__ import annotations

from aiohttp import web

from sidecar.errors import NotFoundError


def routes() -> list[web.RouteDef]:
    """Return the route of every path that has `/v1` twice: LAP keeps an address as it was typed."""
    return [web.route("*", "/v1/v1/{path:.*}", _refuse)]


async def _refuse(request: web.Request) -> web.StreamResponse:
    raise NotFoundError(
        f"no such route: {request.method} {request.path[:200]}; the base URL must not end in /v1, "
        "clients add that themselves: register this runtime without it"
    )
