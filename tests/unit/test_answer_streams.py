"""Streamed answers on their way to the child: passed byte for byte or repaired, in any split."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import Wire
from sidecar.gateway.streams.frames import FrameSplitter, looks_like_events
from tests.fakes.gateway_scripted import USAGE, chunk, message_events, named_sse, sse

BASH = {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "true"}}
GOOD: list[tuple[Wire, bytes]] = [
    (
        "chat",
        b": ping\n\n"
        + sse(
            chunk({"role": "assistant", "content": "grüße 你好"}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 1, "id": "a", "function": {"name": "t", "arguments": ""}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"x":'}}]}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "b", "function": {"name": "t", "arguments": "{}"}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": "1}"}}]}),
            chunk(finish="tool_calls"),
            {**chunk(), "choices": [], "usage": USAGE},
            "[DONE]",
        ),
    ),
    (
        "chat",
        sse(chunk({"content": "x"}), chunk(finish="length"), "[DONE]").replace(b"\n", b"\r\n"),
    ),
    (
        "messages",
        named_sse(
            message_events()[0],
            {"type": "ping"},
            *message_events({"type": "text", "text": "hi"}, BASH, stop="tool_use")[1:],
            {"type": "message_stop"},
        ),
    ),
    ("responses", named_sse({"type": "vendor.x"}, {"type": "response.completed", "response": {}})),
    ("other", b"data: anything\n\ndata: {nope\n\n"),
]
ODD: list[tuple[Wire, bytes]] = [
    (
        "chat",
        b"data: warm\n\n" + sse({"choices": None, "usage": USAGE}, chunk(finish="eos"), "[DONE]"),
    ),
    (
        "chat",
        sse(
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"name": "t", "arguments": "{}"}}]}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "b", "function": {"name": "t", "arguments": {}}}
                    ]
                }
            ),
            chunk(finish="tool_calls"),
        ).rstrip(b"\n"),
    ),
    (
        "messages",
        named_sse(
            *(e for e in message_events(BASH, BASH, stop=None) if "stop" not in e["type"]),
            {"type": "vendor.x"},
            {"type": "message_stop"},
        ),
    ),
]


BOM = b"\xef\xbb\xbf"
ODD.append(("chat", BOM + sse(chunk({"role": "model", "content": "x"}), chunk(finish="stop"))))


def passed(wire: Wire, stream: bytes, cuts: list[int], *, is_repaired: bool = True) -> bytes:
    answer = AnswerStream(wire, is_repaired=is_repaired)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return b"".join(answer.feed(stream[a:b]) for a, b in itertools.pairwise(edges)) + answer.end()


def objects(stream: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream of LF lines."""
    lines = (line for line in stream.split(b"\n") if line.startswith(b"data: {"))
    return [json.loads(line[6:]) for line in lines]


def calls(stream: bytes) -> list[tuple[str, str]]:
    """Return name and arguments of the calls as opencode's parser puts them together."""
    made: dict[int, list[str]] = {}
    for value in objects(stream):
        for choice in value["choices"]:
            for fragment in choice["delta"].get("tool_calls") or []:
                function = fragment["function"]
                if fragment["index"] not in made:
                    assert fragment["id"]
                    made[fragment["index"]] = [function["name"], ""]
                made[fragment["index"]][1] += function.get("arguments") or ""
    return [(name, arguments) for name, arguments in made.values()]


@pytest.mark.parametrize(("wire", "stream"), GOOD)
@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_a_stream_that_needs_nothing_passes_byte_for_byte(
    wire: Wire, stream: bytes, cuts: list[int]
) -> None:
    """With the repair on, however the network cuts it."""
    assert passed(wire, stream, cuts) == stream


