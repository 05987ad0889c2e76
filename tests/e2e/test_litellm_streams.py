"""Odd streams of an upstream as a real LiteLLM hands them on, through the relay and opencode."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import RunningSidecar
from tests.e2e.litellm_config import anthropic as claude_deployment
from tests.e2e.litellm_config import openai as openai_deployment
from tests.e2e.litellm_config import proxy_config
from tests.fakes.gateway_scripted import (
    Answer,
    Request,
    ScriptedGateway,
    chat_text,
    chunk,
    json_answer,
    message_events,
    named_sse,
    sse,
    whole_chat,
)
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.harness import http_client, make_settings, sidecar_for, text_of
from tests.raw_client import RawClient, plain

pytestmark = [pytest.mark.litellm, pytest.mark.timeout(400)]

VENV = Path(__file__).parents[2] / ".venv-litellm"
CHAT, CLAUDE = "team/chat", "claude-odd"
BASH = [json.dumps({"command": f"echo {word}", "description": "x"}) for word in ("one", "two")]


@pytest.fixture(scope="module")
async def upstream() -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway()
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture(scope="module")
async def sidecar(
    upstream: ScriptedGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    deployments = [openai_deployment(CHAT, "chat"), claude_deployment(CLAUDE, "claude-odd")]
    async with LiteLLMProxy(proxy_config(deployments, upstream=upstream.url), venv=VENV) as proxy:
        settings = make_settings(
            tmp_path_factory.mktemp("odd"), proxy.url, gateway={"api_key": proxy.key}
        )
        async with sidecar_for(settings) as running:
            yield running


@pytest.fixture
async def raw(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(sidecar.url) as http:
        yield RawClient(http)


def after_tools(first: Answer) -> Callable[[Request], Answer]:
    """Call tools first, and end with a text."""

    def reply(request: Request) -> Answer:
        return chat_text("done") if '"role": "tool"' in json.dumps(request.body) else first

    return reply


def calls(*fragments: dict[str, Any]) -> Answer:
    chunks = (chunk({"role": "assistant", "tool_calls": [each]}) for each in fragments)
    return Answer([sse(*chunks, chunk(finish="tool_calls"), "[DONE]")])


def fragment(arguments: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "bash", "arguments": arguments}, **more}


@pytest.mark.parametrize(
    "fragments",
    [
        [fragment(BASH[0], index=0, id="a"), fragment(BASH[1], index=0, id="b")],
        [fragment(BASH[0], index=0), fragment(BASH[1], index=1)],
    ],
    ids=["all index 0", "no id"],
)
async def test_odd_tool_calls_are_all_run(
    raw: RawClient, upstream: ScriptedGateway, fragments: list[dict[str, Any]]
) -> None:
    """LiteLLM passes them on as they are; both run."""
    upstream.reply = after_tools(calls(*fragments))
    events = await raw.turn(await raw.new_session(model=CHAT), "go")

    results = [event["content"][0]["text"] for event in plain(events, "agent.tool_result")]
    assert sorted(results) == ["one\n", "two\n"]
    assert text_of(events) == "done"


@pytest.mark.parametrize("finish", ["eos", "tool_calls"])
async def test_an_odd_reason_ends_the_turn(
    raw: RawClient, upstream: ScriptedGateway, finish: str
) -> None:
    """Asked once, answered once."""
    upstream.reply = lambda _request: chat_text("hello", finish)
    upstream.requests.clear()
    events = await raw.turn(await raw.new_session(model=CHAT), "go")

    assert text_of(events) == "hello"
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert len(upstream.requests) == 1


async def test_a_used_up_limit_is_named(raw: RawClient, upstream: ScriptedGateway) -> None:
    """LiteLLM keeps the reason."""
    upstream.reply = lambda _request: chat_text("", "length")
    events = await raw.turn(await raw.new_session(model=CHAT), "go")
    assert "wrote nothing" in plain(events, "session.error")[0]["error"]["message"]


async def test_a_message_that_is_cut_ends_after_few_requests(
    raw: RawClient, upstream: ScriptedGateway
) -> None:
    """LiteLLM passes a Messages stream through: without its stop it is a failed request, tried 6 times."""
    text = {"type": "text", "text": "half"}
    upstream.reply = lambda _request: Answer([named_sse(*message_events(text, stop=None))])
    upstream.requests.clear()
    events = await raw.turn(await raw.new_session(model=CLAUDE), "go", seconds=200)

    [error] = plain(events, "session.error")
    assert error["error"]["type"] == "model_request_failed_error"
    assert len(upstream.requests) <= 6


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(chat_text(""), id="empty"),
        pytest.param(json_answer(whole_chat("hello")), id="whole"),
    ],
)
async def test_an_answer_that_litellm_makes_empty_is_named(
    raw: RawClient, upstream: ScriptedGateway, answer: Answer
) -> None:
    """It hands on a finished stream without a word, also for a whole answer, whose text it does not read."""
    upstream.reply = lambda _request: answer
    events = await raw.turn(await raw.new_session(model=CHAT), "go", seconds=120)

    [error] = plain(events, "session.error")
    assert "without a text or a tool call" in error["error"]["message"]


async def test_a_tool_in_a_namespace_is_run(raw: RawClient, upstream: ScriptedGateway) -> None:
    """As gpt-oss behind vLLM names it."""
    function = {"name": "functions.bash", "arguments": BASH[0]}
    upstream.reply = after_tools(calls({"index": 0, "id": "a", "function": function}))
    events = await raw.turn(await raw.new_session(model=CHAT), "go", seconds=120)

    [result] = plain(events, "agent.tool_result")
    assert result["content"][0]["text"] == "one\n"
