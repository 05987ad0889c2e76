"""The routes of the public listener, and the listener for operators."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import partial

import aiohttp
import structlog
from aiohttp import web

from sidecar.aiokit import TaskOwner
from sidecar.config import Settings
from sidecar.gateway.catalogue import Catalogue
from sidecar.http import base_url
from sidecar.http.admin import AdminApi, start_admin
from sidecar.http.agents import AgentsApi
from sidecar.http.document import DocumentApi
from sidecar.http.environments import EnvironmentsApi
from sidecar.http.events import EventsApi
from sidecar.http.health import HealthApi
from sidecar.http.models import ModelsApi, OtherRuntimes
from sidecar.http.native import NativeApi
from sidecar.http.native.models import NamedModels
from sidecar.http.native.providers import ProviderAnswers
from sidecar.http.native.streams import EventStreams
from sidecar.http.operations import routes_of
from sidecar.http.resources import ResourcesApi
from sidecar.http.sessions import SessionsApi
from sidecar.http.streams import Streams
from sidecar.http.vaults import VaultsApi
from sidecar.managed.sessions.event_list import list_events
from sidecar.opencode.client import ChildClient
from sidecar.store.interface import Store
from sidecar.wiring.child import ChildParts
from sidecar.wiring.domain import Domain, Secrets

_log = structlog.get_logger(__name__)


def make_routes(
    settings: Settings,
    database: Store,
    *,
    child: ChildParts,
    domain: Domain,
    secrets: Secrets,
    streams: Streams,
    catalogue: Catalogue,
) -> list[web.RouteDef]:
    """Return the domain's routes; the forwarding of opencode's own API, which matches much, comes last."""
    apis = (
        AgentsApi(agents=domain.agents),
        EnvironmentsApi(environments=domain.environments),
        ResourcesApi(resources=domain.resources),
        VaultsApi(vaults=secrets.vaults, credentials=secrets.credentials),
        SessionsApi(sessions=domain.sessions),
        EventsApi(
            engine=domain.engine,
            streams=streams,
            list_events=partial(
                list_events,
                database,
                share=domain.log.share,
                max_chars=settings.http.list_bytes,
            ),
            max_streams=settings.http.max_streams,
            shows_bookkeeping=settings.http.bookkeeping_events,
        ),
    )
    # opencode's own API knows one opencode, and its sessions are in one pod each.
    is_native_served = settings.child.forward_native and settings.storage.database_url is None
    document = DocumentApi(
        apis=[
            ModelsApi,
            *map(type, apis),
            *([NativeApi] if is_native_served else []),
            HealthApi,
        ],
        is_key_required=settings.http.runtime_api_key is not None,
    )
    routes = [*base_url.routes(), *(route for api in (*apis, document) for route in routes_of(api))]
    if is_native_served:
        routes += _native(settings, child, catalogue).routes()
    return routes


def make_models_api(
    settings: Settings, catalogue: Catalogue, session: aiohttp.ClientSession, tasks: TaskOwner
) -> ModelsApi:
    """Return the Models API; what lists other runtimes' models is loaded when it is first asked for."""

    def other_runtimes() -> OtherRuntimes:
        from sidecar.http.runtime_models import (  # noqa: PLC0415  # the SDK: starts without it are faster
            RuntimeModels,
        )

        return RuntimeModels(
            settings=settings.runtimes,
            session=session,
            tasks=tasks,
            directory=settings.storage.data_dir / "runtime-models",
        )

    return ModelsApi(catalogue=catalogue, other_runtimes=other_runtimes)


def _native(settings: Settings, child: ChildParts, catalogue: Catalogue) -> NativeApi:
    supervisor, wait_seconds = child.supervisor, settings.child.prompt_wait_seconds

    def wait_serving() -> Awaitable[ChildClient]:
        return supervisor.wait_serving(wait_seconds)

    feed = child.pump.feed
    streams = EventStreams(
        feed=feed,
        wait_serving=wait_serving,
        is_over=lambda: supervisor.is_ending and all(boot.is_over for boot in supervisor.boots),
        heartbeat_seconds=settings.http.heartbeat_seconds,
    )
    supervisor.on_lost(lambda _boot, _loss: feed.wake())
    return NativeApi(
        wait_ready=lambda: supervisor.wait_ready(wait_seconds),
        wait_serving=wait_serving,
        boot=lambda: supervisor.boot,
        use_directory=child.instances.use,
        models=NamedModels(child.registry.resolve),
        providers=ProviderAnswers(
            snapshot=lambda: catalogue.snapshot, default_model=child.registry.default_model
        ),
        streams=streams,
        workspaces_dir=settings.storage.workspaces_dir,
    )


async def serve_admin(settings: Settings, api: AdminApi, stack: AsyncExitStack) -> str | None:
    """Listen for operators, if they want it; return the URL."""
    if not settings.admin.is_enabled:
        return None
    runner, url = await start_admin(
        settings.admin,
        api,
        runtime_key=settings.http.runtime_api_key,
        is_walled=settings.confinement.mode != "off",
    )
    stack.push_async_callback(runner.cleanup)
    _log.info("admin listener", url=url)
    return url
