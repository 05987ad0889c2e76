"""OpenAI chat completions: the demo's answer as SSE frames or as one object. Pure."""

from __future__ import annotations

import json
from typing import Any

from sidecar.demo_gateway.conversation import Conversation
from sidecar.demo_gateway.reply import Fault, Piece, Reply, Text, Thought, ToolCall

_FINISH = {"stop": "stop", "tool_calls": "tool_calls", "refusal": "content_filter"}
_CREATED = 1_700_000_000


class OpenAIWire:
    """Writes one reply. `include_usage` is the caller's `stream_options.include_usage`."""

    def __init__(self, talk: Conversation, reply: Reply, *, include_usage: bool) -> None:
        self._talk = talk
        self._reply = reply
        self._include_usage = include_usage
        self._calls = 0

    def opening(self) -> list[bytes]:
        """Return the frames before the first piece."""
        return [self._chunk({"role": "assistant", "content": ""})]

    def piece(self, piece: Piece) -> list[bytes]:
        """Return the frames of one piece."""
        match piece:
            case Text(text):
                return [self._chunk({"content": text})]
            case Thought(text):
                return [self._chunk({"reasoning_content": text})]
            case ToolCall():
                frames = self._call_frames(piece)
                self._calls += 1
                return frames
            case Fault():
                return []

    def closing(self) -> list[bytes]:
        """Return the frames after the last piece."""
        frames = [self._chunk({}, finish=_FINISH[self._reply.finish])]
        if self._include_usage:
            frames.append(_frame({**self._envelope("chat.completion.chunk"), **self._usage()}))
        return [*frames, b"data: [DONE]\n\n"]

    def whole(self) -> dict[str, Any]:
        """Return the answer of a non-streaming call."""
        pieces = self._reply.pieces
        calls = [p for p in pieces if isinstance(p, ToolCall)]
        text = "".join(p.text for p in pieces if isinstance(p, Text))
        thought = "".join(p.text for p in pieces if isinstance(p, Thought))
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [_call(call, call.arguments) for call in calls]
        choice = {"index": 0, "message": message, "finish_reason": _FINISH[self._reply.finish]}
        return {**self._envelope("chat.completion"), **self._usage(), "choices": [choice]}

    def _call_frames(self, call: ToolCall) -> list[bytes]:
        half = len(call.arguments) // 2
        first = {"index": self._calls, **_call(call, call.arguments[:half])}
        rest = {"index": self._calls, "function": {"arguments": call.arguments[half:]}}
        return [self._chunk({"tool_calls": [first]}), self._chunk({"tool_calls": [rest]})]

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _frame({**self._envelope("chat.completion.chunk"), "choices": [choice]})

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._talk.key[:24]}",
            "object": kind,
            "created": _CREATED,
            "model": self._talk.model,
            "choices": [],
        }

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self._reply.input_tokens, self._reply.output_tokens
        prompt += self._reply.cached_tokens
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self._reply.cached_tokens},
        }
        return {"usage": usage}


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error as LiteLLM's OpenAI routes send it."""
    kind = {401: "auth_error", 429: "throttling_error"}.get(status, "invalid_request_error")
    kind = "internal_server_error" if status >= 500 else kind
    return {"error": {"message": message, "type": kind, "param": None, "code": str(status)}}


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
