"""Pods, and the database, die under load: nothing accepted is lost, nothing runs twice, streams stay open.

Bounded by default, with a fixed seed; `CLUSTER_KILLS=200 make cluster` is the long form.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.bed import LEASE_SECONDS, NO_DEATHS, Bed, Pod, cluster_of
from tests.event_rules import check_events
from tests.harness import HELD_CALL, http_client, release, text_of, types_of
from tests.postgres import PostgresCluster
from tests.raw_client import RawClient, plain
from tests.sidecar_process import processes_of
from tests.waiting import until

# A turn that a death loses or doubles once is lost or doubled: no second try (`.ci/run` gives one to others).
pytestmark = pytest.mark.flaky(reruns=0)

KILLS = int(os.environ.get("CLUSTER_KILLS", "3"))
SEED = int(os.environ.get("CLUSTER_SEED", "13"))


@pytest.fixture(scope="module")
async def bed(postgres: PostgresCluster) -> AsyncIterator[Bed]:
    """A cluster of this module's own: its pods die."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        async with cluster_of(2, Path(directory), postgres) as made:
            yield made


def alive(bed: Bed) -> list[Pod]:
    """Return the pods that run."""
    return [pod for pod in bed.pods if pod.process.process.returncode is None]


async def ready_pair(bed: Bed) -> tuple[Pod, Pod]:
    """Return two pods whose opencode is ready."""
    while len(alive(bed)) < 2:
        await bed.start_pod()
    one, two = alive(bed)[-2:]
    for pod in (one, two):
        await pod.process.logged("child ready", seconds=120)
    return one, two


@pytest.mark.parametrize("number", range(KILLS))
async def test_an_owner_that_is_killed_in_a_turn(bed: Bed, number: int) -> None:
    """The client is on another pod: its stream stays open, shows the honest end of the cut turn, and what
    waited runs there, with the whole conversation."""
    chance = random.Random(SEED * 1000 + number)
    owner, edge = await ready_pair(bed)
    async with http_client(edge.url) as at_edge:
        session = await bed.new_session(owner)
        client = RawClient(at_edge)
        await client.turn(session, "[[say: before]]")
        async with client.stream(session) as reader:
            accepted = await client.send(session, "[[bash: sleep 5]] [[then]] [[say: slept]]")
            if chance.random() < 0.7:
                await reader.until("agent.tool_use")
            accepted += await client.send(session, "[[say: after]]")
            await asyncio.sleep(chance.uniform(0.0, 0.2))  # the moment of death is the seed's
            await bed.kill(owner)
            # A turn whose model was not asked yet is begun again, any other is cut; then the next one runs.
            while not text_of(reader.seen).endswith("after"):
                await reader.until("agent.message", seconds=120)
            await reader.until("session.status_idle")
        events = await client.events(session)
    check_events(events)
    ids = Counter(event["id"] for event in events)
    assert all(ids[event["id"]] == 1 for event in accepted)
    stream_ids = [event["id"] for event in reader.seen]
    assert stream_ids == [e["id"] for e in events][-len(stream_ids) :]
    is_cut = bool(plain(events, "session.error"))
    assert text_of(events) == ("beforeafter" if is_cut else "beforesleptafter")
    conversation = str(list(bed.gateway.requests)[-1])
    for words in ("[[say: before]]", "[[bash: sleep 5]]", "[[say: after]]"):
        assert words in conversation


async def test_the_pod_with_the_clients_stream_is_killed(bed: Bed) -> None:
    """The client connects anew, to another pod, and finds everything; the turn was not disturbed."""
    owner, edge = await ready_pair(bed)
    async with http_client(owner.url) as at_owner:
        client = RawClient(at_owner)
        session = await bed.new_session(owner)
        async with http_client(edge.url) as at_edge, RawClient(at_edge).stream(session) as reader:
            await RawClient(at_edge).send(session, HELD_CALL)
            await reader.until("agent.tool_use")
            await bed.kill(edge)
            with pytest.raises((aiohttp.ClientError, AssertionError)):
                await reader.until("session.status_idle")
        release(bed.directory / "workspaces" / session)
        await _is_idle(client, session)
        events = await client.events(session)
    check_events(events)
    assert not plain(events, "session.error")


