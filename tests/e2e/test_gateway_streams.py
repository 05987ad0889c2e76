"""What real gateways send, through the relay and opencode: each ends in an answer or an honest error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.gateway_scripted import (
    CHAT_MODEL,
    CLAUDE_MODEL,
    USAGE,
    Answer,
    Request,
    ScriptedGateway,
    chat_text,
    chunk,
    message_events,
    messages_text,
    named_sse,
    sse,
    whole_message,
)
from tests.harness import http_client, text_of, types_of
from tests.raw_client import plain
from tests.scripted_world import (
    World,
    bash,
    call,
    error_of,
    is_second,
    open_world,
    scripted_gateway,
)

STOP = {"type": "message_stop"}
TEXT = {"type": "text", "text": "hello"}
BEGUN = message_events(TEXT, stop=None)[:3]


def inside(type_: str, message: str) -> dict[str, Any]:
    """An error inside a stream, which both formats have in this form."""
    return {"type": "error", "error": {"type": type_, "message": message}}


def so_far(text: str, finish: str | None = None) -> dict[str, Any]:
    """Return a chunk that has all that was written so far, where a delta belongs."""
    message = {"role": "assistant", "content": text}
    return {**chunk(), "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


BROKEN = {
    "chat": (CHAT_MODEL, chat_text("half", None, done=False)),
    "chat with [DONE]": (CHAT_MODEL, chat_text("half", None)),
    "empty": (CHAT_MODEL, Answer()),
    "JSON labelled as events": (CHAT_MODEL, Answer([b'{"state":"oh"}'])),
    "messages": (CLAUDE_MODEL, Answer([named_sse(*message_events(TEXT, stop=None))])),
    "messages with a reason": (CLAUDE_MODEL, Answer([named_sse(*message_events(TEXT))])),
}
ERRORS = {
    "model_overloaded_error": (
        CLAUDE_MODEL,
        Answer([named_sse(*BEGUN, inside("overloaded_error", "Overloaded"))]),
    ),
    "billing_error": (CLAUDE_MODEL, Answer([named_sse(*BEGUN, inside("billing_error", "pay"))])),
    "model_rate_limited_error": (
        CHAT_MODEL,
        Answer([sse(chunk({"content": "a"}), inside("rate_limit_error", "slow down"))]),
    ),
    "model_request_failed_error": (
        CHAT_MODEL,
        Answer([sse(chunk({"content": "a"}), {"error": "boom"})]),
    ),
}
ELSEWHERE = "http://elsewhere.invalid/v1/chat/completions"
REDIRECT = Answer(status=307, headers=[("location", f"{ELSEWHERE}?token=hidden")])


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with scripted_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def world(
    gateway: ScriptedGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    async with open_world(gateway, tmp_path_factory.mktemp("streams")) as world:
        yield world


@pytest.fixture(scope="module")
async def guarded_world(
    gateway: ScriptedGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """Streams pass as they come, and turns are short."""
    async with open_world(
        gateway,
        tmp_path_factory.mktemp("guarded"),
        gateway={"repair_streams": False},
        turn={"max_requests_without_progress": 4, "max_model_requests": 8},
    ) as world:
        yield world


Failed = dict[str, tuple[list[dict[str, Any]], int]]


@pytest.fixture(scope="module", autouse=True)
async def failing(world: World) -> AsyncIterator[asyncio.Task[Failed]]:
    """The turns that fail, beside each other and the other tests: opencode takes a minute to give up."""

    async def run() -> Failed:
        cases = {**BROKEN, **ERRORS, "redirect": (CHAT_MODEL, REDIRECT)}
        turns = (world.turn(*case, seconds=350) for case in cases.values())
        return dict(zip(cases, await asyncio.gather(*turns), strict=True))

    task = asyncio.create_task(run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def failed(failing: asyncio.Task[Failed]) -> Failed:
    """What became of the turns that fail. The tests that want it come last."""
    return await failing


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (CHAT_MODEL, chat_text("hello", "weird")),
        (CHAT_MODEL, chat_text("hello", "tool_calls")),
        (CLAUDE_MODEL, messages_text("hello", None)),
    ],
)
async def test_a_loop_ends_whatever_its_cause(
    guarded_world: World, model: str, answer: Answer
) -> None:
    """With the repair off opencode would not stop asking: 4 answers that bring nothing end the turn."""
    events, asked = await guarded_world.turn(model, answer)
    error = error_of(events)

    assert asked == 4
    assert error["type"] == "model_request_failed_error"
    assert "SIDECAR_TURN_MAX_REQUESTS_WITHOUT_PROGRESS" in error["message"]


async def test_a_turn_makes_no_more_model_requests_than_allowed(guarded_world: World) -> None:
    """Tool calls are progress, and a model that never stops calling is stopped all the same; the session
    can be used on, and the metrics show it."""

    def tool(request: Request) -> Answer:
        fragment = call(0, f"call_{len(str(request.body))}", "bash", bash("again"))
        return Answer(
            [sse(chunk({"tool_calls": [fragment]}), chunk(finish="tool_calls"), "[DONE]")]
        )

    events, asked = await guarded_world.turn(CHAT_MODEL, tool)
    assert asked <= 8
    assert asked >= 7  # the title's request counts
    assert "SIDECAR_TURN_MAX_MODEL_REQUESTS" in error_of(events)["message"]

    fine, _ = await guarded_world.turn(CHAT_MODEL, chat_text("hello"))
    assert text_of(fine) == "hello"
    assert guarded_world.sidecar.admin_url is not None
    async with http_client(guarded_world.sidecar.admin_url) as http, http.get("/metrics") as page:
        text = await page.text()
    assert 'opencode_sidecar_model_requests_refused_total{reason="turn_limit"} 1.0' in text
    assert "opencode_sidecar_turn_model_requests_limit 8.0" in text


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        pytest.param(CHAT_MODEL, chat_text("hello", "weird"), id="unknown finish_reason"),
        pytest.param(CHAT_MODEL, chat_text("hello", "tool_calls"), id="calls without a call"),
        pytest.param(CLAUDE_MODEL, messages_text("hello", None), id="no stop_reason"),
        pytest.param(CLAUDE_MODEL, messages_text("hello", "eos"), id="unknown stop_reason"),
        pytest.param(
            CHAT_MODEL,
            Answer(
                [
                    sse(chunk({"content": "hello"}), chunk(finish="stop")),
                    sse({**chunk(), "choices": None, "usage": USAGE}, "[DONE]"),
                ]
            ),
            id="choices null",
        ),
        pytest.param(
            CHAT_MODEL,
            Answer(
                [
                    b"data: warming up\n\n: ping\n\n",
                    sse({"type": "ping"}, chunk({"role": "model", "content": [{"text": "hello"}]})),
                    sse(chunk(finish="stop")).rstrip(b"\n"),
                ]
            ),
            id="text, role, parts, no blank line",
        ),
        pytest.param(
            CLAUDE_MODEL,
            Answer(
                [
                    named_sse(
                        message_events(TEXT)[0],
                        {"type": "vendor.progress", "percent": 3},
                        *message_events(TEXT)[1:],
                        STOP,
                    )
                ]
            ),
            id="unknown event",
        ),
        pytest.param(
            CHAT_MODEL,
            Answer([sse(so_far("hel"), so_far("hello"), so_far("hello", "stop"), "[DONE]")]),
            id="all so far in each",
        ),
        pytest.param(
            CHAT_MODEL,
            Answer([sse(chunk({"content": "hello"}), so_far("hello", "stop"), "[DONE]")]),
            id="all again at the end",
        ),
        pytest.param(
            CLAUDE_MODEL,
            Answer(
                [named_sse({**whole_message("hel"), "stop_reason": None}, whole_message("hello"))]
            ),
            id="messages with all so far",
        ),
        pytest.param(
            CHAT_MODEL,
            Answer(
                [
                    sse(
                        {**chunk({"content": "hello"}), "created": "1700000000"},
                        {
                            **chunk(finish="stop"),
                            "usage": {name: str(count) for name, count in USAGE.items()},
                        },
                        "[DONE]",
                    )
                ]
            ),
            id="numbers as texts",
        ),
        pytest.param(CHAT_MODEL, chat_text("hello", content_type="text/plain"), id="text/plain"),
        pytest.param(
            CHAT_MODEL, chat_text("hello", content_type="application/json"), id="application/json"
        ),
        pytest.param(
            CLAUDE_MODEL,
            messages_text("hello", content_type="application/octet-stream"),
            id="octets",
        ),
        pytest.param(CLAUDE_MODEL, messages_text("hello", content_type=None), id="no type"),
        pytest.param(
            CHAT_MODEL, chat_text("hello", headers=[("x-big", "y" * 12_000)]), id="12 kB header"
        ),
        pytest.param(CHAT_MODEL, chat_text("hello", stays_open=True), id="open after [DONE]"),
        pytest.param(
            CHAT_MODEL, chat_text("hello", done=False, stays_open=True), id="open after the reason"
        ),
        pytest.param(CLAUDE_MODEL, messages_text("hello", stays_open=True), id="open after stop"),
        pytest.param(
            CLAUDE_MODEL,
            Answer(
                [chunk_.replace(b"\n", b"\r") for chunk_ in messages_text("hello").chunks],
                stays_open=True,
            ),
            id="CR alone, open after stop",
        ),
        pytest.param(
            CHAT_MODEL, chat_text("hello", done=False, is_dropped=True), id="reset at end"
        ),
    ],
)
async def test_an_odd_answer_is_an_answer(world: World, model: str, answer: Answer) -> None:
    """One request, the text, an ordinary end."""
    events, asked = await world.turn(model, answer)

    assert text_of(events) == "hello"
    assert not plain(events, "session.error")
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert asked == 1


TOOL_STREAMS: list[Any] = [
    pytest.param(
        CHAT_MODEL,
        sse(
            chunk({"tool_calls": [call(0, "a", "bash", bash("one"))]}),
            chunk({"tool_calls": [call(0, "b", "bash", bash("two"))]}),
        ),
        id="all index 0",
    ),
    pytest.param(
        CHAT_MODEL,
        sse(
            chunk(
                {
                    "tool_calls": [
                        call(0, "a", "bash", bash("one")),
                        call(0, "b", "bash", bash("two")),
                    ]
                }
            )
        ),
        id="all index 0 in one chunk",
    ),
    pytest.param(
        CHAT_MODEL,
        sse(
            chunk({"tool_calls": [call(0, None, "bash", bash("one"))]}),
            chunk({"tool_calls": [call(1, None, "bash", bash("two")[:9])]}),
            chunk({"tool_calls": [call(1, None, None, bash("two")[9:])]}),
        ),
        id="no id",
    ),
    pytest.param(
        CHAT_MODEL,
        sse(
            chunk({"tool_calls": [call(0, "a", None, "")]}),
            chunk({"tool_calls": [call(0, None, "bash", bash("one"))]}),
            chunk({"tool_calls": [call(0, "b", None, None)]}),
            chunk({"tool_calls": [call(0, None, "bash", "")]}),
            chunk({"tool_calls": [call(0, None, None, bash("two"))]}),
        ),
        id="late names, all index 0",
    ),
    pytest.param(
        CHAT_MODEL,
        sse(
            chunk({"tool_calls": [call(None, None, "bash", json.loads(bash("one")))]}),
            chunk({"tool_calls": [call(None, None, "bash", json.loads(bash("two")))]}),
        ),
        id="arguments as objects, no index",
    ),
    pytest.param(
        CLAUDE_MODEL,
        named_sse(
            *(
                {**event, "index": 0} if "index" in event else event
                for event in message_events(
                    {
                        "type": "tool_use",
                        "id": "a",
                        "name": "bash",
                        "input": json.loads(bash("one")),
                    },
                    {
                        "type": "tool_use",
                        "id": "b",
                        "name": "bash",
                        "input": json.loads(bash("two")),
                    },
                    stop="tool_use",
                )
                if event["type"] != "content_block_stop"
            ),
            STOP,
        ),
        id="blocks under one index, without stops",
    ),
]


@pytest.mark.parametrize(("model", "stream"), TOOL_STREAMS)
async def test_odd_tool_calls_are_all_run(world: World, model: str, stream: bytes) -> None:
    """Both calls run, and the model gets both results."""
    is_chat = model == CHAT_MODEL
    end = sse(chunk(finish="tool_calls"), "[DONE]") if is_chat else b""
    last = chat_text("done") if is_chat else messages_text("done")
    events, asked = await world.turn(
        model, lambda request: last if is_second(request) else Answer([stream, end])
    )

    results = [event["content"][0]["text"] for event in plain(events, "agent.tool_result")]
    assert sorted(results) == ["one\n", "two\n"]
    assert text_of(events) == "done"
    assert asked == 2


@pytest.mark.parametrize("model", [CHAT_MODEL, CLAUDE_MODEL])
async def test_a_call_id_may_come_again_in_each_answer(world: World, model: str) -> None:
    """Parsers that number the calls of an answer: every call and every result is in the session."""

    def reply(request: Request) -> Answer:
        words = [word for word in ("one", "two") if f"echo {word}" not in json.dumps(request.body)]
        if not words:
            return chat_text("done") if model == CHAT_MODEL else messages_text("done")
        if model == CHAT_MODEL:
            fragment = call(0, "call_0", "bash", bash(words[0]))
            end = chunk(finish="tool_calls")
            return Answer([sse(chunk({"tool_calls": [fragment]}), end, "[DONE]")])
        use = {"id": "call_0", "name": "bash", "input": json.loads(bash(words[0]))}
        events = message_events({"type": "tool_use", **use}, stop="tool_use")
        return Answer([named_sse(*events, STOP)])

    events, asked = await world.turn(model, reply)
    results = [event["content"][0]["text"] for event in plain(events, "agent.tool_result")]
    assert results == ["one\n", "two\n"]
    uses = [event["id"] for event in plain(events, "agent.tool_use")]
    assert [e["tool_use_id"] for e in plain(events, "agent.tool_result")] == uses
    assert text_of(events) == "done"
    assert asked == 3


@pytest.mark.parametrize(
    ("model", "answer", "text"),
    [
        (CHAT_MODEL, chat_text("", "length"), ""),
        (CHAT_MODEL, chat_text("a cut answer", "length"), "a cut answer"),
        (CHAT_MODEL, chat_text("a cut answer", "MAX_TOKENS"), "a cut answer"),
        (CLAUDE_MODEL, Answer([named_sse(*message_events(stop="max_tokens"), STOP)]), ""),
        (CLAUDE_MODEL, messages_text("a cut answer", "max_tokens"), "a cut answer"),
    ],
)
async def test_a_used_up_limit_is_named(
    world: World, model: str, answer: Answer, text: str
) -> None:
    """What was written is kept, and the session says that the limit ended it."""
    events, asked = await world.turn(model, answer)
    error = error_of(events)

    assert text_of(events) == text
    assert asked == 1
    assert error["type"] == "model_request_failed_error"
    assert ("the answer was cut" if text else "the model wrote nothing") in error["message"]
    assert "max_tokens" in error["message"]


@pytest.mark.parametrize("name", BROKEN)
async def test_a_stream_that_ends_without_its_mark_is_a_failed_request(
    failed: Failed, name: str
) -> None:
    """opencode tries 5 more times, as for any failure, and then the session says what was missing; the
    beginning of an answer is not shown as one, let alone six times."""
    events, asked = failed[name]
    error = error_of(events)

    assert asked == 6
    assert "agent.message" not in types_of(events)
    assert error["type"] == "model_request_failed_error"
    assert "connection lost" in error["message"]


@pytest.mark.parametrize("type_", ERRORS)
async def test_an_error_inside_a_stream_has_the_type_that_the_relay_saw(
    failed: Failed, type_: str
) -> None:
    """opencode passes it on as mere text; the failure of the latest request decides."""
    events, _ = failed[type_]
    assert error_of(events)["type"] == type_


async def test_a_redirect_to_another_host_never_reaches_opencode(failed: Failed) -> None:
    """It would send the prompt there; the error names the target without its secrets."""
    events, _ = failed["redirect"]
    message = error_of(events)["message"]

    assert ELSEWHERE in message
    assert "hidden" not in message
