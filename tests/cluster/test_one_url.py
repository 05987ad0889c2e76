"""Three pods behind one URL are one Managed Agents API: the official client does not notice."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psycopg

from tests.cluster.bed import Bed
from tests.e2e.test_smoke_client import (  # noqa: F401  # collected here, too: against the cluster
    Sdk,
    history,
    open_session,
    send,
    test_a_turn_with_previews,
    test_agents,
    test_environments,
    test_sessions,
    until,
)
from tests.event_rules import check_events
from tests.harness import http_client, types_of, user_message
from tests.raw_client import RawClient

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
