"""A running sidecar: every long-lived thing is built here, in order, and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from sidecar.aiokit import TaskOwner
from sidecar.config import Settings
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.relay import Relay
from sidecar.http.admin import AdminApi
from sidecar.http.measured import measured
from sidecar.instruments import Sources, make_metrics
from sidecar.instruments import connect as connect_metrics
from sidecar.managed.event_log import EventLog
from sidecar.managed.model_registry import ModelRegistry
from sidecar.managed.sessions import Sessions
from sidecar.managed.turns import Turns
from sidecar.opencode.child import Child
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.environment import ChildFiles
from sidecar.opencode.instances import Instances
from sidecar.store.database import Database
from sidecar.tracing import make_tracer
from sidecar.wiring.child import make_child
from sidecar.wiring.domain import Domain, connect, make_domain, open_secrets
from sidecar.wiring.face import make_routes, serve, serve_admin
from sidecar.wiring.gateway import (
    Gateway,
    client_session,
    find_gateway,
    make_catalogue,
    start_relay,
)
from sidecar.wiring.storage import open_storage

_log = structlog.get_logger(__name__)


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
    domain: Domain
    async with AsyncExitStack() as stack:
        database = await open_storage(settings, stack)
        session = await stack.enter_async_context(client_session())
        gateway = await find_gateway(settings, stack)
        tasks = TaskOwner("sidecar")
        stack.push_async_callback(tasks.close)
        catalogue = make_catalogue(settings, gateway, session, tasks)
        tracer = make_tracer(settings.tracing)
        stack.push_async_callback(asyncio.to_thread, tracer.close)
        relay = await start_relay(
            settings,
            gateway,
            stack,
            tracer=tracer,
            traceparent_of=lambda name: domain.turns.traceparent_of(name),  # noqa: PLW0108  # later
        )
        files = ChildFiles(settings.storage.data_dir / "opencode")
        await asyncio.to_thread(files.prepare)
        child = make_child(
            settings,
            files,
            session,
            relay=relay,
            catalogue=catalogue,
            is_busy=lambda: domain.turns.busy_count > 0,
        )
        supervisor = child.supervisor
        secrets = await open_secrets(
            settings, database, files, stack, tasks, child_pid=lambda: supervisor.pid
        )
        domain = await make_domain(
            settings, database, stack, child=child, secrets=secrets, tracer=tracer
        )
        connect(child, relay, domain.turns)
        metrics = make_metrics(catalogue)
        sources = Sources(
            supervisor=supervisor,
            pump=child.pump,
            catalogue=catalogue,
            config_file=child.config_file,
            instances=child.instances,
            turns=domain.turns,
            log=domain.log,
            database=database,
            is_demo_gateway=gateway.is_demo,
        )
        connect_metrics(metrics, sources, relay)
        catalogue.on_change(lambda _snapshot: _start_update(tasks, child.registry))
        await catalogue.start()
        await child.registry.start(await domain.agents.model_refs())

        drain = _Drain()
        routes = make_routes(
            settings,
            database,
            session,
            tasks,
            gateway=gateway,
            catalogue=catalogue,
            child=child,
            domain=domain,
            secrets=secrets,
            is_draining=lambda: drain.has_begun,
        )
        url = await serve(settings, routes, tasks, stack, measured(metrics, tracer))
        admin = AdminApi(metrics=metrics, sources=sources, registry=child.registry)
        admin_url = await serve_admin(settings, admin, stack)

        stack.push_async_callback(supervisor.stop)
        tasks.start("events", child.pump.run())
        tasks.start("eviction", child.instances.run_eviction())
        await supervisor.start()
        tasks.start("recovery", domain.turns.recover())
        tasks.start("retention", domain.retention.run())
        # Left first: turns end and streams close while the child and the store are still there.
        stack.push_async_callback(drain.run, domain, supervisor, settings.child.drain_seconds)
        yield Sidecar(
            url=url,
            admin_url=admin_url,
            gateway=gateway,
            supervisor=supervisor,
            catalogue=catalogue,
            config_file=child.config_file,
            instances=child.instances,
            turns=domain.turns,
            relay=relay,
            log=domain.log,
            database=database,
            sessions=domain.sessions,
        )


class _Drain:
    """The end, in order."""

    def __init__(self) -> None:
        self.has_begun = False

    async def run(self, domain: Domain, supervisor: Child, seconds: float) -> None:
        """Let turns finish, settle the rest, close the streams."""
        self.has_begun = True
        _log.info("draining", turns=domain.turns.busy_count, seconds=seconds)
        supervisor.drain()
        await domain.turns.drain(seconds)
        domain.log.close()


def _start_update(tasks: TaskOwner, registry: ModelRegistry) -> None:
    tasks.start("config update", registry.update())
