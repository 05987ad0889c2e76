"""The public listener: it answers, and lists the models, before the rest of the sidecar is even loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.aiokit import TaskOwner
from sidecar.config import HttpSettings, Settings
from sidecar.errors import SettingsError
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.http_session import client_session
from sidecar.http.agents_kept_out import refuse_agents
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies
from sidecar.http.connections import ConnectionBounds
from sidecar.http.deferred_routes import DeferredRoutes
from sidecar.http.health import HealthApi
from sidecar.http.middleware import PUBLIC_PATHS, finish_writes, request_context, require_key
from sidecar.http.models import ModelsApi, OtherRuntimes
from sidecar.http.operations import routes_of
from sidecar.http.origin_check import check_origin
from sidecar.http.runner import Runner
from sidecar.http.telemetry import telemetry
from sidecar.listening import listen, url_of
from sidecar.memory import MemoryReturn
from sidecar.metrics import Metrics, make_metrics
from sidecar.tracing import Tracer, make_tracer
from sidecar.wiring.gateway import Gateway, describe, find_gateway, make_catalogue


@dataclass(frozen=True, slots=True)
class PublicListener:
    """A listener that answers for the catalogue, and what it stands on.

    Requests for anything else wait for `late`. `close` may be called again.
    """

    url: str
    gateway: Gateway
    session: aiohttp.ClientSession
    tasks: TaskOwner
    catalogue: Catalogue
    tracer: Tracer
    metrics: Metrics
    health: HealthApi
    deferred: DeferredRoutes
    close: Callable[[], Awaitable[None]]


async def open_public_listener(settings: Settings, stack: AsyncExitStack) -> PublicListener:
    """Take the catalogue from disk and listen. Raises SettingsError when the port is taken."""
    session = await stack.enter_async_context(client_session())
    gateway = await find_gateway(settings, stack)
    tasks = TaskOwner("sidecar")
    stack.push_async_callback(tasks.close)
    catalogue = make_catalogue(settings, gateway, session, tasks)
    tracer = make_tracer(settings.tracing)
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    metrics = make_metrics(
        lambda model: catalogue.snapshot is not None and model in catalogue.snapshot.entries
    )
    catalogue.load()

    health = HealthApi(describe_gateway=lambda: describe(gateway, catalogue))
    models = ModelsApi(
        catalogue=catalogue, other_runtimes=lambda: _other_runtimes(settings, session, tasks)
    )
    deferred = DeferredRoutes()
    bodies = BodyBudget(BodyBounds.of(settings.http), on_release=MemoryReturn(tasks).note)
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
    app.add_routes([*routes_of(health), *routes_of(models)])
    app.router.register_resource(deferred)
    runner = await _listen(settings.http, app)
    metrics.watch_connections(runner.bounded_server)
    stack.push_async_callback(runner.cleanup)
    stack.callback(deferred.give_up)
    return PublicListener(
        url=url_of(settings.http.effective_host(), runner.addresses[0][1]),
        gateway=gateway,
        session=session,
        tasks=tasks,
        catalogue=catalogue,
        tracer=tracer,
        metrics=metrics,
        health=health,
        deferred=deferred,
        close=runner.cleanup,
    )


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


def _other_runtimes(
    settings: Settings, session: aiohttp.ClientSession, tasks: TaskOwner
) -> OtherRuntimes:
    from sidecar.http.runtime_models import (  # noqa: PLC0415  # the SDK: starts without it are faster
        RuntimeModels,
    )

    return RuntimeModels(
        settings=settings.runtimes,
        session=session,
        tasks=tasks,
        directory=settings.storage.data_dir / "runtime-models",
    )


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
        raise SettingsError(
            f"PORT: cannot listen on {host}:{settings.port}: {error.strerror}; "
            "stop what uses it or set another PORT"
        ) from error
    return runner
