"""Builds the sidecar in order: the catalogue, the relay, the child, the domain, and last the listeners."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog

from sidecar.aiokit import TaskOwner
from sidecar.cluster.ownership import Ownership
from sidecar.config import Settings
from sidecar.console.sign_in import Attempts
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.http_session import client_session
from sidecar.http.admin import AdminApi
from sidecar.http.health import HealthApi
from sidecar.http.operations import routes_of
from sidecar.http.streams import LocalStreams
from sidecar.instruments import Reading, Sources
from sidecar.instruments import connect as connect_metrics
from sidecar.loop_watch import running_watch
from sidecar.managed.agents.model_registry import ModelRegistry
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.memory import MemoryReturn
from sidecar.metrics import Metrics, make_metrics
from sidecar.opencode.confinement import Confinement
from sidecar.opencode.environment import ChildFiles
from sidecar.store.interface import Store
from sidecar.store.watch import StoreWatch
from sidecar.tracing import Tracer, make_tracer
from sidecar.wiring.archives import open_archives
from sidecar.wiring.child import ChildParts, make_child
from sidecar.wiring.console import console_routes, sign_in_readings
from sidecar.wiring.domain import Domain, connect, make_domain, open_secrets
from sidecar.wiring.gateway import describe, find_gateway, make_catalogue, start_relay
from sidecar.wiring.public_listener import open_public_listener
from sidecar.wiring.routes import make_models_api, make_routes, serve_admin
from sidecar.wiring.running import RunningSidecar
from sidecar.wiring.web import open_web, tool_readings

if TYPE_CHECKING:
    from sidecar.wiring.cluster import Cluster

_log = structlog.get_logger(__name__)


async def open_services(
    settings: Settings, database: Store, stack: AsyncExitStack
) -> RunningSidecar:
    """Build everything, listen, and start the child, which is not waited for.

    Raises SettingsError when something cannot be opened as configured.
    """
    domain: Domain
    session = await stack.enter_async_context(client_session())
    gateway = await find_gateway(settings, stack)
    tasks = TaskOwner("sidecar")
    stack.push_async_callback(tasks.close)
    catalogue = make_catalogue(settings, gateway, session, tasks)
    catalogue.load()
    tracer, metrics = _make_telemetry(settings, catalogue, stack)
    memory = MemoryReturn(tasks)
    relay = await start_relay(
        settings,
        gateway,
        stack,
        tracer=tracer,
        traceparent_of=lambda name: domain.engine.traceparent_of(name),  # noqa: PLW0108  # later
        on_release=memory.note,
    )
    files = ChildFiles(settings.storage.data_dir / "opencode")
    child = await make_child(
        settings,
        files,
        await stack.enter_async_context(client_session(is_direct=True)),
        relay=relay,
        catalogue=catalogue,
        is_busy=lambda boot, *, with_waiting: domain.engine.is_busy(
            boot, with_waiting=with_waiting
        ),
    )
    supervisor = child.supervisor
    limits = StoredLimits(settings.storage)
    tasks.start("stored counts", limits.run(database))
    secrets = await open_secrets(
        settings,
        database,
        files,
        stack,
        tasks,
        limits=limits,
        child_pids=lambda: supervisor.pids,
    )
    web = await open_web(settings.web, gateway, session, stack)
    cluster = await _make_cluster(settings, database, stack)
    archives = None
    if cluster is not None:
        archives = await open_archives(settings, database, cluster.ownership)
    domain = await make_domain(
        settings,
        database,
        stack,
        child=child,
        secrets=secrets,
        limits=limits,
        web=web,
        tracer=tracer,
        ownership=cluster.ownership if cluster is not None else Ownership(),
        archives=archives,
    )
    connect(child, relay, domain.engine)
    attempts = Attempts(per_minute=settings.console.attempts_per_minute)
    sources = Sources(
        supervisor=supervisor,
        pump=child.pump,
        catalogue=catalogue,
        config_file=child.config_file,
        instances=child.instances,
        engine=domain.engine,
        log=domain.log,
        relay=relay,
        database=database,
        is_demo_gateway=gateway.is_demo,
        cluster=None if cluster is None else partial(cluster.readings, domain.mirror, archives),
        walls=partial(wall_readings, child.confinement, domain),
        console=partial(sign_in_readings, attempts),
        stored=partial(stored_readings, limits),
        tools=partial(tool_readings, web, domain.packages),
    )
    connect_metrics(metrics, sources)
    # Before the catalogue's first refresh, whose update would meet a config that cannot be written, too.
    await child.registry.start(await domain.agents.model_refs())
    catalogue.on_change(lambda _snapshot: _start_update(tasks, child.registry))
    catalogue.start()

    drain = _Drain()
    local = LocalStreams(
        engine=domain.engine,
        log=domain.log,
        heartbeat_seconds=settings.http.heartbeat_seconds,
        late_reader_seconds=settings.http.late_reader_seconds,
        replay_pause_seconds=settings.http.replay_pause_seconds,
        channel_pause_seconds=settings.http.channel_pause_seconds,
    )
    streams = local if cluster is None else cluster.follow(local, domain)
    routes = make_routes(
        settings,
        database,
        child=child,
        domain=domain,
        secrets=secrets,
        streams=streams,
        catalogue=catalogue,
    )
    if cluster is not None:
        await cluster.join(routes, local, stack, tasks)
        routes = [cluster.peers.bound(route) for route in routes]
    store_watch = StoreWatch(database, interval_seconds=settings.storage.check_seconds)
    tasks.start("store check", store_watch.run())
    health = HealthApi(
        child=supervisor,
        is_draining=lambda: drain.has_begun,
        store_failure=lambda: store_watch.failure,
        confinement=child.confinement.describe(),
        describe_gateway=lambda: describe(gateway, catalogue),
    )
    models = make_models_api(settings, catalogue, session, tasks)
    admin = AdminApi(metrics=metrics, sources=sources, registry=child.registry)
    console = console_routes(
        settings,
        routes,
        gateway_url=gateway.url,
        child=child,
        domain=domain,
        sources=sources,
        admin=admin,
        attempts=attempts,
    )
    url = await open_public_listener(
        settings,
        [*routes_of(health), *routes_of(models), *console, *routes],
        stack,
        metrics=metrics,
        tracer=tracer,
        tasks=tasks,
        memory=memory,
    )
    admin_url = await serve_admin(settings, admin, stack)

    stack.push_async_callback(supervisor.stop)
    await _start(settings, child, domain, cluster, tasks)
    # Left first: turns end and streams close while the child and the store are still there.
    stack.push_async_callback(drain.run, domain, child, cluster, settings.child.drain_seconds)
    return RunningSidecar(
        url=url,
        admin_url=admin_url,
        gateway=gateway,
        supervisor=supervisor,
        catalogue=catalogue,
        config_file=child.config_file,
        instances=child.instances,
        engine=domain.engine,
        relay=relay,
        log=domain.log,
        database=database,
        sessions=domain.sessions,
    )


async def _start(
    settings: Settings,
    child: ChildParts,
    domain: Domain,
    cluster: Cluster | None,
    tasks: TaskOwner,
) -> None:
    """Start the child, and what runs as long as the sidecar does."""
    tasks.start("events", child.pump.run())
    tasks.start("eviction", child.instances.run_eviction())
    if cluster is not None:
        cluster.watch(child.supervisor, tasks, domain.engine)
        if domain.mirror is not None:
            tasks.start("mirror", domain.mirror.run())
        if domain.archives is not None:
            tasks.start("archives", domain.archives.run())
        recovery = domain.engine.run_recovery(settings.cluster.heartbeat_seconds)
    else:
        recovery = domain.engine.recover()
    await child.supervisor.start()
    tasks.start("recovery", recovery)
    tasks.start("retention", domain.retention.run())
    tasks.start("space", domain.space.run())


def wall_readings(confinement: Confinement, domain: Domain) -> Iterator[Reading]:
    """Yield how far agents are confined, what got through, and what they take of the disk."""
    level = {"off": 0, "partial": 1, "full": 2}[confinement.level]
    text = "How far agents are confined: 2 fully, 1 as far as this kernel can, 0 not at all."
    yield Reading("confinement_level", text, level, is_counter=False)
    text = "Permission requests that another program than the sidecar allowed."
    yield Reading("permission_alarms", text, domain.permission_watch.alarms)
    text = (
        "Sessions stopped for the size of their directories, or because they were filling the disk."
    )
    yield Reading("workspaces_stopped", text, domain.space.stopped)
    text = "Size of the largest directory of the sessions in which something runs."
    yield Reading("workspace_largest_bytes", text, domain.space.largest_bytes, is_counter=False)


def stored_readings(limits: StoredLimits) -> Iterator[Reading]:
    """Yield how much is stored of what has a bound, and how much found no room."""
    for kind in ("agents", "environments", "vaults", "sessions"):
        text = f"{kind.capitalize()} that are stored, archived ones included; counted every minute."
        yield Reading(f"stored_{kind}", text, limits.counts.get(kind, 0), is_counter=False)
    text = "Agents, versions, environments, vaults, credentials and sessions that found no room."
    yield Reading("stored_refused", text, limits.refused.total())


class _Drain:
    """Ends what the sidecar does, in order; see `run`."""

    def __init__(self) -> None:
        self.has_begun = False

    async def run(
        self, domain: Domain, child: ChildParts, cluster: Cluster | None, seconds: float
    ) -> None:
        """Let turns finish, settle the rest, close the streams."""
        self.has_begun = True
        if cluster is not None:
            cluster.begin_drain()
        _log.info("draining", turns=domain.engine.live.busy_count, seconds=seconds)
        child.supervisor.drain()
        await domain.engine.drain(seconds)
        domain.log.close()
        if domain.mirror is not None:
            await domain.mirror.flush()
        if cluster is not None:
            await cluster.leave()


async def _make_cluster(
    settings: Settings, database: Store, stack: AsyncExitStack
) -> Cluster | None:
    if settings.storage.database_url is None:
        return None
    from sidecar.wiring.cluster import Cluster  # noqa: PLC0415  # SQLite costs not one import more

    return await Cluster.make(settings, database, stack)


def _make_telemetry(
    settings: Settings, catalogue: Catalogue, stack: AsyncExitStack
) -> tuple[Tracer, Metrics]:
    tracer = make_tracer(settings.tracing)
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    metrics = make_metrics(
        lambda model: catalogue.snapshot is not None and model in catalogue.snapshot.entries
    )
    metrics.watch_loop(running_watch())
    return tracer, metrics


def _start_update(tasks: TaskOwner, registry: ModelRegistry) -> None:
    tasks.start("config update", registry.update())
