"""Messages inside a stream that hold all that was written so far: nothing is doubled, nothing is lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import Wire
from tests.fakes.gateway_scripted import chunk, message_events, named_sse, sse, whole_response

ARGUMENTS = json.dumps({"command": "echo one", "n": [1, 2]})
TEXTS = st.text(st.sampled_from("ab \n"), min_size=1, max_size=4)


def objects(wire: Wire, stream: bytes) -> list[dict[str, Any]]:
    answer = AnswerStream(wire, is_repaired=True)
    passed = answer.feed(stream) + answer.end()
    assert answer.missing is None
    return [json.loads(line[6:]) for line in passed.split(b"\n") if line.startswith(b"data: {")]


def message(
    content: str | None = None,
    finish: str | None = None,
    calls: list[Any] | None = None,
    thought: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A chunk with `message` where `delta` belongs."""
    whole = {
        "role": "assistant",
        "content": content,
        "reasoning_content": thought,
        "tool_calls": calls,
    }
    return {**chunk(), "choices": [{"index": 0, "message": whole, "finish_reason": finish, **more}]}


def read(stream: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """Return text, reasoning and calls as opencode puts them together."""
    text, thought, calls = "", "", {}
    for value in objects("chat", stream):
        for choice in value["choices"]:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            thought += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or []:
                if call["index"] not in calls:
                    assert call["id"]
                    calls[call["index"]] = [call["function"]["name"], ""]
                calls[call["index"]][1] += call["function"].get("arguments") or ""
    return text, thought, [(name, arguments) for name, arguments in calls.values()]


@given(st.lists(TEXTS, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_the_text_so_far_is_passed_on_once(
    parts: list[str], is_repeated: bool, has_empty: bool
) -> None:
    """Each message has the text so far; the last may repeat it, and some have nothing new."""
    texts = list(itertools.accumulate(parts))
    frames = [message("")] if has_empty else []
    for text in texts:
        frames += [message(text, thought=text)] * (1 + is_repeated)
    stream = sse(*frames, message(texts[-1], "stop", thought=texts[-1]), "[DONE]")
    assert read(stream)[:2] == (texts[-1], texts[-1])


@given(
    st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=3), min_size=1),
    st.sampled_from(["", "role", "all"]),
)
def test_deltas_and_a_whole_message_at_the_end(parts: list[str], sent: str) -> None:
    """The text is taken from one of the two, also where the deltas pass unread."""
    text = "".join(parts)
    deltas = {
        "": [],
        "role": [chunk({"role": "assistant", "content": ""})],
        "all": [chunk({"role": "assistant"}), *(chunk({"content": part}) for part in parts)],
    }[sent]
    assert read(sse(*deltas, message(text, "stop")))[0] == text
    assert read(sse(*deltas, message(text, "stop", delta={})))[0] == text
    assert read(sse(*deltas, message(text, "stop", delta={"role": "assistant"})))[0] == text


@pytest.mark.parametrize(
    "pieces",
    [
        ["I", " am", " here"],
        ["ha", "ha", "!"],
        ["no", "no", "no", " way"],
        ["one", "", " two"],
    ],
)
def test_messages_that_are_pieces_are_put_together(pieces: list[str]) -> None:
    """They do not begin with what came before, so each is the next piece."""
    stream = sse(*(message(piece) for piece in pieces), message("", "stop"))
    assert read(stream)[0] == "".join(pieces)


def call(arguments: object, id_: str | None = None, name: str = "bash") -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return made if id_ is None else {"id": id_, **made}


@pytest.mark.parametrize("id_", [None, "call_1"])
def test_calls_so_far_are_passed_on_once(id_: str | None) -> None:
    """With arguments that grow, and a second call of the same tool."""
    second = None if id_ is None else "call_2"
    other = ARGUMENTS.replace("one", "two")
    stream = sse(
        message(calls=[call("", id_)]),
        message(calls=[call(ARGUMENTS[:9], id_)]),
        message(calls=[call(ARGUMENTS, id_)]),
        message(calls=[call(ARGUMENTS, id_), call(other[:5], second)]),
        message(calls=[call(ARGUMENTS, id_), call(other, second)]),
        message(finish="tool_calls", calls=[call(ARGUMENTS, id_), call(other, second)]),
    )
    assert read(stream)[2] == [("bash", ARGUMENTS), ("bash", other)]


@pytest.mark.parametrize("has_ids", [True, False])
def test_calls_of_deltas_are_not_repeated_by_the_message(has_ids: bool) -> None:
    """Written another way, as an object, or with ids only in one place, they are the same calls."""
    other = ARGUMENTS.replace("one", "two")
    fragments = [
        {"index": 0, "id": "a", "function": {"name": "bash", "arguments": ARGUMENTS}},
        {"index": 1, "id": "b", "function": {"name": "bash", "arguments": other}},
    ]
    ids = ("a", "b") if has_ids else (None, None)
    whole = [
        call(json.loads(ARGUMENTS), ids[0]),
        call(json.dumps(json.loads(other), indent=1), ids[1]),
    ]
    stream = sse(chunk({"tool_calls": fragments}), message(finish="tool_calls", calls=whole))
    assert read(stream)[2] == [("bash", ARGUMENTS), ("bash", other)]


def test_each_message_may_bring_a_call_of_its_own() -> None:
    """As Ollama's chunks do: the calls differ, so none is the one before."""
    other = ARGUMENTS.replace("one", "two")
    stream = sse(
        message(calls=[call(json.loads(ARGUMENTS))]),
        message(calls=[call(json.loads(other))]),
        message(calls=[call("{}", name="read")]),
        message(finish="stop"),
    )
    assert read(stream)[2] == [("bash", ARGUMENTS), ("bash", other), ("read", "{}")]


def test_two_calls_under_one_id_in_a_message_stay_two() -> None:
    """Some parsers of models give all calls one id."""
    other = ARGUMENTS.replace("one", "two")
    stream = sse(message(finish="tool_calls", calls=[call(ARGUMENTS, "x"), call(other, "x")]))
    assert read(stream)[2] == [("bash", ARGUMENTS), ("bash", other)]


def said(values: list[dict[str, Any]]) -> tuple[str, list[Any]]:
    """Return text and calls of a repaired message."""
    deltas = [value.get("delta") or {} for value in values]
    blocks = [value.get("content_block") or {} for value in values]
    text = "".join(delta.get("text", "") for delta in deltas)
    return text, [block["input"] for block in blocks if block.get("type") == "tool_use"]


def whole(text: str, *inputs: Any, stop: str | None = None) -> dict[str, Any]:
    blocks = [
        {"type": "tool_use", "id": f"c{n}", "name": "t", "input": i} for n, i in enumerate(inputs)
    ]
    head = message_events()[0]["message"]
    return {**head, "content": [{"type": "text", "text": text}, *blocks], "stop_reason": stop}


def test_whole_messages_of_the_messages_api() -> None:
    """Each has the blocks so far; the last one ends the answer, the others do not."""
    values = objects(
        "messages",
        named_sse(
            whole("hel"),
            whole("hello"),
            whole("hello", {"half": 1}),
            whole("hello", {"half": 1, "rest": 2}, {"n": 2}),
            whole("hello", {"half": 1, "rest": 2}, {"n": 2}, stop="tool_use"),
        ),
    )
    assert said(values) == ("hello", [{"half": 1, "rest": 2}, {"n": 2}])
    starts = [v["index"] for v in values if v["type"] == "content_block_start"]
    stops = [v["index"] for v in values if v["type"] == "content_block_stop"]
    assert starts == stops == [0, 1, 2]
    assert [v["type"] for v in values].count("message_start") == 1
    assert values[-1]["type"] == "message_stop"


def test_a_whole_message_after_its_events_only_ends_them() -> None:
    """In place of the events that say so."""
    events = message_events({"type": "text", "text": "hello"}, stop=None)
    values = objects("messages", named_sse(*events, whole("hello", stop="max_tokens")))
    assert said(values) == ("hello", [])
    assert [v["delta"]["stop_reason"] for v in values if v["type"] == "message_delta"] == [
        "max_tokens"
    ]


def test_whole_responses_of_the_responses_api() -> None:
    """Unfinished ones are skipped, and one after its events only ends them."""
    response = whole_response("hello")
    for stream in (
        sse({**response, "status": "in_progress", "output": []}, response),
        named_sse(
            {"type": "response.created", "response": {}},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
            {"type": "response.output_text.delta", "item_id": "m", "delta": "hello"},
        )
        + sse(response),
    ):
        values = objects("responses", stream)
        text = [v["delta"] for v in values if v["type"] == "response.output_text.delta"]
        assert text == ["hello"]
        assert values[-1]["type"] == "response.completed"


@pytest.mark.parametrize("nothing", ["null", "None", "", "FINISH_REASON_UNSPECIFIED", "undefined"])
def test_a_reason_that_is_none(nothing: str) -> None:
    """Sent in every chunk, as text: the answer goes on."""
    stream = sse(message("a", nothing), message("ab", nothing), chunk(finish="stop"))
    assert read(stream)[0] == "ab"
    answer = AnswerStream("chat", is_repaired=False)
    answer.feed(sse(chunk({"content": "a"}, nothing)))
    assert not answer.has_terminal_mark


NUMBERS: list[tuple[Wire, dict[str, Any], list[Any]]] = [
    ("chat", chunk(created="1700000000"), ["created", 1700000000]),
    ("chat", chunk(created="yesterday"), ["created", None]),
    ("chat", chunk(usage={"prompt_tokens": "12"}), ["usage", "prompt_tokens", 12]),
    (
        "chat",
        chunk(usage={"prompt_tokens_details": {"cached_tokens": "3"}}),
        ["usage", "prompt_tokens_details", "cached_tokens", 3],
    ),
    (
        "messages",
        {"type": "message_start", "message": {"usage": {"input_tokens": "12"}}},
        ["message", "usage", "input_tokens", 12],
    ),
    (
        "messages",
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": "3"}},
        ["usage", "output_tokens", 3],
    ),
    ("responses", {"type": "response.x", "sequence_number": "4"}, ["sequence_number", 4]),
    ("responses", {"type": "response.x", "output_index": "1"}, ["output_index", 1]),
    (
        "responses",
        {"type": "response.completed", "response": {"usage": {"input_tokens": "5"}}},
        ["response", "usage", "input_tokens", 5],
    ),
]


@pytest.mark.parametrize(("wire", "value", "expected"), NUMBERS)
def test_numbers_that_came_as_texts(wire: Wire, value: dict[str, Any], expected: list[Any]) -> None:
    """They are numbers for opencode, and they are counted."""
    answer = AnswerStream(wire, is_repaired=True)
    *path, number = expected
    more = sse({"type": "message_stop"})  # before which the end of a message is held back
    [_, line, *_] = (answer.feed(sse(value)) or answer.feed(more)).split(b"data: ")
    found: Any = json.loads(line.partition(b"\n")[0])
    for name in path:
        found = found[name]
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize("form", [str, float, lambda n: f" {n}.0 "])
@pytest.mark.parametrize("is_repaired", [True, False])
def test_usage_is_counted_in_any_form(form: Any, is_repaired: bool) -> None:
    """Also with the repairs off."""
    usage = {"prompt_tokens": form(11), "completion_tokens": form(3)}
    answer = AnswerStream("chat", is_repaired=is_repaired)
    answer.feed(sse(chunk(finish="stop"), {**chunk(), "choices": [], "usage": usage}))
    assert answer.facts.usage is not None
    assert (answer.facts.usage.input_tokens, answer.facts.usage.output_tokens) == (11, 3)


@pytest.mark.parametrize("form", [str, float])
def test_indices_in_any_form(form: Any) -> None:
    """Blocks and calls keep their places."""
    blocks = [{"type": "tool_use", "id": f"c{n}", "name": "t", "input": {"n": n}} for n in range(2)]
    events = message_events(*blocks, stop="tool_use")
    for event in events:
        if "index" in event:
            event["index"] = form(event["index"])
    values = objects("messages", named_sse(*events, {"type": "message_stop"}))
    assert [v["index"] for v in values if v["type"] == "content_block_stop"] == [0, 1]
    parts = [v["delta"]["partial_json"] for v in values if v["type"] == "content_block_delta"]
    assert parts == ['{"n": 0}', '{"n": 1}']

    fragments = [
        {"index": form(n), "id": f"c{n}", "function": {"name": "t", "arguments": f'{{"n":{n}}}'}}
        for n in range(2)
    ]
    stream = sse(*(chunk({"tool_calls": [each]}) for each in fragments), chunk(finish="tool_calls"))
    assert read(stream)[2] == [("t", '{"n":0}'), ("t", '{"n":1}')]
