"""A whole JSON answer to a streaming request becomes the stream that it should have been."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import Wire
from sidecar.gateway.streams.formats import format_of
from sidecar.gateway.streams.whole import begins_as_json, is_whole, stream_of
from tests.fakes.gateway_scripted import (
    chunk,
    message_events,
    named_sse,
    sse,
    whole_chat,
    whole_message,
    whole_response,
)

ARGUMENTS = {"command": "echo one"}
WHOLE: dict[Wire, dict[str, Any]] = {
    "chat": whole_chat("hello", ("call_1", "bash", ARGUMENTS), ("call_2", "bash", ARGUMENTS)),
    "messages": whole_message(
        "hello", ("call_1", "bash", ARGUMENTS), ("call_2", "bash", ARGUMENTS)
    ),
    "responses": whole_response(
        "hello", ("call_1", "bash", ARGUMENTS), ("call_2", "bash", ARGUMENTS)
    ),
}


def streamed(wire: Wire, body: bytes) -> tuple[AnswerStream, list[dict[str, Any]]]:
    """Return the stream and the objects that reach opencode."""
    answer = AnswerStream(wire, is_repaired=True)
    events = stream_of(wire, body)
    assert events is not None
    passed = answer.feed(events) + answer.end()
    lines = (line for line in passed.split(b"\n") if line.startswith(b"data: {"))
    return answer, [json.loads(line[6:]) for line in lines]


def read(wire: Wire, objects: list[dict[str, Any]]) -> tuple[str, str, list[Any]]:
    """Return text, thinking and calls as the AI SDK reads them from a stream."""
    text, thought, calls = "", "", {}
    for value in objects:
        if wire == "chat":
            for choice in value["choices"]:
                text += choice["delta"].get("content") or ""
                thought += choice["delta"].get("reasoning_content") or ""
                for call in choice["delta"].get("tool_calls") or []:
                    calls[call["index"]] = [call["id"], call["function"]["arguments"]]
        elif wire == "messages":
            delta = value.get("delta") or {}
            text += delta.get("text", "")
            thought += delta.get("thinking", "")
            block = value.get("content_block") or {}
            if block.get("type") == "tool_use":
                calls[value["index"]] = [block["id"], json.dumps(block["input"])]
        else:
            kind = value["type"]
            text += value["delta"] if kind == "response.output_text.delta" else ""
            thought += value["delta"] if kind == "response.reasoning_summary_text.delta" else ""
            item = value.get("item") or {}
            if kind == "response.output_item.done" and item["type"] == "function_call":
                calls[value["output_index"]] = [item["call_id"], item["arguments"]]
    return text, thought, [[id_, json.loads(raw)] for id_, raw in calls.values()]


@pytest.mark.parametrize("wire", WHOLE)
def test_a_whole_answer_is_streamed(wire: Wire) -> None:
    """Its text, its thoughts, its calls, its usage, its end; and nothing twice."""
    answer, objects = streamed(wire, json.dumps(WHOLE[wire], indent=2).encode())

    assert read(wire, objects) == (
        "hello",
        "hm",
        [["call_1", ARGUMENTS], ["call_2", ARGUMENTS]],
    )
    assert answer.facts.call_count == 2
    assert answer.facts.usage is not None
    assert (answer.facts.usage.input_tokens, answer.facts.usage.output_tokens) == (11, 3)
    assert answer.missing is None
    assert answer.facts.is_over
    assert answer.fault is None


@pytest.mark.parametrize("wire", WHOLE)
def test_a_whole_answer_within_an_event_is_the_same(wire: Wire) -> None:
    """Some gateways put it into one event of a stream."""
    answer = AnswerStream(wire, is_repaired=True)
    raw = b"data: " + json.dumps(WHOLE[wire]).encode() + b"\n\ndata: [DONE]\n\n"
    lines = (line for line in answer.feed(raw).split(b"\n") if line.startswith(b"data: {"))
    assert read(wire, [json.loads(line[6:]) for line in lines])[0] == "hello"
    assert answer.missing is None


def test_a_signature_of_a_thought_is_kept() -> None:
    """Anthropic refuses a thought that is sent back without it."""
    _, objects = streamed("messages", json.dumps(WHOLE["messages"]).encode())
    deltas = [value["delta"] for value in objects if value["type"] == "content_block_delta"]
    assert {"type": "signature_delta", "signature": "sig"} in deltas


@pytest.mark.parametrize("reason", [None, ""])
def test_a_whole_answer_without_a_reason_is_complete(reason: str | None) -> None:
    """Unlike a stream it cannot have been cut: JSON that was cut cannot be parsed."""
    whole = whole_chat("hello", finish=reason)
    answer, _ = streamed("chat", json.dumps(whole).encode())
    assert answer.missing is None
    assert answer.facts.reason == "stop"

    message = {**whole_message("hello"), "stop_reason": reason}
    answer, objects = streamed("messages", json.dumps(message).encode())
    assert answer.missing is None
    assert any((value.get("delta") or {}).get("stop_reason") == "end_turn" for value in objects)


@pytest.mark.parametrize("form", ["{}\n{}\n{}", "[{},{},{}]", "{}{},{},"])
def test_chunks_without_events_are_a_stream(form: str) -> None:
    """One object per line, or an array of them."""
    chunks = (chunk({"content": "hel"}), chunk({"content": "lo"}), chunk(finish="stop"))
    body = form.replace("{}", "%s") % tuple(json.dumps(each) for each in chunks)
    answer, objects = streamed("chat", body.encode())
    assert read("chat", objects)[0] == "hello"
    assert answer.missing is None


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"[1]", b'{"detail": "oh"}', b'{"error": "oh"}', b'{"id": "x"'],
)
def test_other_json_is_no_answer(body: bytes) -> None:
    """Errors, fragments and what is of no API."""
    assert stream_of("chat", body) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", False), (b"\xef\xbb\xbf \n{", True), (b"[", True), (b"data: {", False)],
)
def test_json_is_known_by_its_beginning(body: bytes, expected: bool) -> None:
    """A byte order mark and blanks before it do not count."""
    assert begins_as_json(body) is expected


def test_an_answer_may_be_over_before_its_connection() -> None:
    """When its JSON is complete."""
    assert is_whole(b'{"a": {}} \n')
    assert not is_whole(b'{"a": {}')
    assert not is_whole(b'{"a": 1')


FOREIGN: dict[str, bytes] = {
    "chat": sse(chunk({"content": "hello"}), chunk(finish="stop"), "[DONE]"),
    "messages": named_sse(*message_events({"type": "text", "text": "x"}), {"type": "message_stop"}),
    "responses": named_sse({"type": "response.created", "response": {}}),
    "gemini": sse({"candidates": [{"content": {"parts": [{"text": "x"}]}}]}),
    "ollama": sse({"model": "m", "message": {"role": "assistant", "content": "x"}, "done": False}),
    **{f"whole {wire}": sse(value) for wire, value in WHOLE.items()},
}


@pytest.mark.parametrize("is_repaired", [True, False])
@pytest.mark.parametrize("came", FOREIGN)
@pytest.mark.parametrize("wire", WHOLE)
def test_an_answer_in_another_format_is_named(wire: Wire, came: str, is_repaired: bool) -> None:
    """At its first object, in words for which opencode does not try again; nothing of it is passed on."""
    answer = AnswerStream(wire, is_repaired=is_repaired)
    passed = answer.feed(FOREIGN[came])
    if came.removeprefix("whole ") == wire:
        assert answer.fault is None
        return
    assert not passed
    assert answer.fault is not None
    assert answer.fault.kind == "wrong_format"
    assert not any(digit in answer.fault.message for digit in "0123456789")
    assert answer.fault.message.endswith("was asked for")


NAMES = (
    *("type", "object", "choices", "message", "content", "output", "status", "error", "delta"),
    *("stop_reason", "finish_reason", "tool_calls", "usage", "summary", "candidates", "done"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["message", "response", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        | st.fixed_dictionaries({"type": st.just("message"), "content": st.lists(inner)})
        | st.fixed_dictionaries({"object": st.just("response"), "output": inner})
        | st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"message": inner}))})
    ),
    max_leaves=15,
)


@given(st.sampled_from(["chat", "messages", "responses"]), JSON)
def test_no_json_body_breaks_the_relay(wire: Wire, value: Any) -> None:
    """It is an answer, one of another format, or none."""
    events = stream_of(wire, json.dumps(value).encode())
    if events is None:
        return
    answer = AnswerStream(wire, is_repaired=True)
    answer.feed(events)
    first = value[0] if isinstance(value, list) else value
    assert (answer.fault is not None) == (format_of(first) != wire)
