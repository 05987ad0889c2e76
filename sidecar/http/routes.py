"""Which route a request has reached, for rules that depend on it."""

from __future__ import annotations

from aiohttp import web


def route_of(request: web.Request) -> str:
    """Return the path that the request's route was declared with; `none` when there is none.

    Rules about access ask for this and not for the request's path, which can be written in several ways.
    """
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
