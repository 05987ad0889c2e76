"""What answers say of their usage and errors, and the kinds of failures."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.failures import classify, classify_event
from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import AnswerFacts, Wire
from sidecar.gateway.upstream import api_root, excerpt
from sidecar.gateway.usage import read_usage
from sidecar.model_requests import Usage

OPENAI = (
    b'data: {"choices":[{"delta":{"content":"say \\"usage\\" {"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":7,'
    b'"prompt_tokens_details":{"cached_tokens":60}}}\n\ndata: [DONE]\n\n'
)
ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":40,'
    b'"cache_creation_input_tokens":5,"cache_read_input_tokens":60,"output_tokens":1}}}\r\n\r\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":7}}\n\n'
)

WIRES: list[tuple[Wire, bytes, Usage]] = [
    ("chat", OPENAI, Usage(40, 7, 0, 60)),
    ("messages", ANTHROPIC, Usage(40, 7, 5, 60)),
]


@given(cuts=st.lists(st.integers(0, max(len(OPENAI), len(ANTHROPIC))), max_size=12))
def test_usage_is_found_in_any_split(cuts: list[int]) -> None:
    """However the bytes are cut into chunks, both formats give the same meaning of the numbers."""
    for wire, stream, expected in WIRES:
        tap = AnswerStream(wire, is_repaired=False)
        edges = [0, *sorted(min(c, len(stream)) for c in cuts), len(stream)]
        for start, end in itertools.pairwise(edges):
            tap.feed(stream[start:end])
        tap.end()
        assert tap.facts.usage == expected
        assert tap.facts.error is None
        assert not tap.facts.is_refusal


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": None}, Usage(3, 0)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 1,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 60},
            },
            Usage(10, 1, 30, 60),
        ),
        (
            {
                "input_tokens": 100,
                "output_tokens": 2,
                "input_tokens_details": {"cached_tokens": 90},
            },
            Usage(10, 2, 0, 90),
        ),
        (
            {"input_tokens": 9, "output_tokens": 2, "cache_read_input_tokens": 50},
            Usage(9, 2, 0, 50),
        ),
        ({"prompt_tokens": "many", "prompt_tokens_details": None}, Usage()),
    ],
)
def test_read_usage(raw: dict[str, object], expected: Usage) -> None:
    """OpenAI's, Anthropic's and LiteLLM's mixed numbers mean the same: fresh input apart from cache."""
    assert read_usage(raw) == expected


def test_whole_answer_is_read() -> None:
    """A non-streaming answer is read as one object."""
    facts = AnswerFacts("chat")
    facts.see({"text": 'a\n"usage"', "usage": {"input_tokens": 1, "output_tokens": 2}})
    assert facts.usage == Usage(1, 2)


@pytest.mark.parametrize(
    ("wire", "line"),
    [
        ("chat", b'data: {"choices":[{"finish_reason":"content_filter"}]}\n\n'),
        ("messages", b'data: {"type":"message_delta","delta":{"stop_reason":"refusal"}}\n\n'),
    ],
)
def test_refusal_is_noticed(wire: Wire, line: bytes) -> None:
    """A refusal is named by both formats' stop reasons."""
    stream = AnswerStream(wire, is_repaired=False)
    stream.feed(line)
    assert stream.facts.is_refusal


def test_error_event_is_noticed() -> None:
    """An error event after status 200 is kept."""
    stream = AnswerStream("messages", is_repaired=False)
    stream.feed(b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n')
    assert stream.facts.error == {"type": "overloaded_error"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, "", "authentication"),
        (403, "no", "authentication"),
        (
            400,
            '{"error":{"message":"No connected db.","type":"no_db_connection"}}',
            "authentication",
        ),
        (400, '{"error":{"message":"no healthy deployments","type":"x"}}', "failed"),
        (400, '{"error":{"message":"Budget has been exceeded!"}}', "billing"),
        (402, "", "billing"),
        (429, '{"error":{"code":"429"}}', "rate_limited"),
        (429, '{"error":{"code":"insufficient_quota"}}', "billing"),
        (500, "Internal Server Error", "failed"),
        (503, "", "overloaded"),
        (504, "", "timeout"),
        (529, '{"type":"error","error":{"type":"overloaded_error"}}', "overloaded"),
        (500, '{"type":"error","error":{"type":"overloaded_error"}}', "overloaded"),
        (500, '["error"]', "failed"),
    ],
)
def test_classify(status: int, body: str, kind: str) -> None:
    """Status and body of an HTTP error give one kind; the body's type wins."""
    assert classify(status, body) == kind


def test_classify_event() -> None:
    """LiteLLM puts the status of an error inside a stream into `code`."""
    assert classify_event({"message": "slow down", "code": "429"}) == "rate_limited"
    assert classify_event({"message": "boom", "code": "oops"}) == "failed"


@pytest.mark.parametrize(
    "url", ["http://g:4000", "http://g:4000/", "http://g:4000/v1", "http://g:4000/v1/"]
)
def test_api_root(url: str) -> None:
    """The gateway's URL may come with or without `/v1`."""
    assert api_root(url) == "http://g:4000"


def test_excerpt_masks_and_cuts() -> None:
    """Foreign bodies are cut and carry no key into logs or answers."""
    text = excerpt(b"bad key hunter2! also sk-abcdefgh123\n" + b"x" * 999, "hunter2!")
    assert "hunter2" not in text
    assert "abcdefgh" not in text
    assert len(text) < 300
    assert "\n" not in text


@pytest.mark.parametrize(
    ("wire", "values"),
    [
        (
            "chat",
            [
                {"choices": [{"delta": {"tool_calls": [{"index": 0}, {"index": 1}]}}]},
                {"choices": [{"delta": {"tool_calls": [{"index": 1}]}}]},
                {"choices": [{"delta": {"tool_calls": None}, "finish_reason": "tool_calls"}]},
            ],
        ),
        ("chat", [{"choices": [{"message": {"tool_calls": [{"id": "a"}, {"id": "b"}]}}]}]),
        (
            "messages",
            [
                {"type": "message_start", "message": {"content": []}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
                {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use"}},
                {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use"}},
            ],
        ),
        ("messages", [{"content": [{"type": "tool_use"}, {"type": "text"}, {"type": "tool_use"}]}]),
        (
            "responses",
            [
                {"output_index": 0, "item": {"type": "reasoning"}},
                {"output_index": 1, "item": {"type": "function_call"}},
                {"output_index": 1, "item": {"type": "function_call", "status": "completed"}},
                {"output_index": 2, "item": {"type": "function_call"}},
            ],
        ),
    ],
)
def test_the_calls_of_an_answer_are_counted(wire: Wire, values: list[dict[str, object]]) -> None:
    """Each once, streamed or whole."""
    facts = AnswerFacts(wire)
    for value in values:
        facts.see(value)
    assert facts.call_count == 2
