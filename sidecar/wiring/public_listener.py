"""The public listener: its middleware, its bounds, its port."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.aiokit import TaskOwner
from sidecar.config import HttpSettings, Settings
from sidecar.http.agents_kept_out import refuse_agents
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies
from sidecar.http.connections import ConnectionBounds
from sidecar.http.middleware import PUBLIC_PATHS, finish_writes, request_context, require_key
from sidecar.http.origin_check import check_origin
from sidecar.http.queries import LIST_BYTES
from sidecar.http.runner import Runner
from sidecar.http.telemetry import telemetry
from sidecar.listening import cannot_listen, listen, url_of
from sidecar.memory import MemoryReturn
from sidecar.metrics import Metrics
from sidecar.tracing import Tracer


async def open_public_listener(
    settings: Settings,
    routes: Iterable[web.RouteDef],
    stack: AsyncExitStack,
    *,
    metrics: Metrics,
    tracer: Tracer,
    tasks: TaskOwner,
    memory: MemoryReturn,
) -> str:
    """Listen until the stack closes, with the middleware that every public route has; return the URL.

    Raises SettingsError when it cannot.
    """
    bodies = BodyBudget(BodyBounds.of(settings.http), on_release=memory.note)
    metrics.watch_bodies(lambda: bodies.held_bytes, lambda: bodies.refused)
    app = web.Application(
        middlewares=[
            telemetry(metrics, tracer),
            request_context,
            *_access(settings),
            finish_writes(tasks),
            bounded_bodies(bodies),
        ],
    )
    app[LIST_BYTES] = settings.http.list_bytes
    app.add_routes(routes)
    runner = await _listen(settings.http, app)
    stack.push_async_callback(runner.cleanup)
    metrics.watch_connections(runner.bounded_server)
    return url_of(settings.http.effective_host(), runner.addresses[0][1])


def _access(settings: Settings) -> list[Middleware]:
    if settings.http.runtime_api_key is not None:
        return [require_key(settings.http.runtime_api_key)]
    pages = check_origin(
        is_own_refused=False,
        # A proxy that authenticates in front of us may use any host name.
        is_host_checked=not settings.http.allow_anonymous,
        remedy="set RUNTIME_API_KEY and send it, or call this server localhost from a program",
        public=PUBLIC_PATHS,
    )
    is_walled = settings.confinement.mode != "off"
    return [pages, refuse_agents(public=PUBLIC_PATHS)] if is_walled else [pages]


async def _listen(settings: HttpSettings, app: web.Application) -> Runner:
    runner = Runner(
        app,
        ConnectionBounds.of(settings),
        handler_cancellation=True,
        keepalive_timeout=settings.keepalive_seconds,
        shutdown_timeout=5.0,
    )
    await runner.setup()
    host = settings.effective_host()
    try:
        await listen(runner, host, settings.port)
    except OSError as error:
        await runner.cleanup()
        raise cannot_listen(
            error, host, settings.port, host_setting="HOST", port_setting="PORT"
        ) from error
    return runner
