"""Three pods behind one URL are one Managed Agents API: the official client does not notice."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp
import psycopg

from tests.cluster.bed import Bed
from tests.e2e.test_smoke_client import (  # noqa: F401  # collected here, too: against the cluster
    Sdk,
    history,
    open_session,
    send,
    test_a_turn_with_previews,
    test_agents,
    test_archive_and_delete,
    test_confirmations,
    test_custom_tools,
    test_environments,
    test_interrupt_and_reconnect,
    test_models,
    test_sessions,
    test_tool_runner,
    until,
)
from tests.event_rules import check_events
from tests.harness import http_client, types_of, user_message
from tests.lap_client import HEADERS, Lap, shown
from tests.raw_client import RawClient
from tests.waiting import patience

SESSIONS = int(os.environ.get("CLUSTER_SESSIONS", "9"))
TURNS = int(os.environ.get("CLUSTER_TURNS", "2"))


async def test_many_sessions_over_all_pods(bed: Bed, sdk: Sdk) -> None:
    """Each stream shows what the list has, every turn ends once, and more than one pod has run turns.

    A pod that is full gives new sessions away, so on a busy machine it need not be all of them.
    """
    agent = await sdk.beta.agents.create(name="coder", model="openai/gpt-4o")
    place = await sdk.beta.environments.create(name="place")

    async def talk(number: int) -> str:
        session = await sdk.beta.sessions.create(agent=agent.id, environment_id=place.id)
        async with await sdk.beta.sessions.events.stream(session.id) as stream:
            seen: list[Any] = []
            for turn in range(TURNS):
                await send(sdk, session.id, user_message(f"[[say: {number}-{turn}]]"))
                seen += await until(stream, "session.status_idle")
        listed = await history(sdk, session.id)
        assert [e.id for e in seen] == [e.id for e in listed]
        check_events([e.model_dump(mode="json") for e in listed])
        assert types_of(listed).count("session.status_idle") == TURNS
        return session.id

    sessions = await asyncio.gather(*map(talk, range(SESSIONS)))
    with psycopg.connect(bed.database_url) as connection:
        query = "SELECT count(DISTINCT owner_boot) FROM sessions WHERE id = ANY(%s)"
        row = connection.execute(query, (sessions,)).fetchone()
    assert row is not None
    assert row[0] > 1


async def test_laps_readers(bed: Bed) -> None:
    """Drain, channel, late reader and page, each request at another pod: each gets its turn, once."""
    async with aiohttp.ClientSession(
        bed.front.url, headers=HEADERS, connector=aiohttp.TCPConnector(force_close=True)
    ) as http:
        lap = Lap(None, http)
        session = await lap.new_session()
        async with lap.stream(session) as page:
            for number in range(3):
                seen = await lap.drained_turn(session, f"[[say: drained {number}]]")
                assert shown(seen) == f"drained {number}"
                assert types_of(seen)[0] == "user.message"
                assert shown(await page.drain()) == f"drained {number}"
        other = await lap.new_session()
        async with lap.stream(other) as channel:
            drained = await lap.drained_turn(other, "[[say: mine]]")
            assert await channel.drain() == drained
        third = await lap.new_session()
        await lap.raw.send(third, "[[say: quick]]")
        async with patience():
            while await lap.raw.status(third) != "idle":
                await asyncio.sleep(0.05)
        async with lap.stream(third) as late:
            assert shown(await late.drain()) == "quick"


async def test_a_pod_that_is_not_the_owner_answers_like_it(bed: Bed) -> None:
    """Errors of a forwarded request have one request id, that of the pod that was asked."""
    async with http_client(bed.pods[0].url) as one, http_client(bed.pods[1].url) as two:
        session = await RawClient(one).new_session()
        for http in (one, two):
            async with http.post(f"/v1/sessions/{session}/events", json={"events": []}) as response:
                body = await response.json()
                assert response.status == 400
                assert body["request_id"] == response.headers["request-id"]
                assert body["error"]["type"] == "invalid_request_error"


async def test_the_internal_listener_wants_its_key(bed: Bed) -> None:
    """Neither without a key nor with the clients' key does it say anything."""
    address = (await bed.pods[0].process.logged("joined the cluster"))["address"]
    for key in (None, "runtime-key-of-the-tests"):
        async with (
            http_client(f"http://{address}", key) as http,
            http.post("/peer/v1/sessions", json={}) as response,
        ):
            assert response.status == 401


async def test_opencodes_own_api_is_not_offered(bed: Bed) -> None:
    """It knows the sessions of one opencode only, and there are several."""
    async with http_client(bed.front.url) as http, http.get("/session") as response:
        assert response.status == 404
        assert (await response.json())["error"]["type"] == "not_found_error"
