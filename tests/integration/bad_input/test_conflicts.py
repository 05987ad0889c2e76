"""Requests that are well-formed and come at the wrong time."""

import pytest

from tests.harness import user_message
from tests.integration.bad_input.server import (
    Server,
)


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


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/agents"),
        ("DELETE", "/v1/agents/{agent}"),
        ("PATCH", "/v1/sessions/{id}"),
        ("POST", "/v1/models"),
    ],
)
async def test_methods_that_are_not_offered(
    server: Server, agent: str, session: str, method: str, path: str
) -> None:
    """A method we do not have is an envelope with 404 or 405."""
    before = server.counts()
    target = path.format(agent=agent, id=session)
    async with server.http.request(method, target, json={}) as response:
        body = await response.json()
        assert response.status in {404, 405}, body
        assert body["error"]["type"] == "not_found_error"
    assert server.counts() == before
