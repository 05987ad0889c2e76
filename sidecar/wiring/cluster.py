"""Several pods: what a sidecar on PostgreSQL has besides, put together and started. Loaded only then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import structlog
from aiohttp import web

from sidecar.aiokit import TaskOwner
from sidecar.cluster.boots import Boot, Heartbeat, Load
from sidecar.cluster.ownership import SharedOwnership
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.http.bodies import BodyBounds
from sidecar.http.followed_streams import FollowedStreams
from sidecar.http.peer_listener import PeerApi, start_peer_listener
from sidecar.http.peers import Peers
from sidecar.http.streams import LocalStreams, Streams
from sidecar.instruments import Reading
from sidecar.listening import cannot_listen
from sidecar.managed.child.mirror import Mirror
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.opencode.child import Child, State
from sidecar.processes.guardian import Guardian
from sidecar.store.identity import identity_of, incarnation_of
from sidecar.store.interface import Store, StoreError
from sidecar.store.postgres import PostgresStore
from sidecar.wiring.archives import archive_readings
from sidecar.wiring.domain import Domain

if TYPE_CHECKING:
    from sidecar.managed.workspaces.archives import SessionArchives

_FENCE_SHARE = 2 / 3
"""Of the lease; what is left is the guardian's time to end opencode before another pod may claim."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Cluster:
    """This pod's part in the cluster. `join` comes before any session is claimed."""

    settings: Settings
    database: PostgresStore
    ownership: SharedOwnership
    guardian: Guardian
    load: Load
    peers: Peers
    heartbeat: Heartbeat | None = None
    streams: FollowedStreams | None = None

    @classmethod
    async def make(cls, settings: Settings, database: Store, stack: AsyncExitStack) -> Cluster:
        """Put the parts together; nothing is registered yet. Raises SettingsError."""
        assert isinstance(database, PostgresStore)
        assert settings.cluster.key is not None
        try:
            home = await asyncio.to_thread(identity_of, settings.storage.data_dir)
        except OSError as error:
            raise SettingsError(
                f"DATA_DIR: cannot write {error.filename}: {error.strerror}"
            ) from error
        ownership = SharedOwnership(
            database=database,
            boot_id=f"boot_{secrets.token_hex(8)}",
            home=home,
            is_local=settings.cluster.workspace == "local",
            is_restored=settings.cluster.workspace == "archive",
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, limit_per_host=0, keepalive_timeout=60, use_dns_cache=True
                ),
                auto_decompress=False,
                read_bufsize=1 << 18,
            )
        )
        load = Load()
        return cls(
            settings=settings,
            database=database,
            ownership=ownership,
            guardian=Guardian(bound_seconds=settings.cluster.lease_seconds * _FENCE_SHARE),
            load=load,
            peers=Peers(
                ownership=ownership,
                session=session,
                key=settings.cluster.keys[0],
                load=load,
                wait_seconds=settings.cluster.owner_wait_seconds,
                silence_seconds=3 * settings.http.heartbeat_seconds,
            ),
        )

    def follow(self, local: LocalStreams, domain: Domain) -> Streams:
        """Return the streams that stay open while a session changes its pod."""
        self.streams = FollowedStreams(
            peers=self.peers, local=local, log=domain.log, ownership=self.ownership
        )
        return self.streams

    async def join(
        self,
        routes: Sequence[web.RouteDef],
        local: LocalStreams,
        stack: AsyncExitStack,
        tasks: TaskOwner,
    ) -> None:
        """Listen for the other pods, then register. Raises SettingsError."""
        wanted, loop = self.settings.cluster, asyncio.get_running_loop()
        api = PeerApi(ownership=self.ownership, local=local, load=self.load, routes=routes)
        try:
            runner, port = await start_peer_listener(
                api,
                host=wanted.host,
                port=wanted.port,
                keys=wanted.keys,
                tasks=tasks,
                bounds=BodyBounds.of(self.settings.http),
            )
        except OSError as error:
            names = {"host_setting": "SIDECAR_CLUSTER_HOST", "port_setting": "SIDECAR_CLUSTER_PORT"}
            raise cannot_listen(error, wanted.host, wanted.port, **names) from error
        stack.push_async_callback(asyncio.to_thread, self.guardian.close)
        try:
            await self._check_key()
            host = wanted.address or await self._own_address()
            boot = Boot(
                boot_id=self.ownership.boot_id,
                pod=os.environ.get("HOSTNAME") or socket.gethostname(),
                incarnation=incarnation_of(self.settings.storage.data_dir),
                address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                home=identity_of(self.settings.storage.data_dir),
            )
            self.heartbeat = Heartbeat(
                connect=self.database.connect,
                boot=boot,
                load=self.load,
                lease_seconds=wanted.lease_seconds,
                interval_seconds=wanted.heartbeat_seconds,
                beat=self.guardian.beat,
                on_lapse=lambda: _call_on(loop, lambda: tasks.start("lapse", self._verify())),
            )
            await self.database.write(self.heartbeat.register)
        except StoreError as error:
            await runner.cleanup()
            raise SettingsError(
                f"DATABASE_URL: cannot write to {self.database.location}: {error}"
            ) from error
        except SettingsError:
            await runner.cleanup()
            raise
        self.heartbeat.start()
        stack.push_async_callback(asyncio.to_thread, self.heartbeat.stop)
        stack.push_async_callback(runner.cleanup)
        _log.info("joined the cluster", boot=boot.boot_id, address=boot.address)

    async def _check_key(self) -> None:
        """Raise SettingsError when a live pod refuses our key: requests would come to nothing there."""
        others = await self.ownership.others()
        refused = await asyncio.gather(*map(self.peers.is_refused_by, others))
        for owner, is_refused in zip(others, refused, strict=True):
            if is_refused:
                raise SettingsError(
                    f"SIDECAR_CLUSTER_KEY: the pod at {owner.address} does not take it; set the same in all "
                    "pods (to change it, roll out old,new and then new,old first)"
                )

    async def _verify(self) -> None:
        try:
            await self.ownership.verify()
        except StoreError as error:
            _log.warning("ownership not verified: the next commits will", error=str(error))

    async def _own_address(self) -> str:
        """Return the address by which the database knows us."""
        query = "SELECT host(inet_client_addr())"
        row = await self.database.read(lambda connection: connection.execute(query).fetchone())
        return row[0] or "127.0.0.1"  # a local socket: all pods are on this machine

    def watch(self, child: Child, tasks: TaskOwner, engine: SessionEngine) -> None:
        """Let the guardian know the child, and the other pods how busy it is."""
        is_first = True

        def on_state(state: State, _boot: int) -> None:
            nonlocal is_first
            if is_first and state == "starting":
                is_first = False  # what an earlier boot ran ended with it
                tasks.start("earlier boots", self._end_earlier_boots())

        def on_processes(pids: Collection[int]) -> None:
            with contextlib.suppress(OSError):
                self.guardian.watch(pids)

        child.on_state_change(on_state)
        child.on_processes(on_processes)
        tasks.start("load", self._run_load(child, engine))

    async def _end_earlier_boots(self) -> None:
        assert self.heartbeat is not None
        try:
            await self.database.write(self.heartbeat.end_earlier_boots)
        except StoreError as error:
            _log.warning("earlier boots live on until their lease ends", error=str(error))

    async def _run_load(self, child: Child, engine: SessionEngine) -> None:
        before, at = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(self.settings.cluster.heartbeat_seconds)
            self.load.turns = engine.live.busy_count
            if (process_stats := child.process_stats) is not None:
                now = time.monotonic()
                used, before = process_stats.cpu_seconds - before, process_stats.cpu_seconds
                self.load.cpu = max(0.0, used) / (now - at)
                at = now

    def begin_drain(self) -> None:
        """Say at once that nothing new should come here."""
        self.load.is_draining = True
        if self.heartbeat is not None:
            self.heartbeat.renew_now()

    def readings(
        self, mirror: Mirror | None, archives: SessionArchives | None
    ) -> Iterator[Reading]:
        """Yield what the metrics show of this pod's part."""
        own, peers, beat = self.ownership, self.peers, self.heartbeat
        yield Reading(
            "cluster_sessions_owned", "Sessions that are this pod's.", own.count, is_counter=False
        )
        yield Reading("cluster_claims", "Sessions claimed.", own.claims)
        yield Reading("cluster_takeovers", "Those that another boot had before.", own.takeovers)
        yield Reading(
            "cluster_sessions_lost", "Sessions that another pod took from here.", own.losses
        )
        yield Reading(
            "cluster_requests_forwarded", "Requests answered by the owner.", peers.forwarded
        )
        yield Reading("cluster_forward_failures", "Tries without an answer.", peers.failed)
        yield Reading(
            "cluster_sessions_placed_elsewhere", "New ones, for load.", peers.placed_elsewhere
        )
        if self.streams is not None:
            yield Reading(
                "cluster_stream_moves", "Changes of a stream's source.", self.streams.moves
            )
        if beat is not None:
            yield Reading("cluster_lease_renewals", "Renewals of this boot's lease.", beat.renewals)
            failed = beat.failed_renewals
            yield Reading("cluster_lease_renewal_failures", "Those that failed.", failed)
            yield Reading("cluster_lease_lapses", "Those that came too late.", beat.lapses)
        yield Reading(
            "cluster_child_cpu_ratio",
            "Share of a core opencode uses; near 1 it is full.",
            self.load.cpu,
            is_counter=False,
        )
        yield Reading("store_reconnects", "Database connections lost.", self.database.reconnects)
        yield Reading(
            "store_repeated_jobs",
            "Jobs run again, for a conflict or a lost connection.",
            self.database.repeated_jobs,
        )
        if mirror is not None:
            yield Reading("history_events_mirrored", "opencode's own events stored.", mirror.stored)
            yield Reading("history_events_dropped", "Those there was no room for.", mirror.dropped)
            yield Reading("history_replays", "Sessions given to another opencode.", mirror.replays)
            yield Reading(
                "history_transcripts", "Those that went on from a transcript.", mirror.transcripts
            )

        if archives is not None:
            yield from archive_readings(archives)

    async def leave(self) -> None:
        """Give up what is still ours, best effort: the lease ends by itself."""
        with contextlib.suppress(StoreError):
            await self.ownership.release_all()


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call it in the loop, from another thread; not when the loop is closed already."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
