"""What a storm does: each fault by its name."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing

from tests.chaos import hostile_bodies, hostile_requests
from tests.chaos.half_headers import silent_clients
from tests.chaos.hostile_requests import ODDITIES
from tests.chaos.lying_gateway import LIES
from tests.chaos.slow_readers import unread
from tests.chaos.storm_clients import StormClient
from tests.chaos.storm_site import Site
from tests.chaos.target import Probe
from tests.raw_client import MODEL

Fault = Callable[[], Awaitable[None]]

RECOVERED_FROM = frozenset(
    {
        *("child killed", "child terminated", "child stopped for good"),
        *("sidecar killed", "sidecar terminated"),
    }
)
"""After these the time until the sidecar is ready again is reported."""

_HOSTILE_BYTES = 2_000_000
_LARGE_CHARS = 3_000_000
_SILENT_CLIENTS = 100
_LOCKED_SECONDS = 7.0
"""Longer than the store waits for a lock."""


def faults_of(
    site: Site, clients: Sequence[StormClient], chance: random.Random
) -> Mapping[str, Fault]:
    """Return the faults; each ends when what it did is over."""

    def some_session() -> str:
        return chance.choice(clients).book.session_id

    async def child(number: signal.Signals) -> None:
        boots = len(site.process.entries("child ready"))
        site.send_child(number)
        await site.process.logged("child ready", count=boots + 1, seconds=120)

    async def replace_child() -> None:
        boots = len(site.process.entries("child ready"))
        await site.restart_opencode()
        # One retires at a time: it may have to wait for the end of an earlier one.
        await site.process.logged("child ready", count=boots + 1, seconds=180)

    async def pause_child() -> None:
        site.send_child(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        site.send_child(signal.SIGCONT)

    async def pause_sidecar() -> None:
        site.process.send(signal.SIGSTOP)
        await asyncio.sleep(3.0)
        site.process.send(signal.SIGCONT)

    async def sidecar(number: signal.Signals) -> None:
        site.process.send(number)
        await site.process.ended(90)

    async def hang_up() -> None:
        for client in chance.sample(clients, 10):
            client.hang_up()

    async def hostile() -> None:
        kind = chance.choice(hostile_bodies.KINDS)
        sent = await hostile_bodies.send(
            site.target, kind, session=some_session(), size=_HOSTILE_BYTES
        )
        assert 400 <= sent.answer.status < 500, (kind.name, sent.answer)

    async def large_message() -> None:
        """A large text that a client interrupts: in a session of its own, whose log is not looked at."""
        session = await hostile_bodies.new_session(site.target)
        path = f"/v1/sessions/{session}/events"
        content = [{"type": "text", "text": "x" * _LARGE_CHARS}]
        for event in ({"type": "user.message", "content": content}, {"type": "user.interrupt"}):
            answer = await site.target.call("POST", path, {"events": [event]})
            assert answer.status == 200, answer.body[:500]
        async with unread(site.target, path, 5):
            await asyncio.sleep(2.0)

    async def slow_readers() -> None:
        path = f"/v1/sessions/{some_session()}/events"
        async with unread(site.target, f"{path}/stream", 5), unread(site.target, path, 5):
            await asyncio.sleep(3.0)

    async def half_headers() -> None:
        async with Probe(site.target) as probe, silent_clients(site.target, _SILENT_CLIENTS):
            await asyncio.sleep(3.0)
        assert not probe.failures, probe.failures

    async def gateway_away() -> None:
        await site.stop_gateway()
        await asyncio.sleep(5.0)
        await site.start_gateway()

    async def lying_lists() -> None:
        """Each lie for a moment; a model that is not known has the lists read at once."""
        for lie in chance.sample(list(LIES), 4):
            site.set_lie(lie)
            agent = {"name": "a", "model": f"unknown-{chance.random()}"}
            refused = await site.target.call("POST", "/v1/agents", agent)
            assert refused.status in {400, 503}, (lie, refused)
            offered = await site.target.call("GET", "/v1/models")
            assert MODEL in {model["id"] for model in offered.json["data"]}, (
                lie,
                offered.body[:500],
            )
            await asyncio.sleep(1.0)
        site.set_lie(None)

    async def odd_requests() -> None:
        for oddity in chance.sample(ODDITIES, 10):
            outcome = await hostile_requests.send(site.target, oddity, some_session())
            assert not outcome.problem, (oddity.name, outcome)

    async def locked_disk() -> None:
        with closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(_LOCKED_SECONDS)
            connection.execute("ROLLBACK")

    async def failing_disk() -> None:
        """No file of the sidecar may grow, as on a full disk."""
        pid = site.process.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        await asyncio.sleep(4.0)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    return {
        "child killed": lambda: child(signal.SIGKILL),
        "child terminated": lambda: child(signal.SIGTERM),
        "child stopped for good": lambda: child(signal.SIGSTOP),
        "child paused": pause_child,
        "child replaced": replace_child,
        "sidecar killed": lambda: sidecar(signal.SIGKILL),
        "sidecar terminated": lambda: sidecar(signal.SIGTERM),
        "sidecar paused": pause_sidecar,
        "readers hung up": hang_up,
        "hostile body": hostile,
        "large message": large_message,
        "slow readers": slow_readers,
        "half headers": half_headers,
        "gateway away": gateway_away,
        "gateway's lists lie": lying_lists,
        "odd requests": odd_requests,
        "locked disk": locked_disk,
        "failing disk": failing_disk,
    }
