"""The outermost middleware: counts and times every request."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.metrics import Metrics

_CLIENT_GONE = 499
"""nginx's word for a client that did not wait; never sent."""
_EVENT_STREAM = "text/event-stream"


def measured(metrics: Metrics) -> Middleware:
    """Return the middleware. Its label for a path is the route's template, so labels stay few."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        status, is_timed = _CLIENT_GONE, False
        metrics.request_began()
        try:
            response = await handler(request)
            status, is_timed = response.status, response.content_type != _EVENT_STREAM
            return response
        finally:
            metrics.request_ended(
                request.method,
                route_of(request),
                status=status,
                seconds=time.perf_counter() - began,
                is_timed=is_timed,
            )

    return measure


def route_of(request: web.Request) -> str:
    """Return the template of the route that serves the request; `none` when there is none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"