@pytest.mark.parametrize(("wire", "stream"), ODD)
@given(cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_the_split_does_not_matter(wire: Wire, stream: bytes, cuts: list[int]) -> None:
    """Any cutting of the bytes gives the same repaired stream (ids that are made differ)."""
    whole, cut = (
        objects(re.sub(rb"call_[0-9a-f]{24}", b"made", passed(wire, stream, c))) for c in ([], cuts)
    )
    assert cut == whole
    assert cut != objects(stream)


@pytest.mark.parametrize(("wire", "stream"), ODD)
def test_without_the_repair_all_bytes_pass(wire: Wire, stream: bytes) -> None:
    """The setting switches every repair off; only the last frame gets its blank line."""
    assert passed(wire, stream, [], is_repaired=False).rstrip(b"\n") == stream.rstrip(b"\n")


@given(
    st.lists(
        st.sampled_from([b"data: a", b": c", b"event: e", b"\n", b"\r\n", b"\r"]), max_size=30
    ),
    st.lists(st.integers(0, 200), max_size=10),
)
def test_frames_lose_nothing(parts: list[bytes], cuts: list[int]) -> None:
    """Frames and rest are the bytes that were fed, and the same frames in any split."""
    stream = b"".join(parts)
    splitter, frames = FrameSplitter(), []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for a, b in itertools.pairwise(edges):
        splitter.add(stream[a:b])
        frames += iter(splitter.next, None)
    assert b"".join(frames) + splitter.rest() == stream


FRAGMENT = st.fixed_dictionaries(
    {"name": st.sampled_from(["bash", "read"]), "size": st.integers(1, 40)}
)


@given(
    wanted=st.lists(FRAGMENT, min_size=1, max_size=4),
    has_index=st.sampled_from(["right", "zero", "none"]),
    has_id=st.sampled_from(["first", "none", "each"]),
    cut=st.integers(1, 12),
)
def test_calls_are_put_together_whatever_the_gateway_leaves_out(
    wanted: list[dict[str, Any]], has_index: str, has_id: str, cut: int
) -> None:
    """One after the other: any index, any id; none is lost, none is joined with another."""
    expected, chunks = [], []
    for number, call in enumerate(wanted):
        arguments = json.dumps({"command": "x" * call["size"], "n": number})
        expected.append((call["name"], arguments))
        for at in range(0, len(arguments), cut):
            fragment: dict[str, Any] = {"function": {"arguments": arguments[at : at + cut]}}
            if has_index != "none":
                fragment["index"] = number if has_index == "right" else 0
            if not at:
                fragment["function"]["name"] = call["name"]
            if has_id == "each" or (has_id == "first" and not at):
                fragment["id"] = f"call_{number}"
            chunks.append(chunk({"tool_calls": [fragment]}))
    assert calls(passed("chat", sse(*chunks, chunk(finish="tool_calls")), [])) == expected


@pytest.mark.parametrize("name", ["functions.bash", " bash\n", "bash"])
def test_a_tool_is_called_by_the_name_that_was_offered(name: str) -> None:
    """Templates of some models put the tools into a namespace; parsers leave it, or blanks, in the name."""
    fragment = {"index": 0, "id": "a", "function": {"name": name, "arguments": "{}"}}
    stream = sse(chunk({"tool_calls": [fragment]}), chunk(finish="tool_calls"))
    assert calls(passed("chat", stream, [])) == [("bash", "{}")]


NAMES = (
    *("type", "index", "delta", "choices", "usage", "message", "content_block", "error", "id"),
    *("tool_calls", "function", "name", "arguments", "finish_reason", "stop_reason", "content"),
    *("role", "model", "created", "reasoning", "reasoning_content", "function_call", "item"),
)
TYPES = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "message_stop", "error", "text", "tool_use", "text_delta", "stop"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TYPES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
        | st.fixed_dictionaries({"type": st.sampled_from(TYPES), "index": inner, "delta": inner})
        | st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"delta": inner}))})
    ),
    max_leaves=15,
)


@given(st.sampled_from(["chat", "messages", "responses"]), st.lists(JSON, max_size=5))
def test_no_json_breaks_the_relay(wire: Wire, values: list[Any]) -> None:
    """Whatever the objects hold, each is passed, repaired or left out; nothing raises."""
    passed(wire, sse(*(value for value in values if not isinstance(value, str))), [])


