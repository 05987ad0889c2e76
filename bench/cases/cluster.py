"""What PostgreSQL and several pods cost: an append, a whole turn, a send and a stream over the hop.

Both sides are measured in the same run, in turns. The server is durable (fsync on), as in production.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from bench import stored
from bench.clients import TurnTimes, sidecar_client
from bench.processes import Server, gateway, scratch, start_sidecar
from bench.report import Row
from bench.scale import Measured, Pod, load
from bench.stats import Samples, format_seconds, ratio, sample
from sidecar.cluster.ownership import SharedOwnership
from sidecar.managed.child.mirror import Mirror
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.interface import Store
from sidecar.store.postgres import PostgresStore
from sidecar.store.sqlite import SqliteStore
from sidecar.wire.opencode_events import SyncEvent
from tests.postgres import PostgresCluster

TITLE = "Several pods on PostgreSQL, against one on SQLite"

_MOST_APPEND = 3.0
_MOST_TURN = 1.05
_MOST_LATER_SECONDS = 0.003
_LEAST_STREAM = 0.85
_LEAST_OF_TWO = 1.38
_MOST_MIRROR = 0.03
_SESSIONS = 8
_MIRRORED_TURNS = 100
_MIRROR_WARM_UP = 20
_ANSWER = "[[say: a short answer of some words]]"
_LONG_CHUNKS = 2000
_LONG_ANSWER = f"[[repeat: word {_LONG_CHUNKS}]]"


async def measure(*, quick: bool) -> list[Row]:
    """Append in both stores; the same turns on SQLite, on the owner, and through another pod; then all that
    one pod gives and two; and what the mirror takes of that."""
    with scratch() as directory, _postgres() as cluster:
        appends = await _appends(directory, cluster, runs=100 if quick else 2000)
        turns = await _turns(directory, cluster, quick=quick)
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


async def _turns(directory: Path, cluster: PostgresCluster, *, quick: bool) -> list[Row]:
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(gateway(directory))
        url = cluster.url()
        servers = {
            "sqlite": await stack.enter_async_context(_pod(directory / "s", models.url, {})),
            "owner": await stack.enter_async_context(_pod(directory / "a", models.url, _on(url))),
            "edge": await stack.enter_async_context(_pod(directory / "b", models.url, _on(url))),
        }
        pods = {}
        for name, server in servers.items():
            client = await stack.enter_async_context(sidecar_client(server.url))
            agent = await client.new_agent()
            sessions = [await client.new_session(agent) for _ in range(_SESSIONS)]
            pods[name] = Pod(server, client, sessions)
        rows = await _compared(pods, rounds=6 if quick else 60)
        return [*rows, *await _loaded(pods, url, seconds=3.0 if quick else 12.0)]


async def _compared(pods: Mapping[str, Pod], *, rounds: int) -> list[Row]:
    """Run one turn after the other, in every order: what a turn leaves to be done falls on each alike."""
    shared = pods["owner"].sessions[0]
    sessions = {"sqlite": pods["sqlite"].sessions[0], "owner": shared, "edge": shared}
    orders = itertools.cycle(itertools.permutations(pods))
    short: dict[str, list[TurnTimes]] = {name: [] for name in pods}
    long: dict[str, list[TurnTimes]] = {name: [] for name in pods}
    for number in range(rounds + 2):
        order = next(orders)
        for name in order:
            times = await pods[name].client.turn(sessions[name], _ANSWER)
            if number >= 2:  # the first rounds load the directory
                short[name].append(times)
        if number % 4 == 0:
            for name in order:
                long[name].append(await pods[name].client.turn(sessions[name], _LONG_ANSWER))
    whole = {name: Samples(tuple(t.whole for t in times)) for name, times in short.items()}
    first = {name: Samples(tuple(t.first_text for t in times)) for name, times in short.items()}
    sent = {name: Samples(tuple(t.accepted for t in times)) for name, times in short.items()}
    rates = {
        name: _LONG_CHUNKS / Samples(tuple(t.whole - t.first_text for t in times)).p50
        for name, times in long.items()
    }
    turn = ratio(whole["owner"].p50, whole["sqlite"].p50)
    stream = ratio(rates["edge"], rates["owner"])
    return [
        Row(
            "whole turn on the owner",
            f"{turn:.2f} times ({whole['owner']})",
            f"SQLite: {whole['sqlite']}",
            f"at most {_MOST_TURN:g} times",
            turn <= _MOST_TURN,
        ),
        _later("send through another pod", sent),
        _later("first text through another pod", first),
        Row(
            "a long answer's previews through another pod",
            f"{stream:.2f} times ({rates['edge']:.0f} per second)",
            f"on the owner: {rates['owner']:.0f} per second",
            f"at least {_LEAST_STREAM:g} times",
            stream >= _LEAST_STREAM,
        ),
    ]


def _later(what: str, times: Mapping[str, Samples]) -> Row:
    later = times["edge"].p50 - times["owner"].p50
    return Row(
        what,
        f"{later * 1000:+.1f} ms ({times['edge']})",
        f"on the owner: {times['owner']}",
        f"at most {format_seconds(_MOST_LATER_SECONDS)} later",
        later <= _MOST_LATER_SECONDS,
    )


async def _loaded(pods: Mapping[str, Pod], url: str, *, seconds: float) -> list[Row]:
    """Ask of one pod, and of two over one database, as many turns as they give."""
    for pod in (pods["owner"], pods["edge"]):
        await asyncio.gather(*(pod.client.turn(session, _ANSWER) for session in pod.sessions))
    one = await load([pods["owner"]], sessions=_SESSIONS, seconds=seconds, prompt=_ANSWER)
    two = await load(
        [pods["owner"], pods["edge"]], sessions=_SESSIONS, seconds=seconds, prompt=_ANSWER
    )
    more = ratio(two.turns_per_second, one.turns_per_second)
    share, events = await _mirror_share(url, pods["owner"].sessions[1], one)
    return [
        Row(
            f"turns per second of two pods, {_SESSIONS} sessions busy in each",
            f"{more:.2f} times ({two.turns_per_second:.1f})",
            f"one pod: {one.turns_per_second:.1f}",
            f"at least {_LEAST_OF_TWO:g} times",
            more >= _LEAST_OF_TWO,
        ),
        Row(
            "opencode's history, mirrored: processor time",
            f"{share:.1%} of a turn's ({events:.0f} events)",
            f"opencode {format_seconds(one.child_cpu_per_turn)}, the sidecar "
            f"{format_seconds(one.sidecar_cpu_per_turn)}",
            f"at most {_MOST_MIRROR:.0%}",
            share <= _MOST_MIRROR,
        ),
    ]


async def _mirror_share(url: str, session_id: str, turns: Measured) -> tuple[float, float]:
    """Return what storing the sync events of a turn takes of its processor time, and their number."""
    store = PostgresStore(url)
    await store.open()
    rows = await store.read(
        lambda c: c.execute(
            "SELECT seq, id, type, data FROM child_events WHERE session_id = ? ORDER BY seq",
            (session_id,),
        ).fetchall()
    )
    query = "SELECT count(*) FROM events WHERE session_id = ? AND type = 'user.message'"
    count = await store.read(lambda c: c.execute(query, (session_id,)).fetchone()[0])
    sample_of_turn = rows[-max(1, len(rows) // count) :]
    decoded = [(r["seq"], r["id"], r["type"], json.loads(r["data"])) for r in sample_of_turn]
    ownership = SharedOwnership(database=store, boot_id="bench", home="bench", is_local=False)
    mirror = Mirror(database=store, ownership=ownership, workspaces_dir=Path("/w"))
    log = EventLog(database=store, companion=mirror)

    async def append(*, is_mirrored: bool) -> float:
        """Return the processor time of one append, all threads together."""
        id_ = await stored.new_session(store)
        began = time.process_time()
        if is_mirrored:
            for seq, event_id, type_, data in decoded:
                mirror.note(f"/w/{id_}", SyncEvent(event_id, type_, seq, id_, data))
        await log.append(id_, Head(0, 0), [stored.MESSAGE])
        return time.process_time() - began

    # In turns, and the first ones do not count: they connect, and prepare statements.
    spent: dict[bool, list[float]] = {False: [], True: []}
    for number in range(_MIRRORED_TURNS + _MIRROR_WARM_UP):
        for is_mirrored, found in spent.items():
            seconds = await append(is_mirrored=is_mirrored)
            if number >= _MIRROR_WARM_UP:
                found.append(seconds)
    stored_events = mirror.stored
    await store.close()
    if stored_events != len(decoded) * (_MIRRORED_TURNS + _MIRROR_WARM_UP):
        raise RuntimeError("the mirror stored something else than was given to it")
    more = Samples(tuple(spent[True])).p50 - Samples(tuple(spent[False])).p50
    return more / (turns.child_cpu_per_turn + turns.sidecar_cpu_per_turn), len(decoded)


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
