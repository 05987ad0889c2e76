"""Limits, cursors and filters out of range."""

import base64
from typing import get_args

import pytest
from anthropic.types.beta.sessions import BetaManagedAgentsSessionEventType

from tests.integration.bad_input.server import (
    Server,
)

HALF_A_PAIR = rb'["desc", "\ud800", "x", 0]'


def cursor(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


NUMBERS = ["0", "-1", "--5", "1.5", "abc", "", "9" * 5000, "1e3", "+3", " 7"]


@pytest.mark.parametrize("limit", NUMBERS)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/agents",
        "/v1/environments",
        "/v1/sessions",
        "/v1/models",
        "/v1/sessions/{id}/events",
        "/v1/sessions/{id}/threads",
    ],
)
async def test_limits_out_of_range(server: Server, session: str, path: str, limit: str) -> None:
    """A limit that is not a number in range is a 400 that names the range."""
    await server.refused(
        "GET",
        path.format(id=session),
        400,
        "invalid_request_error",
        "limit",
        "1",
        params={"limit": limit},
    )


@pytest.mark.parametrize(
    ("path", "query", "says"),
    [
        ("/v1/agents", "page=nonsense", "next_page"),
        ("/v1/agents", "page=%00", "next_page"),
        ("/v1/agents", "page=WzEsMl0", "next_page"),
        ("/v1/agents", "page=e30", "next_page"),
        ("/v1/agents", f"page={cursor(HALF_A_PAIR)}", "next_page"),
        ("/v1/agents", f"page={cursor(b'[' * 3000)}", "next_page"),
        ("/v1/sessions", f"page={cursor(b'[' * 150 + b']' * 150)}", "next_page"),
        ("/v1/agents", "include_archived=maybe", "true or false"),
        ("/v1/agents", "created_at[gte]=yesterday", "RFC 3339"),
        ("/v1/sessions", "order=sideways", "asc or desc"),
        ("/v1/sessions", "statuses[]=asleep", "idle"),
        ("/v1/sessions", "agent_version=1", "agent_id"),
        ("/v1/sessions", f"agent_id=x&agent_version={'9' * 30}", "agent_version"),
        ("/v1/sessions/{id}/threads", "page=bogus", "page"),
        ("/v1/sessions/{id}/threads", "statuses[]=bogus", "idle"),
        ("/v1/sessions/{id}/events", "types[]=lap.text", "types"),
        ("/v1/sessions/{id}/events", "types[]=session.deleted", "types"),
        ("/v1/sessions/{id}/events", "page=nonsense", "next_page"),
        ("/v1/sessions/{id}/events", "created_at[lt]=x", "RFC 3339"),
        ("/v1/sessions/{id}/events/stream", "event_deltas[]=user.message", "event_deltas"),
        ("/v1/agents/{agent}", "version=0", "version"),
        ("/v1/agents/{agent}", "version=x", "version"),
        ("/v1/agents/{agent}", f"version={'9' * 5000}", "version"),
        ("/v1/models", "after_id=gone", "after_id"),
        ("/v1/models", "before_id=gone", "before_id"),
        ("/v1/models", "after_id=openai/gpt-4o&before_id=openai/gpt-4o-mini", "before_id"),
        ("/v1/models", "lifecycle[]=asleep", "lifecycle"),
        ("/v1/models", "refresh=perhaps", "true or false"),
    ],
)
async def test_wrong_queries(
    server: Server, agent: str, session: str, path: str, query: str, says: str
) -> None:
    """Each wrong query parameter is a 400 that says what is right; so are both cursors at once."""
    from yarl import URL

    target = f"{path.format(id=session, agent=agent)}?{query}"
    url = URL(server.url + target, encoded="%" in query)
    await server.refused("GET", str(url.relative()), 400, "invalid_request_error", says)


async def test_a_cursor_of_the_other_order(
    server: Server, session: str, place: str, agent: str
) -> None:
    """A cursor is bound to the order it was made with."""
    await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    page = await server.raw.call("GET", "/v1/sessions?limit=1")
    await server.refused(
        "GET",
        f"/v1/sessions?limit=1&order=asc&page={page['next_page']}",
        400,
        "invalid_request_error",
        "order",
    )


@pytest.mark.parametrize("type_", get_args(BetaManagedAgentsSessionEventType))
async def test_every_event_type_of_the_sdk_is_a_filter(
    server: Server, session: str, type_: str
) -> None:
    """Also of events that are never emitted here: such a list is empty."""
    page = await server.raw.call("GET", f"/v1/sessions/{session}/events?types[]={type_}")
    assert page == {"data": [], "next_page": None}
