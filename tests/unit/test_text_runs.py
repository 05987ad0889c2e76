"""Frames that are alike but for their text pass unread, and nothing else changes by that."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.gateway.streams import answer
from sidecar.gateway.streams.answer import AnswerStream
from sidecar.gateway.streams.facts import Wire
from tests.fakes.gateway_scripted import USAGE, chunk, message_events, named_sse, sse

ODD = [
    b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a\x01b"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a\\"},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a\\q"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}\n\n',
    b": ping\n\n",
    b"data: [DONE]\n\n",
    b"\n",
    b"data: {broken\n\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\r\n\r\n',
]
TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", " word", '"', "\\", "grüße", "你好", "😀"])
)


def utf8(value: dict[str, Any]) -> bytes:
    """Make a frame as gateways do that escape nothing."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


CHAT = st.one_of(
    TEXTS.map(lambda text: sse(chunk({"content": text}))),
    TEXTS.map(lambda text: sse(chunk({"content": text, "refusal": "no"}))),
    TEXTS.map(lambda text: sse(chunk({"reasoning_content": text, "content": None}))),
    TEXTS.map(lambda text: utf8(chunk({"content": text}))),
    st.sampled_from([sse(chunk(finish="stop")), sse({**chunk({"content": "x"}), "usage": USAGE})]),
    st.sampled_from(ODD),
)
DELTAS = st.one_of(
    TEXTS.map(lambda text: {"type": "text_delta", "text": text}),
    TEXTS.map(lambda text: {"type": "input_json_delta", "partial_json": text}),
    TEXTS.map(lambda text: {"type": "thinking_delta", "thinking": text}),
)
MESSAGES = st.one_of(
    st.builds(
        lambda index, delta: named_sse(
            {"type": "content_block_delta", "index": index, "delta": delta}
        ),
        st.integers(0, 1),
        DELTAS,
    ),
    st.sampled_from([named_sse(event) for event in message_events({"type": "text", "text": "hi"})]),
    st.sampled_from(ODD),
)


def outcome(wire: Wire, stream: bytes, cuts: list[int], *, is_repaired: bool) -> dict[str, Any]:
    """Everything that is to be seen of an answer."""
    taken = AnswerStream(wire, is_repaired=is_repaired)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    passed = b"".join(taken.feed(stream[a:b]) for a, b in itertools.pairwise(edges))
    facts = taken.facts
    return {
        "passed": passed + taken.end(),
        "repaired": taken.repaired_frames,
        "fault": taken.fault,
        "missing": taken.missing,
        "facts": (facts.usage, facts.error, facts.reason, facts.has_mark, facts.is_over),
        "calls": facts.call_count,
    }


@pytest.mark.parametrize(("wire", "frames"), [("chat", CHAT), ("messages", MESSAGES)])
@pytest.mark.parametrize("is_repaired", [True, False])
def test_the_outcome_is_that_of_reading_each_frame(
    wire: Wire, frames: st.SearchStrategy[bytes], *, is_repaired: bool
) -> None:
    """Whatever the frames are and wherever they are cut."""

    @given(
        st.lists(st.tuples(frames, st.integers(1, 4)), max_size=12),
        st.lists(st.integers(0, 3000), max_size=6),
    )
    def check(parts: list[tuple[bytes, int]], cuts: list[int]) -> None:
        stream = b"".join(frame * count for frame, count in parts)
        fast = outcome(wire, stream, cuts, is_repaired=is_repaired)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answer, "text_run", lambda *_: None)
            slow = outcome(wire, stream, cuts, is_repaired=is_repaired)
        assert fast == slow

    check()


def test_words_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long answer the first word is, and what is no word."""
    read: list[bytes] = []
    read_frame = answer.read_frame

    def counted(raw: bytes) -> Any:
        read.append(raw)
        return read_frame(raw)

    monkeypatch.setattr(answer, "read_frame", counted)
    words = [sse(chunk({"content": f'word {number} ü \\ "x"'})) for number in range(500)]
    whole = b"".join(
        [sse(chunk({"role": "assistant", "content": ""})), *words, sse(chunk(finish="stop"))]
    )
    stream = AnswerStream("chat", is_repaired=True)
    assert (
        b"".join(stream.feed(whole[at : at + 1000]) for at in range(0, len(whole), 1000)) == whole
    )
    assert len(read) <= 4
    assert stream.facts.reason == "stop"
