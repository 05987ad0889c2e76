"""The main job as an unmodified official SDK does it, against the real opencode."""

from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.harness import RUNTIME_KEY, text_of, types_of, user_message
from tests.waiting import patience

LISTED = [
    "bedrock/anthropic.claude-sonnet-4",
    "claude-sonnet-4-5",
    "house-model",
    "ollama/qwen3:8b",
    "openai/gpt-4o",
    "openai/gpt-4o-mini",
]
PLAIN_TURN = [
    "user.message",
    "session.status_running",
    "session.thread_status_running",
    "span.model_request_start",
    "agent.message",
    "span.model_request_end",
    "session.thread_status_idle",
    "session.usage",
    "session.status_idle",
]
TOOL_TURN = [
    "user.message",
    "session.status_running",
    "session.thread_status_running",
    "span.model_request_start",
    "agent.tool_use",
    "span.model_request_end",
    "agent.tool_result",
    "span.model_request_start",
    "agent.message",
    "span.model_request_end",
    "session.thread_status_idle",
    "session.usage",
    "session.status_idle",
]

Sdk = anthropic.AsyncAnthropic


@pytest.fixture(params=[False, True], ids=["normal", "strict"])
def sdk(request: pytest.FixtureRequest, make_sdk: Callable[..., Sdk]) -> Sdk:
    return make_sdk(is_strict=request.param)


async def open_session(sdk: Sdk, model: str) -> tuple[Any, Any]:
    """Create what a turn needs with the SDK; return agent and session."""
    agent = await sdk.beta.agents.create(
        name="coder", model=model, system="Be brief.", tools=[{"type": "agent_toolset_20260401"}]
    )
    place = await sdk.beta.environments.create(
        name="place", config={"type": "cloud", "networking": {"type": "unrestricted"}}
    )
    session = await sdk.beta.sessions.create(
        agent=agent.id, environment_id=place.id, title="a talk"
    )
    return agent, session


async def run_turn(sdk: Sdk, session_id: str, text: str) -> tuple[list[Any], list[Any]]:
    """Open the stream, send, read to idle; return what `send` answered and what was streamed."""
    seen = []
    async with patience(), await sdk.beta.sessions.events.stream(session_id) as stream:
        sent = await sdk.beta.sessions.events.send(session_id, events=[user_message(text)])
        async for event in stream:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    return sent.data, seen


async def history(sdk: Sdk, session_id: str) -> list[Any]:
    return [event async for event in sdk.beta.sessions.events.list(session_id)]


def summed(events: list[Any]) -> dict[str, int]:
    """Return the tokens of all model requests."""
    used = [e.model_usage for e in events if e.type == "span.model_request_end"]
    return {
        "input_tokens": sum(u.input_tokens for u in used),
        "output_tokens": sum(u.output_tokens for u in used),
        "cache_read_input_tokens": sum(u.cache_read_input_tokens for u in used),
    }


async def test_the_sdk_lists_every_chat_model_of_the_gateway_and_no_other(sdk: Sdk) -> None:
    """`models.list()` pages through exactly the gateway's chat models."""
    assert [model.id async for model in sdk.models.list()] == LISTED
    assert [model.id async for model in sdk.models.list(limit=1)] == LISTED


@pytest.mark.parametrize(
    "typed",
    [*LISTED, *(f"litellm/{name}" for name in LISTED)],
)
async def test_a_listed_model_works_as_typed(
    make_sdk: Callable[..., Sdk], gateway: DemoGateway, typed: str
) -> None:
    """Any listed model, bare or `litellm/`-prefixed, answers a turn and is what the gateway is asked."""
    sdk = make_sdk(is_strict=True)
    agent, session = await open_session(sdk, typed)
    bare = typed.removeprefix("litellm/")
    assert agent.model.id == bare
    _, seen = await run_turn(sdk, session.id, f"[[say: all is well]] {session.id}")
    assert types_of(seen) == PLAIN_TURN
    assert text_of(seen) == "all is well"
    asked = [r.body["model"] for r in gateway.requests if session.id in str(r.body)]
    assert asked == [bare]


async def test_stream_list_and_send_agree(sdk: Sdk) -> None:
    """`events.list` equals the stream event by event, and `send` answered the streamed message's id."""
    _, session = await open_session(sdk, "openai/gpt-4o")
    assert session.status == "idle"
    sent, seen = await run_turn(sdk, session.id, "[[say: hello]]")
    listed = await history(sdk, session.id)
    assert [event.model_dump() for event in listed] == [event.model_dump() for event in seen]
    assert [event.id for event in sent] == [e.id for e in seen if e.type == "user.message"]
    times = [event.processed_at for event in listed]
    assert times == sorted(set(times)), "processed_at grows strictly"


async def test_usage_of_the_session_is_the_sum_of_its_model_requests(sdk: Sdk) -> None:
    """After two turns the session is idle and its usage is the sum over both."""
    _, session = await open_session(sdk, "claude-sonnet-4-5")
    await run_turn(sdk, session.id, "[[cached: 7]] [[say: one two three]]")
    await run_turn(sdk, session.id, "[[bash: echo x]]")
    shown = await sdk.beta.sessions.retrieve(session.id)
    assert shown.status == "idle"
    expected = summed(await history(sdk, session.id))
    assert expected["output_tokens"] > 0
    assert expected["cache_read_input_tokens"] == 7
    assert {name: getattr(shown.usage, name) for name in expected} == expected


