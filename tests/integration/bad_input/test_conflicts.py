"""Requests that are well-formed and come at the wrong time."""

import asyncio

import pytest

from sidecar.ids import new_id
from tests.harness import user_message
from tests.integration.bad_input.server import (
    AGENT,
    Server,
)
from tests.waiting import patience


async def test_conflicts_tell_the_sdk_not_to_retry(server: Server, agent: str, place: str) -> None:
    """A stale version and an ended session are 409 with `x-should-retry: false`."""
    answer = await server.refused(
        "POST", f"/v1/agents/{agent}", 409, "conflict_error", "version", json={"version": 9}
    )
    assert answer["headers"]["x-should-retry"] == "false"
    made = await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    await server.raw.call("POST", f"/v1/sessions/{made['id']}/archive")
    body = {"events": [user_message("x")]}
    answer = await server.refused(
        "POST", f"/v1/sessions/{made['id']}/events", 409, "conflict_error", "ended", json=body
    )
    assert answer["headers"]["x-should-retry"] == "false"


async def test_an_update_cannot_clear_what_must_be_there(server: Server, agent: str) -> None:
    """Null for name or model is a 400, and the version stays."""
    for body in ({"name": None}, {"model": None}, {"version": 0}, {"version": "1"}):
        await server.refused("POST", f"/v1/agents/{agent}", 400, "invalid_request_error", json=body)
    assert (await server.raw.call("GET", f"/v1/agents/{agent}"))["version"] == 1


async def test_updates_at_the_same_time_without_a_version(server: Server) -> None:
    """The last one wins, field by field, and none is a conflict: each becomes a version."""
    made = await server.raw.call("POST", "/v1/agents", AGENT)
    path = f"/v1/agents/{made['id']}"
    await asyncio.gather(
        *(server.raw.call("POST", path, {"metadata": {f"k{n}": "v"}}) for n in range(10)),
        server.raw.call("POST", path, {"system": "be brief", "model": "openai/gpt-4o-mini"}),
        server.raw.call("POST", path, {"description": "d", "model": "openai/gpt-4o-mini"}),
    )
    agent = await server.raw.call("GET", path)
    assert agent["version"] == 13
    assert agent["metadata"] == {f"k{n}": "v" for n in range(10)}
    assert (agent["system"], agent["description"]) == ("be brief", "d")
    assert agent["model"] == {"id": "openai/gpt-4o-mini"}


async def test_one_of_many_updates_with_the_same_version_is_taken(server: Server) -> None:
    """A caller that sends a version gets a conflict when another was faster."""
    made = await server.raw.call("POST", "/v1/agents", AGENT)

    async def update(n: int) -> int:
        body = {"version": 1, "name": f"n{n}"}
        async with server.http.post(f"/v1/agents/{made['id']}", json=body) as response:
            return response.status

    statuses = await asyncio.gather(*map(update, range(6)))
    assert sorted(statuses) == [200, *[409] * 5]


async def test_effort_survives_an_update_only_when_omitted(server: Server) -> None:
    """An effort that is sent as null is taken away; an omitted one stays while the model does."""
    model = {"id": "claude-sonnet-4-5", "effort": "high"}
    made = await server.raw.call("POST", "/v1/agents", AGENT | {"model": model})
    path = f"/v1/agents/{made['id']}"
    kept = await server.raw.call("POST", path, {"model": {"id": "claude-sonnet-4-5"}})
    assert kept["model"]["effort"] == {"type": "high"}
    cleared = await server.raw.call("POST", path, {"model": model | {"effort": None}})
    assert "effort" not in cleared["model"]


@pytest.mark.parametrize("kind", ["agents", "environments", "vaults", "sessions"])
async def test_the_bound_of_metadata_is_that_of_the_result(
    server: Server, agent: str, place: str, kind: str
) -> None:
    """A patch may take away as it adds; what would be left with 17 pairs is refused."""
    bodies = {
        "agents": AGENT,
        "environments": {"name": "e"},
        "vaults": {"display_name": "v"},
        "sessions": {"agent": agent, "environment_id": place},
    }
    made = await server.raw.call("POST", f"/v1/{kind}", bodies[kind] | {"metadata": {"old": "v"}})
    path = f"/v1/{kind}/{made['id']}"
    new = {f"k{n}": "v" for n in range(16)}
    changed = await server.raw.call("POST", path, {"metadata": new | {"old": None}})
    assert changed["metadata"] == new
    refused = await server.refused(
        "POST", path, 400, "invalid_request_error", "16", json={"metadata": {"one more": "v"}}
    )
    assert refused["error"]["details"] == {"error_code": "invalid_metadata"}


async def test_a_thread_is_archived_with_its_session(
    server: Server, agent: str, place: str
) -> None:
    """The only thread cannot be archived alone; that of an archived session is archived already."""
    made = await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    base = f"/v1/sessions/{made['id']}"
    (thread,) = (await server.raw.call("GET", f"{base}/threads"))["data"]
    path = f"{base}/threads/{thread['id']}/archive"
    await server.refused("POST", path, 400, "invalid_request_error", "archive session")
    unknown = f"{base}/threads/{new_id('sthr')}/archive"
    await server.refused("POST", unknown, 404, "not_found_error", "thread")
    await server.raw.call("POST", f"{base}/archive")
    archived = await server.raw.call("POST", path)
    assert (archived["id"], archived["status"]) == (thread["id"], "terminated")
    assert archived["archived_at"]


@pytest.mark.parametrize("tail", ["events/stream", "threads/{thread}/stream"])
async def test_a_stream_has_no_head(server: Server, session: str, tail: str) -> None:
    """It would never end."""
    (thread,) = (await server.raw.call("GET", f"/v1/sessions/{session}/threads"))["data"]
    path = f"/v1/sessions/{session}/{tail.format(thread=thread['id'])}"
    async with patience(), server.http.head(path) as response:
        assert (response.status, response.headers["allow"]) == (405, "GET")
    async with server.http.head(f"/v1/sessions/{session}/events") as response:
        assert response.status == 200
