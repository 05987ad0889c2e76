"""Which route a request has reached, for rules that depend on it."""

from __future__ import annotations

from aiohttp import hdrs, web

from sidecar.errors import MethodNotAllowedError


def route_of(request: web.Request) -> str:
    """Return the path that the request's route was declared with; `none` when there is none.

    Rules about access ask for this and not for the request's path, which can be written in several ways.
    """
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"


async def check_method(request: web.Request) -> None:
    """Raise MethodNotAllowedError where other routes than the one reached have the path, with other methods.

    For handlers that take what no other route took: aiohttp answers 405 only where nothing matches.
    """
    reached = request.match_info.route.resource
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not reached:
            _, methods = await resource.resolve(request)
            allowed |= methods - {hdrs.METH_ANY}
    if allowed:
        raise MethodNotAllowedError(request.method, allowed)
