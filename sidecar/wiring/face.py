"""The HTTP face: which handlers there are, and the listeners they answer on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.aiokit import TaskOwner
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.gateway.catalogue import Catalogue
from sidecar.http.admin import AdminApi, start_admin
from sidecar.http.agents import AgentsApi
from sidecar.http.environments import EnvironmentsApi
from sidecar.http.events import EventsApi
from sidecar.http.health import HealthApi
from sidecar.http.middleware import finish_writes, request_context, require_key
from sidecar.http.models import ModelsApi, OtherRuntimes
from sidecar.http.native import NativeApi
from sidecar.http.resources import ResourcesApi
from sidecar.http.sessions import SessionsApi
from sidecar.http.vaults import VaultsApi
from sidecar.store.database import Database
from sidecar.wiring.child import ChildParts
from sidecar.wiring.domain import Domain, Secrets
from sidecar.wiring.gateway import Gateway, describe

_log = structlog.get_logger(__name__)


def make_routes(
    settings: Settings,
    database: Database,
    session: aiohttp.ClientSession,
    tasks: TaskOwner,
    *,
    gateway: Gateway,
    catalogue: Catalogue,
    child: ChildParts,
    domain: Domain,
    secrets: Secrets,
    is_draining: Callable[[], bool],
) -> list[web.RouteDef]:
    """Return all routes; the forwarding of opencode's own API comes last, it matches everything."""
    apis = (
        HealthApi(
            child=child.supervisor,
            describe_gateway=lambda: describe(gateway, catalogue),
            is_draining=is_draining,
        ),
        ModelsApi(
            catalogue=catalogue,
            other_runtimes=lambda: _other_runtimes(settings, session, tasks),
        ),
        AgentsApi(agents=domain.agents),
        EnvironmentsApi(environments=domain.environments),
        ResourcesApi(resources=domain.resources),
        VaultsApi(vaults=secrets.vaults, credentials=secrets.credentials),
        SessionsApi(sessions=domain.sessions),
        EventsApi(
            database=database,
            log=domain.log,
            turns=domain.turns,
            heartbeat_seconds=settings.http.heartbeat_seconds,
            late_reader_seconds=settings.http.late_reader_seconds,
        ),
    )
    routes = [route for api in apis for route in api.routes()]
    if settings.child.forward_native:
        native = NativeApi(
            wait_ready=lambda: child.supervisor.wait_ready(settings.child.prompt_wait_seconds),
            boot=lambda: child.supervisor.boot,
            use_directory=child.instances.use,
            resolve_model=child.registry.resolve,
            workspaces_dir=settings.storage.workspaces_dir,
        )
        routes += native.routes()
    return routes


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


async def serve_admin(settings: Settings, api: AdminApi, stack: AsyncExitStack) -> str | None:
    """Listen for operators, if they want it; return the URL."""
    if not settings.admin.is_enabled:
        return None
    runner, url = await start_admin(settings.admin, api, runtime_key=settings.http.runtime_api_key)
    stack.push_async_callback(runner.cleanup)
    _log.info("admin listener", url=url)
    return url


async def serve(
    settings: Settings,
    routes: list[web.RouteDef],
    tasks: TaskOwner,
    stack: AsyncExitStack,
    measure: Middleware,
) -> str:
    """Listen for clients; return the URL. Raises SettingsError when the port is taken."""
    app = web.Application(
        middlewares=[
            measure,
            request_context,
            require_key(settings.http.runtime_api_key),
            finish_writes(tasks),
        ],
        client_max_size=settings.http.body_limit_bytes,
    )
    app.add_routes(routes)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        keepalive_timeout=settings.http.keepalive_seconds,
        shutdown_timeout=5.0,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host = settings.http.effective_host()
    site = web.TCPSite(runner, host, settings.http.port)
    try:
        await site.start()
    except OSError as error:
        raise SettingsError(
            f"PORT: cannot listen on {host}:{settings.http.port}: {error.strerror}; "
            "stop what uses it or set another PORT"
        ) from error
    port = runner.addresses[0][1]
    shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  # compared, not bound
    return f"http://{shown}:{port}"
