"""Tools that the client runs: declared, called, answered, by the SDK's runner too. The real opencode."""

import asyncio
import base64
import struct
import zlib
from typing import Any

import pytest
from anthropic import beta_async_tool

from sidecar.demo_gateway import DemoGateway
from tests.e2e.conftest import MakeSdk
from tests.event_rules import check_events
from tests.harness import text_of, types_of
from tests.raw_client import EventReader, RawClient, plain
from tests.waiting import patience

TOOLSET = {"type": "agent_toolset_20260401"}


def tool(name: str) -> dict[str, Any]:
    return {
        "type": "custom",
        "name": name,
        "description": f"The tool {name}.",
        "input_schema": {
            "type": "object",
            "properties": {"word": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["word"],
        },
    }


def result(call: str, text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    answer = {"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content}
    return {**answer, **fields}


def red_dot() -> str:
    """Return a PNG of one red pixel, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\x00\xff\x00\x00"))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")).decode()


async def call(
    raw: RawClient, reader: EventReader, session: str, text: str
) -> list[dict[str, Any]]:
    """Send a message; return the custom calls that the turn then waits for."""
    await raw.send(session, text)
    events = await reader.until("session.status_idle")
    calls = plain(events, "agent.custom_tool_use")
    waiting = [event["id"] for event in calls]
    assert events[-1]["stop_reason"] == {"type": "requires_action", "event_ids": waiting}
    return calls


async def test_the_round_trip(raw: RawClient, gateway: DemoGateway) -> None:
    """The model sees the tool as declared, calls it, gets the client's answer, and goes on."""
    session = await raw.new_session(tools=[TOOLSET, tool("lookup")])
    async with raw.stream(session) as reader:
        (use,) = await call(raw, reader, session, '[[tool: lookup {"word": "quince", "limit": 2}]]')
        assert (use["name"], use["input"]) == ("lookup", {"word": "quince", "limit": 2})
        assert "evaluated_permission" not in use
        (accepted,) = await raw.send_events(session, result(use["id"], "a yellow fruit: \u6994"))
        assert accepted["processed_at"] is not None
        turn = await reader.until("session.status_idle")
    assert types_of(turn)[:4] == [
        "user.custom_tool_result",
        "session.status_running",
        "session.thread_status_running",
        "span.model_request_start",
    ]
    assert text_of(turn) == "The tool answered:\na yellow fruit: \u6994"
    check_events(await raw.events(session))
    asked = next(r for r in reversed(gateway.requests) if "lookup" in str(r.body.get("tools")))
    (offered,) = [t["function"] for t in asked.body["tools"] if "lookup" in t["function"]["name"]]
    assert offered["description"] == "The tool lookup."
    assert offered["parameters"]["properties"].keys() == {"word", "limit"}
    assert offered["parameters"]["required"] == ["word"]


async def test_several_rounds_in_one_turn(raw: RawClient) -> None:
    """A tool called again, after a built-in one, waits again; each round gets its own answer."""
    session = await raw.new_session(tools=[TOOLSET, tool("lookup")])
    script = (
        '[[tool: lookup {"word": "a"}]][[then]][[bash: echo between]][[then]]'
        '[[tool: lookup {"word": "a"}]]'
    )
    async with raw.stream(session) as reader:
        (first,) = await call(raw, reader, session, script)
        await raw.send_events(session, result(first["id"], "one"))
        events = await reader.until("session.status_idle")
        assert plain(events, "agent.tool_result")[0]["content"][0]["text"] == "between\n"
        (second,) = plain(events, "agent.custom_tool_use")
        await raw.send_events(session, result(second["id"], "two"))
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "The tool answered:\ntwo"
    check_events(await raw.events(session))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "other order"])
async def test_two_calls_answered_one_by_one(raw: RawClient, order: tuple[int, int]) -> None:
    """The second idle lists the call that is left, and each call gets the answer meant for it."""
    session = await raw.new_session(tools=[tool("lookup"), tool("count")])
    text = '[[tools: lookup {"word": "pear"} ;; count {"word": "pear"}]]'
    async with raw.stream(session) as reader:
        calls = await call(raw, reader, session, text)
        assert [use["name"] for use in calls] == ["lookup", "count"]
        answers = {calls[0]["id"]: "a fruit", calls[1]["id"]: "four letters"}
        first, second = (calls[number]["id"] for number in order)
        await raw.send_events(session, result(first, answers[first]))
        events = await reader.until("session.status_idle")
        assert events[-1]["stop_reason"] == {"type": "requires_action", "event_ids": [second]}
        await raw.send_events(session, result(second, answers[second]))
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "The tool answered:\na fruit\nfour letters"
    check_events(await raw.events(session))


async def test_two_equal_calls(raw: RawClient) -> None:
    """The same tool with the same input twice: two calls, two answers, none lost."""
    session = await raw.new_session(tools=[tool("lookup")])
    text = '[[tools: lookup {"word": "pear"} ;; lookup {"word": "pear"}]]'
    async with raw.stream(session) as reader:
        calls = await call(raw, reader, session, text)
        await raw.send_events(session, *(result(use["id"], "a fruit") for use in calls))
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "The tool answered:\na fruit\na fruit"
    check_events(await raw.events(session))


async def test_an_error_result_reaches_the_model(raw: RawClient) -> None:
    """`is_error` is kept in the log, the model gets the text, the turn ends well."""
    session = await raw.new_session(tools=[tool("lookup")])
    async with raw.stream(session) as reader:
        (use,) = await call(raw, reader, session, '[[tool: lookup {"word": "x"}]]')
        await raw.send_events(session, result(use["id"], "no such word", is_error=True))
        turn = await reader.until("session.status_idle")
    (answer,) = plain(turn, "user.custom_tool_result")
    assert answer["is_error"] is True
    assert "no such word" in text_of(turn)
    assert turn[-1]["stop_reason"] == {"type": "end_turn"}
    check_events(await raw.events(session))


async def test_an_answer_without_content(raw: RawClient) -> None:
    """`content` may be left out; the turn goes on."""
    session = await raw.new_session(tools=[tool("lookup")])
    async with raw.stream(session) as reader:
        (use,) = await call(
            raw, reader, session, '[[tool: lookup {"word": "x"}]][[then]][[say: fine]]'
        )
        answer = {"type": "user.custom_tool_result", "custom_tool_use_id": use["id"]}
        await raw.send_events(session, answer)
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "fine"
    check_events(await raw.events(session))


async def test_an_image_result_reaches_the_model(raw: RawClient, gateway: DemoGateway) -> None:
    """The bytes of an image in the answer are in the next model request."""
    session = await raw.new_session(tools=[tool("draw")])
    picture = red_dot()
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    async with raw.stream(session) as reader:
        (use,) = await call(raw, reader, session, '[[tool: draw {"word": "red"}]]')
        blocks = [{"type": "text", "text": "here"}, {"type": "image", "source": source}]
        await raw.send_events(session, {**result(use["id"], ""), "content": blocks})
        turn = await reader.until("session.status_idle")
    assert plain(turn, "user.custom_tool_result")[0]["content"] == blocks
    assert turn[-1]["stop_reason"] == {"type": "end_turn"}
    last = next(r for r in reversed(gateway.requests) if "draw" in str(r.body.get("tools")))
    assert picture in str(last.body["messages"])


async def test_an_interrupt_while_the_client_works(raw: RawClient) -> None:
    """The call is closed for the client, a late answer is refused, the next turn runs."""
    session = await raw.new_session(tools=[tool("lookup")])
    async with raw.stream(session) as reader:
        (use,) = await call(raw, reader, session, '[[tool: lookup {"word": "x"}]]')
        await raw.interrupt(session)
        ended = await reader.until("session.status_idle")
        path = f"/v1/sessions/{session}/events"
        body = {"events": [result(use["id"], "too late")]}
        async with raw.http.post(path, json=body) as response:
            assert response.status == 400
        await raw.send(session, "[[say: next]]")
        turn = await reader.until("session.status_idle")
    assert ended[-1]["stop_reason"] == {"type": "end_turn"}
    assert text_of(turn) == "next"
    check_events(await raw.events(session))


async def test_sessions_with_the_same_tool_do_not_mix(raw: RawClient) -> None:
    """Equal calls of two sessions at the same time each get their own client's answer."""
    sessions = [await raw.new_session(tools=[tool("lookup")]) for _ in range(2)]

    async def talk(session: str) -> str:
        async with raw.stream(session) as reader:
            (use,) = await call(raw, reader, session, '[[tool: lookup {"word": "me"}]]')
            await raw.send_events(session, result(use["id"], f"you are {session}"))
            return text_of(await reader.until("session.status_idle"))

    texts = await asyncio.gather(*map(talk, sessions))
    assert texts == [f"The tool answered:\nyou are {session}" for session in sessions]


async def test_the_sdks_tool_runner_runs_to_the_end(make_sdk: MakeSdk, raw: RawClient) -> None:
    """`events.tool_runner` answers the calls of its tool, leaves built-in ones to us, ends after the turn."""
    asked: list[str] = []

    @beta_async_tool
    async def lookup(word: str) -> str:
        """Looks a word up.

        Args:
            word: The word.
        """
        asked.append(word)
        return f"{word} is a word"

    sdk = make_sdk()
    session = await raw.new_session(tools=[TOOLSET, tool("lookup")])
    script = (
        '[[tools: lookup {"word": "one"} ;; lookup {"word": "two"}]][[then]][[bash: echo own]]'
        '[[then]][[tool: lookup {"word": "three"}]][[then]][[say: all done]]'
    )
    await raw.send(session, script)
    async with patience():
        runner = sdk.beta.sessions.events.tool_runner(session, tools=[lookup], max_idle=0.5)
        calls = [dispatched async for dispatched in runner]
    assert asked == ["one", "two", "three"]
    posted = [dispatched.name for dispatched in calls if dispatched.posted]
    assert posted == ["lookup", "lookup", "lookup"]
    assert not any(dispatched.is_error for dispatched in calls)
    events = await raw.events(session)
    assert text_of(events) == "all done"
    check_events(events)
