"""Wiring: every long-lived thing is built here, given what it needs, and closed in reverse order."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.aiokit import TaskOwner
from sidecar.config import ChildSettings, RelaySettings, Settings
from sidecar.errors import SettingsError
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.client import GatewayClient
from sidecar.gateway.relay import Relay
from sidecar.gateway.relay_events import ModelRequestEnded, ModelRequestStarted
from sidecar.http.admin import AdminApi, start_admin
from sidecar.http.agents import AgentsApi
from sidecar.http.environments import EnvironmentsApi
from sidecar.http.events import EventsApi
from sidecar.http.health import HealthApi
from sidecar.http.measured import measured
from sidecar.http.middleware import finish_writes, request_context, require_key
from sidecar.http.models import ModelsApi, OtherRuntimes
from sidecar.http.native import NativeApi
from sidecar.http.resources import ResourcesApi
from sidecar.http.sessions import SessionsApi
from sidecar.http.tool_server import ToolServer
from sidecar.http.vaults import VaultsApi
from sidecar.instruments import Sources, connect, make_metrics
from sidecar.managed.agents import Agents
from sidecar.managed.child_sessions import ChildSessions
from sidecar.managed.connections import Connections
from sidecar.managed.credentials import Credentials
from sidecar.managed.custom_tools import CustomTools
from sidecar.managed.drafts import Usage
from sidecar.managed.environments import Environments
from sidecar.managed.event_log import EventLog
from sidecar.managed.git import Git
from sidecar.managed.model_registry import ModelRegistry
from sidecar.managed.repositories import Repositories
from sidecar.managed.resources import Resources
from sidecar.managed.retention import Retention
from sidecar.managed.sealing import open_sealer
from sidecar.managed.sessions import Sessions
from sidecar.managed.shell_variables import ShellVariables
from sidecar.managed.turn_items import RequestEnded, RequestStarted
from sidecar.managed.turns import Turns
from sidecar.managed.vaults import Vaults
from sidecar.opencode.attached import AttachedChild
from sidecar.opencode.child import Child, State
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.opencode.shell_environment import PLUGIN_FILE, ShellEnvironment
from sidecar.opencode.supervisor import Supervisor
from sidecar.store.database import Database
from sidecar.store.migrations import SchemaTooNewError
from sidecar.tracing import make_tracer

_log = structlog.get_logger(__name__)

_LOST: Mapping[State, str] = {
    "backing_off": "stopped unexpectedly",
    "failed": "cannot be kept running",
    "stopping": "is being restarted",
    "stopped": "is being restarted",
}
"""States of the child in which its turns are over, and how clients are told."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where models come from. `is_demo` is announced wherever people look."""

    url: str
    key: str | None
    is_demo: bool


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running sidecar."""

    url: str
    admin_url: str | None
    gateway: Gateway
    supervisor: Child
    catalogue: Catalogue
    config_file: ConfigFile
    instances: Instances
    turns: Turns
    relay: Relay
    log: EventLog
    database: Database
    sessions: Sessions


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Sidecar]:
    """Start everything, serve, and on leaving drain, checkpoint and stop.

    The HTTP face answers first; the child comes last and is not waited for. Raises SettingsError when
    something cannot be opened as configured.
    """
    async with AsyncExitStack() as stack:
        database = Database(
            settings.storage.database_file, synchronous=settings.storage.synchronous
        )
        await _open_storage(settings, database)
        stack.push_async_callback(database.close)
        session = await stack.enter_async_context(_client_session())
        gateway = await _gateway(settings, stack)
        tasks = TaskOwner("sidecar")
        stack.push_async_callback(tasks.close)

        client = GatewayClient(
            settings=settings.gateway,
            base_url=gateway.url,
            api_key=gateway.key,
            session=session,
        )
        catalogue = Catalogue(
            client=client,
            settings=settings.gateway,
            file=settings.storage.data_dir / "catalogue.json",
            tasks=tasks,
        )
        tracer = make_tracer(settings.tracing)
        stack.push_async_callback(asyncio.to_thread, tracer.close)
        relay = Relay(
            settings=settings.gateway,
            base_url=gateway.url,
            api_key=gateway.key,
            host=settings.relay.host,
            port=settings.relay.port,
            token=settings.relay.token.get_secret_value() if settings.relay.token else None,
            tracer=tracer,
            traceparent_of=lambda child_session: turns.traceparent_of(child_session),  # noqa: PLW0108  # made below
        )
        await _start_relay(relay, settings.relay)
        stack.push_async_callback(relay.close)

        files = ChildFiles(settings.storage.data_dir / "opencode")
        await asyncio.to_thread(files.prepare)
        turns: Turns
        is_attached = settings.child.url is not None
        supervisor = _child(
            settings.child,
            files,
            session,
            relay=lambda: RelayAccess(relay.url, relay.token),
            is_busy=lambda: turns.busy_count > 0,
        )
        secrets = await _open_secrets(
            settings, database, files, stack, tasks, child_pid=lambda: supervisor.pid
        )
        config_file = ConfigFile(files.config_file, plugins=() if is_attached else (PLUGIN_FILE,))
        registry = ModelRegistry(
            catalogue=catalogue,
            config_file=config_file,
            default_model=settings.gateway.default_model,
        )
        pump = EventPump(supervisor=supervisor)
        instances = Instances(
            config_file=config_file,
            client_provider=lambda: supervisor.wait_ready(settings.child.prompt_wait_seconds),
            settings=settings.child,
            on_poison=supervisor.report_poison,
        )
        custom_tools = CustomTools()
        tool_server = ToolServer(
            custom_tools=custom_tools,
            tools_of=lambda session: sessions.custom_tools(session),  # noqa: PLW0108  # made below
            host=settings.relay.host,
            reached_at=settings.relay.reached_at(),
        )
        await tool_server.start()
        stack.push_async_callback(tool_server.close)
        connections = Connections(
            custom_tools=custom_tools,
            tool_server_url=tool_server.url,
            bearers_for=secrets.vaults.bearers_for,
        )
        child_sessions = ChildSessions(
            supervisor=supervisor,
            instances=instances,
            pump=pump,
            connections=connections,
            repositories=secrets.repositories,
            workspaces_dir=settings.storage.workspaces_dir.resolve(),
            prompt_wait_seconds=settings.child.prompt_wait_seconds,
        )
        log = EventLog(database=database)
        turns = Turns(
            database=database,
            log=log,
            child_sessions=child_sessions,
            custom_tools=custom_tools,
            modalities_of=registry.modalities_of,
            settings=settings.turn,
            tracer=tracer,
        )
        agents = Agents(database=database, resolve_model=registry.resolve)
        sessions = Sessions(
            database=database,
            log=log,
            turns=turns,
            agents=agents,
            child_sessions=child_sessions,
            check_vaults=secrets.vaults.check,
            repositories=secrets.repositories,
            resolve_model=registry.resolve,
        )
        _connect(supervisor, pump, relay, turns, instances)
        metrics = make_metrics(catalogue)
        sources = Sources(
            supervisor=supervisor,
            pump=pump,
            catalogue=catalogue,
            config_file=config_file,
            instances=instances,
            turns=turns,
            log=log,
            database=database,
            is_demo_gateway=gateway.is_demo,
        )
        connect(metrics, sources, relay)
        catalogue.on_change(lambda _snapshot: _start_update(tasks, registry))

        await catalogue.start()
        await registry.start(await agents.model_refs())
        drain = _Drain()
        apis = (
            HealthApi(
                child=supervisor,
                describe_gateway=lambda: _describe(gateway, catalogue),
                is_draining=lambda: drain.has_begun,
            ),
            ModelsApi(
                catalogue=catalogue,
                other_runtimes=lambda: _other_runtimes(settings, session, tasks),
            ),
            AgentsApi(agents=agents),
            EnvironmentsApi(environments=Environments(database=database)),
            ResourcesApi(
                resources=Resources(repositories=secrets.repositories, actor_of=turns.actor)
            ),
            VaultsApi(vaults=secrets.vaults, credentials=secrets.credentials),
            SessionsApi(sessions=sessions),
            EventsApi(
                database=database,
                log=log,
                turns=turns,
                heartbeat_seconds=settings.http.heartbeat_seconds,
                late_reader_seconds=settings.http.late_reader_seconds,
            ),
        )
        routes = [route for api in apis for route in api.routes()]
        if settings.child.forward_native:
            native = NativeApi(
                wait_ready=lambda: supervisor.wait_ready(settings.child.prompt_wait_seconds),
                boot=lambda: supervisor.boot,
                use_directory=instances.use,
                resolve_model=registry.resolve,
                workspaces_dir=settings.storage.workspaces_dir,
            )
            routes += native.routes()
        url = await _serve(settings, routes, tasks, stack, measured(metrics, tracer))
        admin = AdminApi(metrics=metrics, sources=sources, registry=registry)
        admin_url = await _serve_admin(settings, admin, stack)

        stack.push_async_callback(supervisor.stop)
        tasks.start("events", pump.run())
        tasks.start("eviction", instances.run_eviction())
        await supervisor.start()
        tasks.start("recovery", turns.recover())
        retention = Retention(
            database=database, sessions=sessions, days=settings.turn.retention_days
        )
        tasks.start("retention", retention.run())
        # Left first: turns end and streams close while the child and the store are still there.
        stack.push_async_callback(drain.run, turns, log, supervisor, settings.child.drain_seconds)
        yield Sidecar(
            url=url,
            admin_url=admin_url,
            gateway=gateway,
            supervisor=supervisor,
            catalogue=catalogue,
            config_file=config_file,
            instances=instances,
            turns=turns,
            relay=relay,
            log=log,
            database=database,
            sessions=sessions,
        )


class _Drain:
    """The end, in order."""

    def __init__(self) -> None:
        self.has_begun = False

    async def run(self, turns: Turns, log: EventLog, supervisor: Child, seconds: float) -> None:
        """Let turns finish, settle the rest, close the streams."""
        self.has_begun = True
        _log.info("draining", turns=turns.busy_count, seconds=seconds)
        supervisor.drain()
        await turns.drain(seconds)
        log.close()


def _child(
    settings: ChildSettings,
    files: ChildFiles,
    session: aiohttp.ClientSession,
    *,
    relay: Callable[[], RelayAccess],
    is_busy: Callable[[], bool],
) -> Child:
    """Return the opencode that we start, or the one that somebody else does."""
    if settings.url is not None:
        return AttachedChild(settings=settings, session=session, is_busy=is_busy)
    return Supervisor(
        settings=settings,
        files=files,
        session=session,
        relay=relay,
        inherited=os.environ,
        is_busy=is_busy,
    )


async def _start_relay(relay: Relay, settings: RelaySettings) -> None:
    try:
        await relay.start()
    except OSError as error:
        raise SettingsError(
            f"SIDECAR_RELAY_PORT: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "stop what uses it or set another port"
        ) from error


def _start_update(tasks: TaskOwner, registry: ModelRegistry) -> None:
    tasks.start("config update", registry.update())


def _connect(
    supervisor: Child, pump: EventPump, relay: Relay, turns: Turns, instances: Instances
) -> None:
    """Let the parts hear of each other."""

    def on_state(state: State, _boot: int) -> None:
        if state in _LOST:
            turns.child_lost(_LOST[state])
            instances.forget_all()

    def on_request(event: ModelRequestStarted | ModelRequestEnded) -> None:
        if isinstance(event, ModelRequestStarted):
            turns.tell(event.child_session_id, RequestStarted(event.request_id))
            return
        is_cut = event.failure is not None and event.failure.kind == "cancelled"
        has_failed = event.failure is not None and event.failure.kind != "refusal"
        usage = (
            Usage(**{name: getattr(event.usage, name) for name in Usage.__slots__})
            if event.usage
            else None
        )
        turns.tell(
            event.child_session_id,
            RequestEnded(event.request_id, None if is_cut else has_failed, usage),
        )

    supervisor.on_state_change(on_state)
    pump.on_lost(supervisor.suspect)
    pump.on_gap(turns.gap)
    relay.listen(on_request)


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What stores secrets and hands them out."""

    vaults: Vaults
    credentials: Credentials
    repositories: Repositories