@pytest.mark.parametrize(
    ("wire", "stream", "missing"),
    [
        ("chat", sse(chunk({"content": "x"})), "finish_reason"),
        ("chat", sse(chunk({"content": "x"}, ""), "[DONE]"), "finish_reason"),
        ("chat", sse(chunk(finish="stop")), None),
        ("chat", sse({"error": {"message": "x"}}), None),
        ("chat", b"", "finish_reason"),
        ("messages", named_sse(*message_events()), "message_stop"),
        ("messages", named_sse(*message_events(), {"type": "message_stop"}), None),
        ("responses", named_sse({"type": "response.created"}), "response.completed"),
        ("responses", named_sse({"type": "response.incomplete"}), None),
        ("responses", named_sse({"type": "response.failed", "response": {}}), None),
        ("other", b"data: x\n\n", None),
    ],
)
@pytest.mark.parametrize("is_repaired", [True, False])
def test_what_an_answer_lacks(
    wire: Wire, stream: bytes, missing: str | None, is_repaired: bool
) -> None:
    """Each wire format has its own mark of a complete answer; an error needs none."""
    answer = AnswerStream(wire, is_repaired=is_repaired)
    answer.feed(stream)
    answer.end()
    assert answer.missing == missing


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("wire", "stream"),
    [
        ("chat", sse(chunk(finish="stop"), "[DONE]")),
        ("messages", named_sse(*message_events(), {"type": "message_stop"})),
        ("responses", named_sse({"type": "response.completed", "response": {}})),
    ],
)
def test_an_answer_is_over_at_its_last_byte(wire: Wire, stream: bytes, end: bytes) -> None:
    """With any line ends: a gateway that keeps the connection open sends nothing more."""
    answer = AnswerStream(wire, is_repaired=True)
    answer.feed(stream.replace(b"\n", end))
    assert answer.facts.is_over


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"data: {", True),
        (b"\xef\xbb\xbf\n\nevent: x", True),
        (b": ping\n", True),
        (b"", None),
        (b"da", None),
        (b'{"id": 1}', False),
        (b"<html>", False),
        (b"database is down", False),
    ],
)
def test_the_first_bytes_decide(beginning: bytes, expected: bool | None) -> None:
    """A field of an event stream, or its beginning."""
    assert looks_like_events(beginning) is expected


def said(wire: Wire, stream: bytes) -> str:
    """The text of a repaired answer as opencode puts it together."""
    texts = []
    for value in objects(passed(wire, stream, [])):
        deltas = [value.get("delta"), *(c.get("delta") for c in value.get("choices") or [])]
        texts += [d.get("content") or d.get("text") or "" for d in deltas if d]
    return "".join(texts)


