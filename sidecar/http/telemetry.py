"""The outermost middleware: counts and times every request, and opens its span."""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.http.middleware import CLIENT_GONE, PROBES
from sidecar.http.routes import route_of
from sidecar.metrics import Metrics
from sidecar.tracing import (
    TRACEPARENT,
    Span,
    Tracer,
    read_traceparent,
    set_current_traceparent,
)

_EVENT_STREAM = "text/event-stream"


def telemetry(metrics: Metrics, tracer: Tracer) -> Middleware:
    """Return the middleware. Its label for a path is the route's template, so labels stay few."""

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        status, is_timed = CLIENT_GONE, False
        span = _start_span(tracer, request)
        set_current_traceparent(span.traceparent if span else None)
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
            if span is not None:
                span.note({"http.response.status_code": status})
                span.end(error=str(status) if status >= 500 else None)

    return measure


def _start_span(tracer: Tracer, request: web.Request) -> Span | None:
    """Return no span for probes: they come every few seconds and belong to no trace."""
    if request.path in PROBES:
        return None
    route = route_of(request)
    return tracer.start(
        f"{request.method} {route}",
        parent=read_traceparent(request.headers.get(TRACEPARENT)),
        kind="server",
        attributes={"http.request.method": request.method, "http.route": route},
    )
