"""A conversation that outgrows the model's context goes on, and the client sees it."""

from __future__ import annotations

from tests.harness import text_of, types_of
from tests.raw_client import RawClient


async def test_a_full_context_is_compacted_once_and_the_session_goes_on(raw: RawClient) -> None:
    """The model reports nearly its whole context as used; opencode summarises; one idle ends the turn."""
    session = await raw.new_session(model="openai/gpt-4o")
    full = await raw.turn(session, "[[cached: 127500]] [[say: a long talk]]")
    after = await raw.turn(session, "[[say: still here]]")

    assert types_of(full).count("agent.thread_context_compacted") == 1
    assert types_of(full).count("session.status_idle") == 1
    starts = types_of(full).count("span.model_request_start")
    assert types_of(full).count("span.model_request_end") == starts
    assert "agent.thread_context_compacted" not in types_of(after)
    assert text_of(after) == "still here"
