"""Sessions change their pod while clients talk: rolling restarts, scaling, lost answers, gaps in the history.

Bounded by default; `CLUSTER_LOAD=30 make cluster` is the long form.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.cluster.bed import NO_DEATHS, Bed, Pod, cluster_of
from tests.cluster.proxies import CuttingProxy
from tests.event_rules import check_events
from tests.harness import RUNTIME_KEY, http_client, text_of, types_of, user_message
from tests.postgres import PostgresCluster
from tests.raw_client import TOOLSET, RawClient, plain
from tests.waiting import patience, until

LOAD = int(os.environ.get("CLUSTER_LOAD", "4"))
"""Sessions that run turns meanwhile."""
_PROXIED = "127.0.0.2"
"""The address under which pods know each other where a proxy is between them."""
LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


@pytest.fixture
async def bed(postgres: PostgresCluster) -> AsyncIterator[Bed]:
    """Three pods of the test's own."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        async with cluster_of(3, Path(directory), postgres, **NO_DEATHS) as made:
            yield made


@pytest.fixture(scope="module")
async def pair(postgres: PostgresCluster) -> AsyncIterator[Bed]:
    """Two pods that reach each other through proxies; the tests replace those that they kill."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        settings = {"SIDECAR_CLUSTER_ADDRESS": _PROXIED}
        async with cluster_of(2, Path(directory), postgres, **settings) as made:
            yield made


@asynccontextmanager
async def proxied(pods: list[Pod]) -> AsyncIterator[list[CuttingProxy]]:
    """Run a proxy before the internal listener of each pod."""
    proxies = []
    try:
        for pod in pods:
            address = (await pod.process.logged("joined the cluster"))["address"]
            proxies.append(CuttingProxy(_PROXIED, int(address.rpartition(":")[2])))
            await proxies[-1].start()
        yield proxies
    finally:
        for proxy in proxies:
            await proxy.close()


async def ready_pair(bed: Bed) -> list[Pod]:
    """Return two pods whose opencode is ready."""
    pods = [pod for pod in bed.pods if pod.process.process.returncode is None]
    while len(pods) < 2:
        pods.append(await bed.start_pod())
    for pod in pods:
        await pod.process.logged("child ready", seconds=120)
    return pods[-2:]


class Load:
    """Clients of the one URL that talk until they are stopped, each request on a connection of its own.

    Each session has a reader, too, which connects anew when the pod of its stream ends.
    """

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._is_over = asyncio.Event()
        self.sessions: list[str] = []
        self.turns = 0
        self.streams: dict[str, list[list[str]]] = {}
        """Ids of events, of each stream that was open to the end of its pod, by session."""

    @asynccontextmanager
    async def run(self, count: int) -> AsyncIterator[Load]:
        """Run `count` sessions meanwhile; afterwards check what each of them has."""
        async with aiohttp.ClientSession(
            self._bed.front.url,
            headers={"x-api-key": RUNTIME_KEY},
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
        ) as http:
            client = RawClient(http)
            self.sessions = [await client.new_session() for _ in range(count)]
            async with asyncio.TaskGroup() as talks:
                readers = [
                    asyncio.create_task(self._listen(client, session)) for session in self.sessions
                ]
                for session in self.sessions:
                    talks.create_task(self._talk(client, session))
                try:
                    yield self
                finally:
                    self._is_over.set()
            for session in self.sessions:
                events = await client.events(session)
                check_events(events)
                assert not plain(events, "session.error"), session
                self._check_streams(session, [event["id"] for event in events])
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    def _check_streams(self, session: str, listed: list[str]) -> None:
        """A stream shows every event once, also while its session moves from pod to pod."""
        assert any(self.streams[session])
        for ids in filter(None, self.streams[session]):
            start = listed.index(ids[0])
            assert listed[start : start + len(ids)] == ids, session

    async def _listen(self, client: RawClient, session: str) -> None:
        streams = self.streams.setdefault(session, [])
        while True:
            ids: list[str] = []
            streams.append(ids)
            with contextlib.suppress(aiohttp.ClientError):
                async with client.http.get(
                    f"/v1/sessions/{session}/events/stream", timeout=aiohttp.ClientTimeout()
                ) as response:
                    async for line in response.content:
                        if not line.startswith(b"data: "):
                            continue
                        ids.append(json.loads(line.removeprefix(b"data: "))["id"])
            await asyncio.sleep(0.1)

    async def _talk(self, client: RawClient, session: str) -> None:
        path = f"/v1/sessions/{session}/events"
        for number in itertools.count(1):
            if self._is_over.is_set():
                return
            await self._answer(
                client, "POST", path, {"events": [user_message(f"[[slow: 5x0.1 {number}]]")]}
            )
            await until(partial(self._has_ended, client, path, number))
            self.turns += 1

    async def _has_ended(self, client: RawClient, path: str, number: int) -> bool:
        events = (await self._answer(client, "GET", path))["data"]
        return types_of(events).count("session.status_idle") == number

    @staticmethod
    async def _answer(client: RawClient, method: str, path: str, body: Any = None) -> Any:
        """Return an answer as an SDK does: a 503 is asked again."""
        async with patience():
            while True:
                async with client.http.request(method, path, json=body) as response:
                    if response.status == 503:
                        await asyncio.sleep(float(response.headers["retry-after"]))
                        continue
                    answer = await response.json()
                    assert response.status == 200, answer
                    return answer

    async def more(self, turns: int) -> None:
        """Wait for that many turns from now."""
        wanted = self.turns + turns
        await until(lambda: self.turns >= wanted)


async def stop(bed: Bed, pod: Pod) -> None:
    """End a pod as Kubernetes does: out of the Service, then SIGTERM."""
    bed.front.remove(pod.url)
    pod.process.send(signal.SIGTERM)
    assert await pod.process.ended() == 0


async def test_a_rolling_restart_is_not_noticed(bed: Bed) -> None:
    """One pod after the other ends and comes back on its data directory while turns run: no error."""
    async with Load(bed).run(LOAD) as load:
        await load.more(LOAD)
        for pod in list(bed.pods):
            await stop(bed, pod)
            back = await bed.start_pod(pod.name)
            await back.process.logged("child ready", seconds=120)
            await load.more(1)
    assert load.turns > LOAD


async def test_pods_come_and_go(bed: Bed) -> None:
    """Three pods, then five, then two, while turns run: no error, and new pods get sessions."""
    async with Load(bed).run(LOAD) as load:
        more = await asyncio.gather(bed.start_pod("pod-3"), bed.start_pod("pod-4"))
        for pod in more:
            await pod.process.logged("child ready", seconds=120)
        await load.more(1)
        async with http_client(more[0].url) as http:
            session = await RawClient(http).new_session()
            await RawClient(http).turn(session, "[[say: new]]")
        for pod in bed.pods[:3]:
            await stop(bed, pod)
            await load.more(1)
    with psycopg.connect(bed.database_url) as connection:
        query = "SELECT count(*) FROM boots WHERE expires_at > clock_timestamp()"
        assert connection.execute(query).fetchone() == (2,)


async def test_the_model_sees_the_same_conversation_after_a_move(pair: Bed) -> None:
    """What the gateway is sent for a session whose pod died is what it is sent for one that stayed."""
    owner, other = await ready_pair(pair)
    first = "[[bash: echo one > file; cat file]] [[then]] [[say: a]]"
    second = "[[bash: cat file]] [[then]] [[say: b]]"
    seen = []
    async with http_client(owner.url) as at_owner, http_client(other.url) as at_other:
        moved = await pair.new_session(owner)
        stays = await pair.new_session(other)
        for at, session in ((at_owner, moved), (at_other, stays)):
            await RawClient(at).turn(session, first)
        await pair.kill(owner)
        for session in (moved, stays):
            await RawClient(at_other).turn(session, second, seconds=120)
            request = next(r for r in reversed(pair.gateway.requests) if session in str(r.body))
            seen.append(without_ids(request.body, session))
    assert seen[0] == seen[1]
    assert "one" in str(seen[0])


def without_ids(body: Any, session: str) -> Any:
    """Return a model request without what names the session or a moment."""
    text = json.dumps(body, sort_keys=True).replace(session, "SESSION")
    return json.loads(re.sub(r"\b(call|toolu|msg|prt|ses|sevt)_[A-Za-z0-9]+", r"\1", text))


async def test_a_history_with_a_gap_goes_on_from_a_transcript(pair: Bed) -> None:
    """Events of opencode were lost: the next owner's model is given the messages as text, once; then the
    session has a whole history again and can move with it."""
    owner, other = await ready_pair(pair)
    async with http_client(owner.url) as http:
        session = await pair.new_session(owner)
        await RawClient(http).turn(session, "[[say: remember]]")
    with psycopg.connect(pair.database_url) as connection:
        connection.execute("DELETE FROM child_events WHERE session_id = %s AND seq = 3", (session,))
    await pair.kill(owner)
    async with http_client(other.url) as http:
        await RawClient(http).turn(session, "[[say: on]]", seconds=120)
        conversation = str(pair.gateway.requests[-1].body)
        assert "moved to another machine" in conversation
        assert "remember" in conversation
    await pair.kill(other)
    _, last = await ready_pair(pair)
    async with http_client(last.url) as http:
        await RawClient(http).turn(session, "[[say: again]]", seconds=120)
        conversation = str(pair.gateway.requests[-1].body)
        for words in ("remember", "[[say: on]]", "[[say: again]]"):
            assert words in conversation
        events = await RawClient(http).events(session)
    check_events(events)
    assert text_of(events) == "rememberonagain"


@pytest.mark.parametrize("owner_dies", [False, True], ids=["owner lives", "owner dies"])
async def test_an_answer_that_is_lost_between_pods(pair: Bed, *, owner_dies: bool) -> None:
    """The owner accepted a message and the other pod did not hear it: the client gets one answer, and the
    message runs once."""
    owner, edge = await ready_pair(pair)
    async with (
        proxied([owner, edge]) as (before_owner, _),
        http_client(edge.url) as at_edge,
    ):
        session = await pair.new_session(owner)
        client = RawClient(at_edge)
        await client.turn(session, "[[say: one]]")
        before_owner.cut_next(f"POST /peer/v1/sessions/{session}/events".encode())
        sending = asyncio.create_task(client.send(session, "[[say: two]]"))
        await until(lambda: before_owner.cuts)
        if owner_dies:
            await pair.kill(owner)
        (accepted,) = await sending

        async def is_over() -> bool:
            events = await client.events(session)
            return text_of(events) == "onetwo" and types_of(events)[-1] == "session.status_idle"

        await until(is_over)
        events = await client.events(session)
    check_events(events)
    assert text_of(events) == "onetwo"
    messages = [event["id"] for event in plain(events, "user.message")]
    assert messages.count(accepted["id"]) == 1
    assert len(messages) == 2


async def test_a_call_that_waits_for_the_client_survives_its_pod(pair: Bed) -> None:
    """The owner dies while a custom tool waits: the answer goes to another pod, and the turn goes on."""
    owner, other = await ready_pair(pair)
    async with http_client(owner.url) as at_owner, http_client(other.url) as at_other:
        session = await pair.new_session(owner, tools=[TOOLSET, LOOKUP])
        seen = await RawClient(at_owner).turn(session, '[[tool: lookup {"word": "hey"}]]')
        (call,) = seen[-1]["stop_reason"]["event_ids"]
        await pair.kill(owner)
        client = RawClient(at_other)
        answer = {
            "type": "user.custom_tool_result",
            "custom_tool_use_id": call,
            "content": [{"type": "text", "text": "hey!"}],
        }
        async with client.stream(session) as reader:
            await client.send_events(session, answer)
            await reader.until("session.status_idle", seconds=120)
        events = await client.events(session)
    check_events(events)
    assert not plain(events, "session.error")
    assert "hey!" in text_of(events)
