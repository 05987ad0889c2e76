"""Events that a session cannot take."""

from typing import Any

import pytest

from tests.harness import user_message
from tests.integration.bad_input.server import (
    UNKNOWN,
    Server,
)


@pytest.mark.parametrize(
    "events",
    [
        None,
        [],
        {},
        [{}],
        [{"type": "user.shout", "content": []}],
        [{"type": "agent.message", "content": [{"type": "text", "text": "x"}]}],
        [{"type": "user.message"}],
        [{"type": "user.message", "content": []}],
        [{"type": "user.message", "content": [{"type": "text"}]}],
        [{"type": "user.message", "content": [{"type": "redacted"}]}],
        [{"type": "user.message", "content": [{"type": "text", "text": 7}]}],
        [
            {
                "type": "user.message",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "!"},
                    }
                ],
            }
        ],
        [user_message("fine"), {"type": "user.message"}],
        [user_message("fine"), {"type": "user.tool_confirmation"}],
        [{"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "allow"}],
        [{"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "perhaps"}],
        [{"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_x", "content": []}],
        [{"type": "user.tool_result", "tool_use_id": "sevt_x", "content": []}],
        [{"type": "user.define_outcome", "description": "x"}],
        [{"type": "system.message", "content": [{"type": "text", "text": "x"}]}],
        [{"type": "user.interrupt", "session_thread_id": "sthr_other"}],
        [user_message("x")] * 1001,
    ],
)
async def test_events_that_are_wrong(server: Server, session: str, events: Any) -> None:
    """A batch with one wrong event is refused whole: nothing is stored, no turn starts."""
    path = f"/v1/sessions/{session}/events"
    await server.refused(
        "POST", path, 400, "invalid_request_error", "events", json={"events": events}
    )
    assert await server.raw.status(session) == "idle"


async def test_events_to_a_missing_session(server: Server) -> None:
    """Sending to a session that does not exist is a 404."""
    path = f"/v1/sessions/{UNKNOWN['sessions']}/events"
    body = {"events": [user_message("x")]}
    await server.refused("POST", path, 404, "not_found_error", UNKNOWN["sessions"], json=body)


async def test_events_while_the_child_is_away_are_kept(
    server: Server, agent: str, place: str
) -> None:
    """With opencode not ready the message is accepted and durable; an interrupt ends the wait."""
    made = await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    async with server.raw.stream(made["id"]) as reader:
        (accepted,) = await server.raw.send(made["id"], "wait for it")
        assert accepted["processed_at"] is not None
        assert await server.raw.status(made["id"]) == "running"
        assert accepted in await server.raw.events(made["id"])
        await server.raw.interrupt(made["id"])
        ending = await reader.until("session.status_idle")
    assert ending[-1]["stop_reason"] == {"type": "end_turn"}