async def _open_secrets(
    settings: Settings,
    database: Database,
    files: ChildFiles,
    stack: AsyncExitStack,
    tasks: TaskOwner,
    *,
    child_pid: Callable[[], int | None],
) -> _Secrets:
    """Find the key, and let the child ask for the variables of its shells."""
    key = settings.vault.key
    sealer = await open_sealer(
        database=database,
        key=key.get_secret_value() if key else None,
        data_dir=settings.storage.data_dir,
    )
    vaults = Vaults(database=database, sealer=sealer)
    variables = ShellVariables(
        database=database,
        vaults=vaults,
        workspaces_dir=settings.storage.workspaces_dir.resolve(),
    )
    shells = ShellEnvironment(
        path=files.shell_socket, child_pid=child_pid, variables_of=variables.of_directory
    )
    try:
        await shells.start()
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot make a socket at {files.shell_socket}: {error.strerror}; "
            "use a directory on a local file system"
        ) from error
    stack.push_async_callback(shells.close)
    git = Git(settings=settings.repository, inherited=os.environ, tasks=tasks)
    return _Secrets(
        vaults,
        Credentials(database=database, sealer=sealer),
        Repositories(database=database, sealer=sealer, git=git),
    )


async def _open_storage(settings: Settings, database: Database) -> None:
    storage = settings.storage
    try:
        for directory in (storage.data_dir, storage.workspaces_dir):
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot use {error.filename}: {error.strerror}; set DATA_DIR (and WORKDIR) to "
            "writable directories"
        ) from error
    try:
        await database.open()
    except (OSError, sqlite3.Error, SchemaTooNewError) as error:
        name = "DB_PATH" if storage.db_path else "DATA_DIR"
        raise SettingsError(f"{name}: cannot use {storage.database_file}: {error}") from error


