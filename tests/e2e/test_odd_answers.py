"""What a model may write and neither UTF-8 nor the stack can hold: the history stays readable."""

from __future__ import annotations

import pytest

from tests.harness import types_of
from tests.raw_client import RawClient, plain


@pytest.mark.parametrize(
    ("argument", "shown"),
    [(r"echo \ud83d hi", "echo � hi"), (r"echo \ud83d\ude00", "echo 😀")],
    ids=["half a pair", "a pair"],
)
async def test_a_tool_call_with_half_a_surrogate_pair(
    raw: RawClient, argument: str, shown: str
) -> None:
    """JSON can say it, UTF-8 cannot: it is shown as the replacement character."""
    session = await raw.new_session()
    call = f'{{"command":"{argument}","description":"x"}}'
    streamed = await raw.turn(session, f"[[tool: bash {call}]]")
    listed = await raw.events(session)

    assert plain(listed, "agent.tool_use")[0]["input"]["command"] == shown
    assert plain(listed, "agent.tool_use") == plain(streamed, "agent.tool_use")
    assert plain(listed, "agent.tool_result")


@pytest.mark.parametrize("depth", [200, 1500])
async def test_a_tool_call_nested_without_end(raw: RawClient, depth: int) -> None:
    """Deeper than can be stored: the turn ends, others are not disturbed, the history can be read."""
    session, other = await raw.new_session(), await raw.new_session()
    call = f'{{"command":"true","description":"x","x":{"[" * depth + "]" * depth}}}'
    streamed = await raw.turn(session, f"[[tool: bash {call}]]")
    assert types_of(streamed)[-1] == "session.status_idle"
    assert await raw.events(session)
    answer = await raw.turn(other, "[[say: still here]]")
    assert plain(answer, "agent.message")[0]["content"][0]["text"] == "still here"