async def test_a_tool_turn_shows_call_result_text_and_one_idle(sdk: Sdk) -> None:
    """The model calls bash: one tool_use with its input, one result that refers to it, text, one idle."""
    _, session = await open_session(sdk, "openai/gpt-4o")
    _, seen = await run_turn(sdk, session.id, "[[bash: echo from-the-shell]]")
    assert types_of(seen) == TOOL_TURN
    use = next(event for event in seen if event.type == "agent.tool_use")
    result = next(event for event in seen if event.type == "agent.tool_result")
    assert (use.name, use.input["command"]) == ("bash", "echo from-the-shell")
    assert result.tool_use_id == use.id
    assert result.is_error is False
    assert "from-the-shell" in result.content[0].text
    assert "from-the-shell" in text_of(seen)
    assert seen[-1].stop_reason.type == "end_turn"


async def test_the_conversation_is_remembered(
    make_sdk: Callable[..., Sdk], gateway: DemoGateway
) -> None:
    """The second turn's model request carries the first turn and the system prompt."""
    sdk = make_sdk()
    _, session = await open_session(sdk, "openai/gpt-4o")
    await run_turn(sdk, session.id, "[[say: the word is xylophone]]")
    await run_turn(sdk, session.id, "[[say: again]]")
    last = next(r for r in reversed(gateway.requests) if r.path.endswith("/chat/completions"))
    texts = str(last.body["messages"])
    assert "the word is xylophone" in texts
    assert "Be brief." in texts


async def test_previews_are_a_prefix_of_the_message_they_announce(
    make_sdk: Callable[..., Sdk],
) -> None:
    """With `event_deltas` the text arrives in growing pieces under the final event's id."""
    sdk = make_sdk()
    _, session = await open_session(sdk, "openai/gpt-4o")
    pieces: dict[str, str] = {}
    final: dict[str, str] = {}
    async with (
        patience(),
        await sdk.beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as stream,
    ):
        await sdk.beta.sessions.events.send(
            session.id, events=[user_message("[[slow: 12x0.03 word]]")]
        )
        async for event in stream:
            if event.type == "event_delta":
                pieces[event.event_id] = pieces.get(event.event_id, "") + event.delta.content.text
            elif event.type == "agent.message":
                final[event.id] = event.content[0].text
            elif event.type == "session.status_idle":
                break
    assert len(final) == 1
    assert final.keys() == pieces.keys()
    (event_id,) = final
    assert final[event_id].startswith(pieces[event_id])
    assert "word3" in pieces[event_id]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"x-api-key": RUNTIME_KEY}, "?beta=true"),
        ({"Authorization": f"Bearer {RUNTIME_KEY}"}, ""),
        (
            {
                "x-api-key": RUNTIME_KEY,
                "anthropic-version": "2023-06-01",
                "anthropic-beta": "managed-agents-2026-04-01",
                "accept": "text/event-stream",
            },
            "?beta=true",
        ),
        (
            {"Authorization": f"bearer {RUNTIME_KEY}", "anthropic-version": "2026-10-21"},
            "?beta=true",
        ),
    ],
    ids=["x-api-key", "bearer", "lap", "lower-case scheme"],
)
async def test_old_and_new_clients_differ_only_in_headers(
    sidecar: Any, headers: dict[str, str], query: str
) -> None:
    """Either key header, any version header and `?beta=true` lead through a whole turn."""
    import aiohttp

    from tests.raw_client import EventReader

    async with aiohttp.ClientSession(sidecar.url, headers=headers) as http:

        async def post(path: str, body: Any) -> Any:
            async with http.post(path + query, json=body) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        agent = await post("/v1/agents", {"name": "a", "model": {"id": "litellm/openai/gpt-4o"}})
        place = await post("/v1/environments", {"name": "e"})
        body = {"agent": agent["id"], "environment_id": place["id"]}
        session = await post("/v1/sessions", body)
        path = f"/v1/sessions/{session['id']}/events"
        async with http.get(f"{path}/stream{query}") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            await post(path, {"events": [user_message("[[say: hi]]")]})
            seen = await EventReader(response).until("session.status_idle")
    assert text_of(seen) == "hi"


async def test_old_sdks_send_their_key_as_x_api_key(make_sdk: Callable[..., Sdk]) -> None:
    """A client that sends only `x-api-key` is served; a wrong key is one AuthenticationError."""
    old = make_sdk(
        api_key=None,
        auth_token=None,
        default_headers={"x-api-key": RUNTIME_KEY, "Authorization": anthropic.omit},
    )
    assert [model.id async for model in old.models.list()] == LISTED
    with pytest.raises(anthropic.AuthenticationError) as caught:
        await make_sdk(api_key="wrong").models.list()
    assert caught.value.request_id is not None
    assert caught.value.type == "authentication_error"


async def test_an_unknown_model_is_refused_with_near_matches(sdk: Sdk) -> None:
    """Agent creation with a misspelt model is a BadRequestError that names what was meant."""
    with pytest.raises(anthropic.BadRequestError, match=r"openai/gpt-4o"):
        await sdk.beta.agents.create(name="a", model="openai/gpt-4oo")
