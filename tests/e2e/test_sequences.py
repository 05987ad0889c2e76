"""Each recorded sequence of the API is matched by a run of ours: the same events, order and fields.

The recordings (tests/recordings/managed-agents) are sequences that the official SDKs accept in strict
mode. Every event of every run is validated by the SDK's strict types as well. The real opencode.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.e2e.conftest import MakeSdk
from tests.event_rules import check_events
from tests.fakes.mcp_process import mcp_server
from tests.harness import user_message
from tests.raw_client import RawClient
from tests.waiting import patience

RECORDINGS = Path(__file__).parent.parent / "recordings" / "managed-agents"
TOOLSET = {"type": "agent_toolset_20260401"}
ASKING = TOOLSET | {"default_config": {"permission_policy": {"type": "always_ask"}}}
LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks up.",
    "input_schema": {"type": "object", "properties": {"q": {"type": "integer"}}},
}

OPTIONAL = {
    # LAP reads these; SDKs keep unknown fields.
    "agent.message": {"text"},
    "agent.tool_result": {"output", "error"},
    "agent.mcp_tool_result": {"output", "error"},
    # Optional in the API, and we always know them.
    "agent.tool_use": {"evaluation"},
    "agent.mcp_tool_use": {"evaluation"},
    "user.custom_tool_result": {"is_error"},
}

Event = dict[str, Any]


class Talk:
    """One session read through an official client in strict mode."""

    def __init__(self, sdk: anthropic.AsyncAnthropic, session_id: str, stream: Any) -> None:
        self._sdk = sdk
        self._session_id = session_id
        self._stream = stream
        self.events: list[Event] = []

    async def send(self, *events: Event) -> None:
        """Send events in one request."""
        await self._sdk.beta.sessions.events.send(self._session_id, events=events)

    async def until(self, type_: str = "session.status_idle") -> Event:
        """Read on to the next event of that type, and return it."""
        async with patience():
            async for event in self._stream:
                self.events.append(event.model_dump(mode="json", exclude_unset=True))
                if event.type == type_:
                    return self.events[-1]
        raise AssertionError(f"the stream ended before {type_}")


Open = Callable[..., Any]


@pytest.fixture
def open_talk(make_sdk: MakeSdk) -> Open:
    """Open a session with the given tools and its stream with previews."""
    sdk = make_sdk(is_strict=True)

    @asynccontextmanager
    async def open_(*tools: Any, **agent: Any) -> AsyncIterator[Talk]:
        made = await sdk.beta.agents.create(
            name="coder", model="openai/gpt-4o", tools=list(tools or (TOOLSET,)), **agent
        )
        place = await sdk.beta.environments.create(name="place")
        session = await sdk.beta.sessions.create(agent=made.id, environment_id=place.id)
        previews: Any = ["agent.message", "agent.thinking"]
        events = sdk.beta.sessions.events
        async with await events.stream(session.id, event_deltas=previews) as stream:
            talk = Talk(sdk, session.id, stream)
            yield talk
        listed = [
            e.model_dump(mode="json", exclude_unset=True) async for e in events.list(session.id)
        ]
        shown = [event for event in talk.events if not event["type"].startswith("event_")]
        assert listed == shown, "the list is the stream"
        check_events(listed)

    return open_


def recorded(name: str) -> list[Event]:
    return [json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines()]


def steps(events: list[Event]) -> list[str]:
    """Return the types in order; repeated previews, calls and results in a row count once."""
    types: list[str] = []
    for event in events:
        if not (types and types[-1] == event["type"] and "session" not in event["type"]):
            types.append(event["type"])
    return types


def without_previews(events: list[Event]) -> list[Event]:
    return [event for event in events if not event["type"].startswith("event_")]


def check_like(name: str, events: list[Event]) -> None:
    """Compare order and fields with the recording."""
    expected = recorded(name)
    if not any(event["type"].startswith("event_") for event in expected):
        events = without_previews(events)
    assert steps(events) == steps(expected)
    fields: dict[str, set[str]] = {}
    for event in expected:
        fields.setdefault(event["type"], set()).update(event)
    for type_, wanted in fields.items():
        ours = [event for event in events if event["type"] == type_]
        theirs = [event for event in expected if event["type"] == type_]
        extra = OPTIONAL.get(type_, set())
        for number, event in enumerate(ours):
            assert wanted - extra <= set(event) <= wanted | extra, type_
            _check_nested(theirs[min(number, len(theirs) - 1)], event, type_)


def _check_nested(expected: Any, shown: Any, where: str) -> None:
    """Objects in the event have the recording's keys, lists its kind of items, values its types."""
    if isinstance(expected, dict):
        assert isinstance(shown, dict), where
        for key in expected.keys() & shown.keys() - {"input"}:
            _check_nested(expected[key], shown[key], f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(shown, list), where
        for one, other in zip(expected, shown, strict=False):
            _check_nested(one, other, f"{where}[]")
    elif isinstance(expected, bool) or expected is None or isinstance(expected, str):
        assert type(shown) is type(expected), where
    else:
        assert isinstance(shown, int | float), where


@pytest.mark.parametrize("name", ["plain", "plain_deltas"])
async def test_plain(open_talk: Open, name: str) -> None:
    """A text answer, after thinking and with previews."""
    think = "[[think: hm]]" if name == "plain" else ""
    async with open_talk() as talk:
        await talk.send(user_message(f"{think}[[say: Hello there, you two.]]"))
        await talk.until()
    check_like(name, talk.events)


async def test_tool_allow(open_talk: Open) -> None:
    """Text, a built-in call that is allowed, text."""
    async with open_talk() as talk:
        await talk.send(user_message("[[say: Listing.]][[bash: ls]][[then]][[say: Empty.]]"))
        await talk.until()
    check_like("tool_allow", talk.events)


@pytest.mark.parametrize("result", ["allow", "deny"])
async def test_tool_ask(open_talk: Open, result: str) -> None:
    """A built-in call that the user allows, or denies with a message."""
    said = {"deny_message": "no"} if result == "deny" else {}
    script = {
        "allow": "[[bash: rm -f x]][[then]][[say: Done.]]",
        "deny": '[[tool: write {"filePath": "a", "content": "b"}]][[then]][[say: OK.]]',
    }
    async with open_talk(ASKING) as talk:
        await talk.send(user_message(script[result]))
        (call,) = (await talk.until())["stop_reason"]["event_ids"]
        await talk.send(
            {"type": "user.tool_confirmation", "tool_use_id": call, "result": result, **said}
        )
        await talk.until()
    check_like(f"tool_ask_{result}", talk.events)
    results = [e for e in talk.events if e["type"] == "agent.tool_result"]
    expected = [e for e in recorded(f"tool_ask_{result}") if e["type"] == "agent.tool_result"]
    assert results[0]["is_error"] is expected[0]["is_error"]
    if result == "deny":
        assert results[0]["content"] == expected[0]["content"]


async def test_custom_tool(open_talk: Open) -> None:
    """A call that the client answers."""
    async with open_talk(LOOKUP) as talk:
        await talk.send(user_message('[[tool: lookup {"q": 1}]][[then]][[say: 42.]]'))
        (call,) = (await talk.until())["stop_reason"]["event_ids"]
        content = [{"type": "text", "text": "42"}]
        await talk.send(
            {"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content}
        )
        await talk.until()
    check_like("custom_tool", talk.events)


async def test_mcp_tool(open_talk: Open) -> None:
    """A call of a remote MCP server's tool."""
    async with mcp_server() as server:
        servers = [{"type": "url", "name": "gh", "url": server.url}]
        policy = {"permission_policy": {"type": "always_allow"}}
        tools = {"type": "mcp_toolset", "mcp_server_name": "gh", "default_config": policy}
        async with open_talk(tools, mcp_servers=servers) as talk:
            await talk.send(user_message('[[tool: gh_echo {"text": "r"}]][[then]][[say: ok]]'))
            await talk.until()
    check_like("mcp_tool", talk.events)


async def test_interrupt_in_sampling(open_talk: Open) -> None:
    """Interrupted while the model writes, with the next message in the same request."""
    async with open_talk() as talk:
        await talk.send(user_message("[[slow: 300x0.1 tick]]"))
        await talk.until("event_delta")
        await talk.send({"type": "user.interrupt"}, user_message("[[say: ok]]"))
        await talk.until()
        await talk.until()
    check_like("interrupt_in_sampling", talk.events)


async def test_interrupt_in_tool(open_talk: Open) -> None:
    """Interrupted while a command runs."""
    async with open_talk() as talk:
        await talk.send(user_message("[[bash: sleep 99]]"))
        await talk.until("agent.tool_use")
        await talk.send({"type": "user.interrupt"})
        await talk.until()
    check_like("interrupt_in_tool", talk.events)


async def test_error_retry_then_ok(open_talk: Open) -> None:
    """The gateway is busy once. Without `session.error`, which ends the reading of LAP and of many loops."""
    async with open_talk() as talk:
        await talk.send(user_message("[[error: 503 x1]] [[say: ok]]"))
        await talk.until()
    expected = [e for e in recorded("error_retry_then_ok") if e["type"] != "session.error"]
    assert steps(without_previews(talk.events)) == steps(expected)


async def test_error_exhausted(open_talk: Open) -> None:
    """The gateway refuses the request."""
    async with open_talk() as talk:
        await talk.send(user_message("[[error: 400]]"))
        await talk.until()
    check_like("error_exhausted", talk.events)


async def test_refusal(open_talk: Open) -> None:
    """The model refuses."""
    async with open_talk() as talk:
        await talk.send(user_message("[[refuse]]"))
        await talk.until()
    check_like("refusal", talk.events)


async def test_misc(make_sdk: MakeSdk, raw: RawClient, gateway: DemoGateway) -> None:
    """A new title, a system message that the model gets, and the end of the session."""
    sdk = make_sdk(is_strict=True)
    session = await raw.new_session()
    seen: list[Event] = []

    async def read(stream: Any, type_: str) -> None:
        async with patience():
            async for event in stream:
                seen.append(event.model_dump(mode="json", exclude_unset=True))
                if event.type == type_:
                    return

    async with await sdk.beta.sessions.events.stream(session) as stream:
        await sdk.beta.sessions.update(session, title="new")
        system: Any = {"type": "system.message", "content": [{"type": "text", "text": "be terse"}]}
        events: Any = [user_message("[[say: hm]]"), system]
        await sdk.beta.sessions.events.send(session, events=events)
        await read(stream, "session.status_idle")
        await sdk.beta.sessions.delete(session)
        rest: Awaitable[None] = read(stream, "no such type")
        await rest
    expected = {event["type"]: event for event in recorded("misc")}
    ours = {event["type"]: event for event in seen}
    for type_ in ("session.updated", "system.message", "session.deleted"):
        assert ours[type_].keys() == expected[type_].keys()
    assert seen[-1]["type"] == "session.deleted"
    assert any("be terse" in str(request.body) for request in gateway.requests)


async def test_archiving_ends_a_session_as_a_fatal_error_would(
    open_talk: Open, make_sdk: MakeSdk
) -> None:
    """The tail of `error_terminal`: the thread's end, then the session's, and the stream is over."""
    sdk = make_sdk(is_strict=True)
    async with open_talk() as talk:
        await talk.send(user_message("[[say: x]]"))
        await talk.until()
        await sdk.beta.sessions.archive(talk._session_id)
        with pytest.raises(AssertionError, match="ended"):
            await talk.until("never")
    tail = recorded("error_terminal")[-2:]
    assert [event["type"] for event in talk.events[-2:]] == [event["type"] for event in tail]
    assert [event.keys() for event in talk.events[-2:]] == [event.keys() for event in tail]
