"""Gateways that answer a streaming request with one object, in the wrong format, or with nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.gateway_scripted import (
    CHAT_MODEL,
    CLAUDE_MODEL,
    SSE,
    Answer,
    chat_text,
    chunk,
    json_answer,
    message_events,
    messages_text,
    named_sse,
    sse,
    whole_chat,
    whole_message,
    whole_response,
)
from tests.harness import text_of
from tests.raw_client import plain
from tests.scripted_world import (
    World,
    bash,
    error_of,
    is_second,
    open_world,
    scripted_gateway,
)

LABELS = ["application/json", SSE, "text/plain", None]
STOP = {"type": "message_stop"}
THOUGHT = {"role": "assistant", "reasoning_content": "hm"}


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with (
        scripted_gateway() as gateway,
        open_world(gateway, tmp_path_factory.mktemp("whole")) as world,
    ):
        yield world


def body(value: Any, label: str | None, *, stays_open: bool = False) -> Answer:
    return Answer([json.dumps(value).encode()], content_type=label, stays_open=stays_open)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
async def test_a_whole_answer_is_an_answer(world: World, model: str, label: str | None) -> None:
    """Whatever its label: its thought, its call, which runs, and its text; one request each."""
    whole = whole_chat if model == CHAT_MODEL else whole_message
    first = body(whole("let me see", ("call_1", "bash", json.loads(bash("one")))), label)
    last = body(whole("done"), label)
    events, asked = await world.turn(model, lambda request: last if is_second(request) else first)

    assert asked == 2
    assert [text_of([message]) for message in plain(events, "agent.message")] == [
        "let me see",
        "done",
    ]
    assert plain(events, "agent.thinking")
    [result] = plain(events, "agent.tool_result")
    assert result["content"][0]["text"] == "one\n"
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert plain(events, "span.model_request_end")[0]["model_usage"]["input_tokens"] == 11


async def test_chunks_line_by_line_are_an_answer(world: World) -> None:
    """Newline-delimited JSON in place of events; the connection stays open."""
    chunks = (chunk({"content": "hel"}), chunk({"content": "lo"}), chunk(finish="stop"))
    lines = [json.dumps(each).encode() + b"\n" for each in chunks]
    answer = Answer(lines, content_type="application/x-ndjson", stays_open=True)
    events, asked = await world.turn(CHAT_MODEL, answer)

    assert text_of(events) == "hello"
    assert asked == 1


MESSAGE_STREAM = named_sse(*message_events({"type": "text", "text": "hello"}), STOP)
CHAT_STREAM = sse(chunk({"content": "hello"}), chunk(finish="stop"), "[DONE]")
GEMINI = {"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}
OLLAMA = {"model": "m", "message": {"role": "assistant", "content": "hello"}, "done": True}


@pytest.mark.parametrize(
    ("model", "answer", "came"),
    [
        pytest.param(CHAT_MODEL, Answer([MESSAGE_STREAM]), "Messages API", id="messages stream"),
        pytest.param(CLAUDE_MODEL, Answer([CHAT_STREAM]), "a chat completion", id="chat stream"),
        pytest.param(CHAT_MODEL, json_answer(whole_message("x")), "Messages API", id="message"),
        pytest.param(CLAUDE_MODEL, json_answer(whole_chat("x")), "a chat completion", id="chat"),
        pytest.param(CHAT_MODEL, json_answer(whole_response("x")), "Responses", id="response"),
        pytest.param(CHAT_MODEL, json_answer([GEMINI]), "Gemini", id="Gemini's array"),
        pytest.param(CLAUDE_MODEL, Answer([sse(GEMINI)]), "Gemini", id="Gemini's stream"),
        pytest.param(CHAT_MODEL, json_answer(OLLAMA), "Ollama", id="Ollama's line"),
    ],
)
async def test_an_answer_in_another_format_is_named_at_once(
    world: World, model: str, answer: Answer, came: str
) -> None:
    """One request: to ask again would bring the same."""
    events, asked = await world.turn(model, answer)
    error = error_of(events)

    assert asked == 1
    assert error["type"] == "model_request_failed_error"
    assert came in error["message"]
    assert "was asked for" in error["message"]
    assert not plain(events, "agent.message")


@pytest.mark.parametrize("form", ["body", "event"])
@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("authentication_error", "model_request_failed_error"),
        ("billing_error", "billing_error"),
    ],
)
async def test_an_error_with_status_200_is_that_error(
    world: World, model: str, form: str, inside: str, outside: str
) -> None:
    """Where its kind says that trying again is in vain, it is not tried."""
    error = {"type": "error", "error": {"type": inside, "message": "no"}}
    answer = json_answer(error) if form == "body" else Answer([named_sse(error)])
    events, asked = await world.turn(model, answer)

    assert asked == 1
    assert error_of(events)["type"] == outside


EMPTY = [
    pytest.param(CHAT_MODEL, chat_text(""), "its answer was empty", id="chat"),
    pytest.param(CHAT_MODEL, chat_text(" \n"), "its answer was empty", id="blanks"),
    pytest.param(CLAUDE_MODEL, Answer([named_sse(*message_events(), STOP)]), "empty", id="message"),
    pytest.param(CLAUDE_MODEL, messages_text(""), "empty", id="message with an empty text"),
    pytest.param(CHAT_MODEL, json_answer(whole_chat("")), "only reasoned", id="whole"),
    pytest.param(
        CHAT_MODEL,
        Answer([sse(chunk(THOUGHT), chunk(finish="stop"), "[DONE]")]),
        "only reasoned",
        id="a thought",
    ),
]


@pytest.mark.parametrize(("model", "answer", "what"), EMPTY)
async def test_an_answer_without_a_word_is_named(
    world: World, model: str, answer: Answer, what: str
) -> None:
    """It is no answer, and a client would show nothing."""
    events, asked = await world.turn(model, answer)

    assert asked == 1
    assert what in error_of(events)["message"]


@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
async def test_a_turn_may_end_with_a_tool(world: World, model: str) -> None:
    """An empty message after a tool's result is an ordinary end."""
    whole = whole_chat if model == CHAT_MODEL else whole_message
    first = json_answer(whole("", ("call_1", "bash", json.loads(bash("one")))))
    last = chat_text("") if model == CHAT_MODEL else messages_text("")
    events, _ = await world.turn(model, lambda request: last if is_second(request) else first)

    assert not plain(events, "session.error")
    assert plain(events, "agent.tool_result")
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
