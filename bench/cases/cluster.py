"""What PostgreSQL and several pods cost: an append, a whole turn, a send and a stream over the hop.

Both sides are measured in the same run, in turns. The server is durable (fsync on), as in production.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from bench import stored
from bench.clients import TurnTimes, sidecar_client
from bench.processes import Server, gateway, scratch, start_sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio, sample
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.interface import Store
from sidecar.store.postgres import PostgresStore
from sidecar.store.sqlite import SqliteStore
from tests.postgres import PostgresCluster

TITLE = "Several pods on PostgreSQL, against one on SQLite"

_MOST_APPEND = 3.0
_MOST_TURN = 1.05
_MOST_LATER_SECONDS = 0.003
_LEAST_STREAM = 0.85
_ANSWER = "[[say: a short answer of some words]]"
_LONG_CHUNKS = 2000
_LONG_ANSWER = f"[[repeat: word {_LONG_CHUNKS}]]"


async def measure(*, quick: bool) -> list[Row]:
    """Append in both stores; then the same turns on SQLite, on the owner, and through another pod."""
    with scratch() as directory, _postgres() as cluster:
        appends = await _appends(directory, cluster, runs=100 if quick else 2000)
        turns = await _turns(directory, cluster, rounds=4 if quick else 60)
    return [*appends, *turns]


@contextmanager
def _postgres() -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(fsync="on")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


async def _appends(directory: Path, cluster: PostgresCluster, *, runs: int) -> list[Row]:
    stores: dict[str, Store] = {
        "SQLite": SqliteStore(directory / "log.db"),
        "PostgreSQL": PostgresStore(cluster.url()),
    }
    found: dict[str, Samples] = {}
    for name, store in stores.items():
        await store.open()
        log, head = EventLog(database=store), Head(0, 0)
        session_id = await stored.new_session(store)

        async def append(
            log: EventLog = log, head: Head = head, session_id: str = session_id
        ) -> None:
            await log.append(session_id, head, [stored.MESSAGE])

        found[name] = await sample(append, runs=runs, warm_up=20)
        await store.close()
    times = ratio(found["PostgreSQL"].p50, found["SQLite"].p50)
    return [
        Row(
            "append, one session",
            f"{times:.2f} times ({found['PostgreSQL']})",
            f"SQLite: {found['SQLite']}",
            f"at most {_MOST_APPEND:g} times",
            times <= _MOST_APPEND,
        )
    ]


async def _turns(directory: Path, cluster: PostgresCluster, *, rounds: int) -> list[Row]:
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(gateway(directory))
        url = cluster.url()
        pods = {
            "sqlite": await stack.enter_async_context(_pod(directory / "s", models.url, {})),
            "owner": await stack.enter_async_context(_pod(directory / "a", models.url, _on(url))),
            "edge": await stack.enter_async_context(_pod(directory / "b", models.url, _on(url))),
        }
        clients = {
            name: await stack.enter_async_context(sidecar_client(pod.url))
            for name, pod in pods.items()
        }
        own = await clients["sqlite"].new_session(await clients["sqlite"].new_agent())
        shared = await clients["owner"].new_session(await clients["owner"].new_agent())
        sessions = {"sqlite": own, "owner": shared, "edge": shared}
        short: dict[str, list[TurnTimes]] = {name: [] for name in pods}
        long: dict[str, list[TurnTimes]] = {name: [] for name in pods}
        for number in range(rounds + 2):
            for name, client in clients.items():
                times = await client.turn(sessions[name], _ANSWER)
                if number >= 2:  # the first rounds load the directory
                    short[name].append(times)
            if number % 4 == 0:
                for name, client in clients.items():
                    long[name].append(await client.turn(sessions[name], _LONG_ANSWER))
    whole = {name: Samples(tuple(t.whole for t in times)) for name, times in short.items()}
    first = {name: Samples(tuple(t.first_text for t in times)) for name, times in short.items()}
    rates = {
        name: _LONG_CHUNKS / Samples(tuple(t.whole - t.first_text for t in times)).p50
        for name, times in long.items()
    }
    turn = ratio(whole["owner"].p50, whole["sqlite"].p50)
    later = first["edge"].p50 - first["owner"].p50
    stream = ratio(rates["edge"], rates["owner"])
    return [
        Row(
            "whole turn on the owner",
            f"{turn:.2f} times ({whole['owner']})",
            f"SQLite: {whole['sqlite']}",
            f"at most {_MOST_TURN:g} times",
            turn <= _MOST_TURN,
        ),
        Row(
            "first text through another pod",
            f"{later * 1000:+.1f} ms ({first['edge']})",
            f"on the owner: {first['owner']}",
            f"at most {format_seconds(_MOST_LATER_SECONDS)} later",
            later <= _MOST_LATER_SECONDS,
        ),
        Row(
            "a long answer's previews through another pod",
            f"{stream:.2f} times ({rates['edge']:.0f} per second)",
            f"on the owner: {rates['owner']:.0f} per second",
            f"at least {_LEAST_STREAM:g} times",
            stream >= _LEAST_STREAM,
        ),
    ]


def _on(url: str) -> Mapping[str, str]:
    return {
        "DATABASE_URL": url,
        "SIDECAR_VAULT_KEY": base64.b64encode(b"v" * 32).decode(),
        "SIDECAR_CLUSTER_KEY": "key-of-the-pods-of-the-benchmark",
        "SIDECAR_CLUSTER_HOST": "127.0.0.1",
        "SIDECAR_CLUSTER_PORT": "0",
        "SIDECAR_WORKSPACE": "shared",
    }


@asynccontextmanager
async def _pod(
    directory: Path, gateway_url: str, settings: Mapping[str, str]
) -> AsyncIterator[Server]:
    await asyncio.to_thread(directory.mkdir)
    shared = {"WORKDIR": str(directory.parent / "workspaces")} if settings else {}
    server = await start_sidecar(directory, gateway_url, settings={**settings, **shared})
    try:
        await server.program.answers(f"{server.url}/readyz")
        yield server
    finally:
        await server.program.end()