def block(start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """A message of one block."""
    return named_sse(
        message_events()[0],
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        *message_events()[1:],
        {"type": "message_stop"},
    )


LAST = chunk(finish="stop")
WHOLE = {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize(
    ("wire", "stream"),
    [
        ("chat", sse({**chunk(), "choices": [{"message": WHOLE, "finish_reason": "stop"}]})),
        ("chat", sse(chunk(WHOLE), {"choices": [{"message": WHOLE, "finish_reason": "stop"}]})),
        ("chat", sse({"choices": [{"text": "hel"}]}, {"choices": [{"text": "lo"}]}, LAST)),
        ("chat", sse(chunk({"refusal": "hello"}), LAST)),
        ("chat", sse(chunk({"content": "hello"}, logprobs=float("nan")), LAST)),
        ("chat", sse(chunk(WHOLE), LAST, "[DONE]").replace(b"\n\n", b"\n") + b"\n"),
        ("chat", sse(chunk(WHOLE), LAST, "[DONE]").replace(b"\n\n", b"\n")),
        ("messages", block({"type": "text", "text": "hello"})),
        ("messages", block({"type": "text", "text": "hel"}, {"type": "text_delta", "text": "lo"})),
        (
            "messages",
            named_sse(
                {
                    "type": "message_start",
                    "message": {"content": [{"type": "text", "text": "hello"}]},
                },
                *message_events()[1:],
                {"type": "message_stop"},
            ),
        ),
    ],
)
def test_text_is_read_wherever_gateways_put_it(wire: Wire, stream: bytes) -> None:
    """Once, and without what JavaScript cannot parse."""
    assert said(wire, stream) == "hello"
    assert b"NaN" not in passed(wire, stream, [])


def test_control_characters_and_bytes_that_are_no_text_cost_nothing_else() -> None:
    """Python's parser is asked a second time, leniently, and the event is written anew."""
    raw = b'data: {"choices": [{"delta": {"content": "a\tb\xff"}}]}\n\n'
    assert said("chat", raw + sse(LAST)) == "a\tb\ufffd"


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_a_cut_event_is_a_broken_answer(wire: Wire) -> None:
    """To leave it out would lose text or a call without a word; after the end it costs nothing."""
    answer = AnswerStream(wire, is_repaired=True)
    assert not answer.feed(b'data: {"choices": [{"delta": {"cont\n\n')
    assert answer.fault is not None
    assert "is not JSON" in answer.fault.message

    ended = AnswerStream("chat", is_repaired=True)
    ended.feed(sse(chunk(finish="stop")) + b'data: {"usage": {"pro\n\n')
    assert ended.fault is None


@pytest.mark.parametrize(
    "reason",
    [
        *("error", "network_error", "abort", "MALFORMED_FUNCTION_CALL", "server-error"),
        *("TOO_MANY_TOOL_CALLS", "malformed_model_output", "time_limit", "USER_CANCEL"),
    ],
)
@pytest.mark.parametrize("is_repaired", [True, False])
def test_an_answer_that_was_broken_off_is_no_answer(reason: str, is_repaired: bool) -> None:
    """Gateways report a failure of theirs as the reason why the model stopped."""
    answer = AnswerStream("chat", is_repaired=is_repaired)
    answer.feed(sse(chunk({"content": "half"}), chunk(finish=reason), "[DONE]"))
    assert answer.fault is not None
    assert reason in answer.fault.message

    message = AnswerStream("messages", is_repaired=is_repaired)
    message.feed(named_sse(*message_events(stop=reason), {"type": "message_stop"}))
    assert message.fault is not None
    assert reason in message.fault.message


@pytest.mark.parametrize(
    ("wire", "reason", "expected"),
    [
        ("chat", "sensitive", "content_filter"),
        ("chat", "content-filter", "content_filter"),
        ("chat", "FINISH_REASON_MAX_TOKENS", "length"),
        ("chat", "model_context_window_exceeded", "length"),
        ("chat", "ERROR_LIMIT", "length"),
        ("chat", "IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("messages", "ERROR_TOXIC", "refusal"),
        ("messages", "guardrail_intervened", "refusal"),
        ("messages", "MAX_TOKENS", "max_tokens"),
    ],
)
def test_reasons_of_other_vendors_keep_their_meaning(
    wire: Wire, reason: str, expected: str
) -> None:
    """A filtered or cut answer does not become a finished one."""
    answer = AnswerStream(wire, is_repaired=True)
    events = named_sse(*message_events(stop=reason))
    answer.feed(events if wire == "messages" else sse(chunk(finish=reason)))
    assert answer.facts.reason == expected


@pytest.mark.parametrize("wire", ["chat", "messages"])
@pytest.mark.parametrize(
    "stream",
    [
        b'event: error\ndata: {"code": 429, "message": "slow down"}\n\n',
        sse({"object": "error", "message": "slow down", "type": "BadRequestError", "code": 400}),
        sse({"detail": "slow down"}),
        sse(
            {
                "choices": [
                    {"delta": {}, "finish_reason": "error", "error": {"message": "slow down"}}
                ]
            }
        ),
    ],
)
def test_an_error_in_another_form_is_an_error(wire: Wire, stream: bytes) -> None:
    """Its message reaches opencode in the form that it reads, and the session."""
    if wire == "messages" and b"choices" in stream:
        return
    answer = AnswerStream(wire, is_repaired=True)
    [event] = objects(answer.feed(stream))
    assert event["error"]["message"] == "slow down"
    assert answer.facts.error is not None


def test_two_calls_under_one_id_stay_two() -> None:
    """In both formats; a call that is only repeated at the end stays one."""
    one, two = json.dumps({"n": 1}), json.dumps({"n": 2})

    def stream(*fragments: tuple[int, str]) -> bytes:
        made = [
            {"index": index, "id": "same", "function": {"name": "t", "arguments": arguments}}
            for index, arguments in fragments
        ]
        return passed("chat", sse(*(chunk({"tool_calls": [f]}) for f in made)), [])

    assert calls(stream((0, one), (1, two))) == [("t", one), ("t", two)]
    assert calls(stream((0, one), (0, two))) == [("t", one), ("t", two)]
    assert len(calls(stream((0, one), (0, one)))) == 1
    assert stream((0, one), (1, two)).count(b'"same"') == 1

    events = named_sse(*message_events(BASH, BASH, stop="tool_use"), {"type": "message_stop"})
    starts = [
        v["content_block"] for v in objects(passed("messages", events, [])) if "content_block" in v
    ]
    assert starts[0]["id"] != starts[1]["id"]


def test_a_call_whose_name_comes_with_each_fragment_is_one() -> None:
    """Without ids, the first fragment without arguments."""
    parts = ("", '{"n": ', "1}")
    made = [{"index": 0, "function": {"name": "t", "arguments": part}} for part in parts]
    stream = sse(*(chunk({"tool_calls": [fragment]}) for fragment in made))
    assert calls(passed("chat", stream, [])) == [("t", '{"n": 1}')]


@pytest.mark.parametrize(
    "stream",
    [
        block({**BASH, "input": json.dumps(BASH["input"])}),
        block({**BASH, "input": {}}, {"type": "input_json_delta", "partial_json": BASH["input"]}),
    ],
)
def test_input_may_be_text_where_objects_belong_and_the_reverse(stream: bytes) -> None:
    """The call reaches opencode with its input."""
    values = objects(passed("messages", stream, []))
    [start] = [v["content_block"] for v in values if "content_block" in v]
    parts = [v["delta"]["partial_json"] for v in values if "partial_json" in v.get("delta", {})]
    assert (json.loads("".join(parts)) if parts else start["input"]) == BASH["input"]


@pytest.mark.parametrize("odd", [-5, 1e30, float("inf"), "many", True, [1]])
def test_counts_that_are_none_are_left_out(odd: object) -> None:
    """By a huge count opencode would compact its history, which asks the model; none reaches the store."""
    chat = AnswerStream("chat", is_repaired=True)
    [value] = objects(
        chat.feed(sse({"choices": [], "usage": {"prompt_tokens": odd, "x_tokens": 3}}))
    )
    assert value["usage"] == {"prompt_tokens": None, "x_tokens": 3}
    assert chat.facts.usage is not None
    assert chat.facts.usage.input_tokens == 0

    last = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": odd}}
    message = AnswerStream("messages", is_repaired=True)
    value, *_ = objects(message.feed(named_sse(last, {"type": "message_stop"})))
    assert value["usage"] == {"output_tokens": 0}


@pytest.mark.parametrize("wire", ["chat", "messages"])
def test_lines_that_end_with_cr_alone_end_with_lf(wire: Wire) -> None:
    """The reader inside opencode waits for an LF behind the last CR, and for the last event with it; CR LF
    passes as it came."""
    whole = named_sse(*HELLO, STOP) if wire == "messages" else sse(chunk({"content": "hi"}), LAST)
    assert passed(wire, whole, []) == whole
    assert passed(wire, whole.replace(b"\n", b"\r"), []) == whole
    windows = whole.replace(b"\n", b"\r\n")
    assert passed(wire, windows, []) == windows
    assert passed(wire, windows, list(range(len(windows)))).rstrip() == windows.rstrip()


HELLO = message_events({"type": "text", "text": "hello"})
STOP = {"type": "message_stop"}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}
REFUSED = {"type": "error", "error": {"type": "permission_error", "message": "no"}}


@pytest.mark.parametrize("end", range(len(HELLO) - 2, len(HELLO) + 1))
def test_a_text_is_closed_when_the_answer_goes_on(end: int) -> None:
    """opencode shows a closed text: of an answer that proves broken it would be shown with each try."""
    whole = named_sse(*HELLO, STOP)
    closed = named_sse(*HELLO[:-2])
    stream = AnswerStream("messages", is_repaired=True)
    assert stream.feed(named_sse(*HELLO[:end])) == closed
    assert stream.feed(named_sse({"type": "ping"})) == named_sse({"type": "ping"})
    assert stream.feed(named_sse(*HELLO[end:], STOP)) == whole.removeprefix(closed)

    broken = AnswerStream("messages", is_repaired=True)
    assert broken.feed(named_sse(*HELLO[:end], OVERLOADED)) == closed + named_sse(OVERLOADED)
    cut = AnswerStream("messages", is_repaired=True)
    assert cut.feed(named_sse(*HELLO[:end])) + cut.end() == closed


def test_a_closed_text_before_another_block_or_a_last_error_stays() -> None:
    """It was said, and is not said again."""
    block_start = {"type": "content_block_start", "index": 1}
    for then in (block_start | {"content_block": {"type": "text", "text": ""}}, REFUSED):
        stream = AnswerStream("messages", is_repaired=True)
        frames = named_sse(*HELLO[:-1], then)
        assert objects(stream.feed(frames))[: len(HELLO)] == [*HELLO[:-1], then]


def test_a_call_that_the_limit_cut_is_no_progress() -> None:
    """opencode lets the model begin it again, so that such a turn would go on without end."""
    answer = AnswerStream("chat", is_repaired=True)
    fragment = {"index": 0, "id": "a", "function": {"name": "t", "arguments": '{"n": '}}
    answer.feed(sse(chunk({"tool_calls": [fragment]}), chunk(finish="length")))
    assert not answer.facts.is_progress