@asynccontextmanager
async def _client_session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


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


async def _gateway(settings: Settings, stack: AsyncExitStack) -> Gateway:
    if settings.gateway.base_url:
        key = settings.gateway.api_key
        shown = key.get_secret_value() if key else None
        return Gateway(settings.gateway.base_url, shown, is_demo=False)
    from sidecar.gateway.demo import DemoGateway  # noqa: PLC0415  # starts without it are faster

    demo = DemoGateway()
    await demo.start()
    stack.push_async_callback(demo.close)
    _log.warning("demo gateway: no LITELLM_BASE_URL is set, answers are scripted", url=demo.url)
    return Gateway(demo.url, None, is_demo=True)


def _describe(gateway: Gateway, catalogue: Catalogue) -> dict[str, Any]:
    snapshot = catalogue.snapshot
    return {
        "demo": gateway.is_demo,
        "models": len(snapshot.listed) if snapshot else 0,
        "age_seconds": round(snapshot.age_seconds, 1) if snapshot else None,
    }


async def _serve_admin(settings: Settings, api: AdminApi, stack: AsyncExitStack) -> str | None:
    if not settings.admin.is_enabled:
        return None
    runner, url = await start_admin(settings.admin, api)
    stack.push_async_callback(runner.cleanup)
    _log.info("admin listener", url=url)
    return url


async def _serve(
    settings: Settings,
    routes: list[web.RouteDef],
    tasks: TaskOwner,
    stack: AsyncExitStack,
    measure: Middleware,
) -> str:
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
