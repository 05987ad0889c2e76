"""Errors that come before a word of the answer, through the relay and opencode: each is what its kind is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.gateway_scripted import (
    CHAT_MODEL,
    CLAUDE_MODEL,
    Answer,
    Request,
    chat_text,
    chunk,
    json_answer,
    message_events,
    messages_text,
    named_sse,
    sse,
)
from tests.harness import text_of
from tests.raw_client import plain
from tests.scripted_world import World, error_of, open_world, scripted_gateway

HEADS = {
    CHAT_MODEL: [b": ping\n\n", sse(chunk({"role": "assistant", "content": ""}))],
    CLAUDE_MODEL: [named_sse({"type": "ping"}), named_sse(message_events()[0])],
}
GOOD = {CHAT_MODEL: chat_text("hello"), CLAUDE_MODEL: messages_text("hello")}


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with (
        scripted_gateway() as gateway,
        open_world(gateway, tmp_path_factory.mktemp("first")) as world,
    ):
        yield world


def failing(model: str, error: dict[str, Any], *, head: bool = False) -> Answer:
    """A stream with status 200 whose first event, or the first after the answer's head, is an error."""
    begun = HEADS[model] if head else []
    if model == CLAUDE_MODEL:
        return Answer([*begun, named_sse({"type": "error", "error": error})])
    return Answer([*begun, sse({"error": error})])


FINAL = [
    ({"type": "invalid_request_error", "message": "max_tokens: 50000 > 500 (429)"}, "max_tokens"),
    ({"type": "authentication_error", "message": "key 500 is wrong, try again"}, "key"),
    ({"type": "permission_error", "message": "not for 503"}, "not for"),
    ({"type": "not_found_error", "message": "model 504 timed out"}, "model"),
    ({"type": "billing_error", "message": "no credit: 500"}, "no credit"),
    ({"message": "litellm.BadRequestError: 500 overloaded", "code": "400"}, "BadRequestError"),
]


@pytest.mark.parametrize("head", [False, True], ids=["first", "after the head"])
@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
@pytest.mark.parametrize(("error", "shown"), FINAL)
async def test_what_trying_again_does_not_mend_is_not_tried_again(
    world: World, model: str, error: dict[str, Any], shown: str, head: bool
) -> None:
    """Whatever digits and words the text has: one request, and the session says what the gateway said."""
    events, asked = await world.turn(model, failing(model, error, head=head))
    failure = error_of(events)

    assert asked == 1
    assert shown in failure["message"]
    is_billing = error.get("type") == "billing_error"
    assert failure["type"] == ("billing_error" if is_billing else "model_request_failed_error")


@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
async def test_a_final_error_with_a_status_of_its_own_is_not_tried_again(
    world: World, model: str
) -> None:
    """Digits in its text count for opencode, and a 500 of gateways that say 500 of everything."""
    for status in (400, 500):
        error = {"type": "invalid_request_error", "message": "max_tokens: 50000 > 429"}
        events, asked = await world.turn(
            model, json_answer({"type": "error", "error": error}, status)
        )
        assert asked == 1
        assert error_of(events)["message"].endswith("max_tokens: 50000 > 429")


@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
async def test_a_final_error_after_some_text_is_not_tried_again(world: World, model: str) -> None:
    """To ask again would repeat the text and fail again. A complete block stays, a half one does not."""
    error = {"type": "invalid_request_error", "message": "max_tokens: 50000 > 429"}
    begun = {
        CHAT_MODEL: sse(chunk({"content": "half"})),
        CLAUDE_MODEL: named_sse(*message_events({"type": "text", "text": "half"}, stop=None)),
    }[model]
    frame = failing(model, error).chunks
    events, asked = await world.turn(model, Answer([begun, *frame]))
    assert asked == 1
    # In chat completions nothing ends a text but the end of the answer.
    assert text_of(events) == ("half" if model == CLAUDE_MODEL else "")
    assert "max_tokens: 50000 > 429" in error_of(events)["message"]


@pytest.mark.parametrize("head", [False, True], ids=["first", "after the head"])
@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
@pytest.mark.parametrize("type_", ["rate_limit_error", "overloaded_error", "api_error"])
async def test_what_may_pass_is_tried_again(
    world: World, model: str, type_: str, head: bool
) -> None:
    """After the pause that the error asks for; the turn goes on."""
    asked = 0
    error = {"type": type_, "message": "not now", "retry_after": 1}

    def reply(_request: Request) -> Answer:
        nonlocal asked
        asked += 1
        return failing(model, error, head=head) if asked == 1 else GOOD[model]

    events, _ = await world.turn(model, reply)
    assert asked == 2
    assert text_of(events) == "hello"
    assert not plain(events, "session.error")


TOO_LONG = {
    "OpenAI": {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "x"},
    "Anthropic": {"type": "invalid_request_error", "message": "prompt is too long: 250000 tokens"},
    "LiteLLM": {"message": "litellm.ContextWindowExceededError: 500 > 429", "code": "400"},
}


@pytest.mark.parametrize("form", ["event", "status"])
@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
@pytest.mark.parametrize("vendor", TOO_LONG)
async def test_a_prompt_that_is_too_long_is_compacted(
    world: World, vendor: str, model: str, form: str
) -> None:
    """opencode knows it by a code, whatever the gateway calls it, and makes room once."""
    error, asked = TOO_LONG[vendor], 0

    def reply(_request: Request) -> Answer:
        nonlocal asked
        asked += 1
        if asked > 1:
            return GOOD[model]
        return failing(model, error) if form == "event" else json_answer({"error": error}, 400)

    events, _ = await world.turn(model, reply)
    assert asked == 2
    assert text_of(events)
    assert len(plain(events, "agent.thread_context_compacted")) == 1
    assert not plain(events, "session.error")
    assert events[-1]["stop_reason"] == {"type": "end_turn"}


async def test_a_long_prefill_is_an_answer(tmp_path: Path, world: World) -> None:
    """Signs of life for longer than headers are held: they pass, and the answer comes."""
    gate = asyncio.Event()
    async with open_world(world.gateway, tmp_path, gateway={"first_event_seconds": 0.1}) as short:
        answer = chat_text("hello")
        pings = Answer([b": ping\n\n"], gate=gate, later=answer.chunks)
        asyncio.get_running_loop().call_later(1.0, gate.set)
        events, asked = await short.turn(CHAT_MODEL, pings)
    assert (text_of(events), asked) == ("hello", 1)