async def test_a_pod_that_stands_still_for_longer_than_its_lease(bed: Bed) -> None:
    """Its opencode is dead before another pod goes on; what it would commit later is refused, and it comes
    back as a pod that owns nothing."""
    owner, other = await ready_pair(bed)
    async with http_client(owner.url) as at_owner, http_client(other.url) as at_other:
        session = await bed.new_session(owner)
        client = RawClient(at_other)
        async with client.stream(session) as reader:
            await client.send(session, "[[bash: sleep 600]]")
            await reader.until("agent.tool_use")
            opencode = owner.process.entries("child started")[-1]["pid"]
            owner.process.send(signal.SIGSTOP)
            try:
                await reader.until("session.error")
                assert not Path(f"/proc/{opencode}").exists() or _is_zombie(opencode)
                await reader.until("session.status_idle")
                await asyncio.sleep(LEASE_SECONDS)  # it stands still for longer than its lease
            finally:
                owner.process.send(signal.SIGCONT)
            await client.turn(session, "[[say: went on]]")
        # Woken up it serves again, and asks the new owner.
        await _is_idle(RawClient(at_owner), session)
        events = await RawClient(at_owner).events(session)
    check_events(events)
    assert types_of(events).count("session.error") == 1
    assert text_of(events) == "went on"


async def crash_in_turns(bed: Bed, server: PostgresCluster) -> None:
    """Run four turns, crash and start the database meanwhile, and check the turns."""
    async with http_client(bed.pods[0].url) as http:
        client = RawClient(http)
        sessions = [await client.new_session() for _ in range(4)]
        turns = [
            asyncio.create_task(client.turn(session, "[[slow: 30x0.1 tick]]"))
            for session in sessions
        ]
        await asyncio.sleep(1.0)  # in the middle of the turns, whatever their state
        await asyncio.to_thread(server.stop, "immediate")
        await asyncio.to_thread(server.start)
        await asyncio.gather(*turns)
        for session in sessions:
            events = await client.events(session)
            check_events(events)
            assert not plain(events, "session.error")


async def test_a_crash_of_the_database_cuts_no_turn(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`pg_ctl restart -m immediate` while turns run: shorter than the lease, so nothing is cut or lost."""
    server = PostgresCluster(fsync="on")
    server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
            async with cluster_of(1, Path(directory), server, **NO_DEATHS) as bed:
                await crash_in_turns(bed, server)
    finally:
        server.close()


async def test_a_pod_that_stops_hands_its_sessions_over(bed: Bed) -> None:
    """SIGTERM: idle sessions are another's at once; a turn shorter than the drain ends without an error."""
    leaving, staying = await ready_pair(bed)
    async with http_client(leaving.url) as at_leaving, http_client(staying.url) as at_staying:
        idle = await bed.new_session(leaving)
        await RawClient(at_leaving).turn(idle, "[[say: one]]")
        busy = await bed.new_session(leaving)
        client = RawClient(at_staying)
        async with client.stream(busy) as reader:
            await client.send(busy, "[[slow: 20x0.1 tick]]")
            await reader.until("session.status_running")
            bed.front.remove(leaving.url)
            leaving.process.send(signal.SIGTERM)
            await client.send(idle, "[[say: two]]")
            await reader.until("session.status_idle")
            events = await client.events(busy)
            check_events(events)
            assert not plain(events, "session.error")
            await client.send(busy, "[[say: on]]")
            await reader.until("session.status_idle")
            assert await leaving.process.ended() == 0

            async def has_both() -> bool:
                return text_of(await client.events(idle)) == "onetwo"

            await until(has_both)
    assert processes_of(leaving.data_dir) == []


async def _is_idle(client: RawClient, session: str) -> None:
    """Wait until no turn of the session runs."""

    async def is_idle() -> bool:
        return await client.status(session) == "idle"

    await until(is_idle)


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
