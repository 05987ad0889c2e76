"""Anthropic messages: the demo's answer as SSE frames or as one object. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sidecar.demo_gateway.conversation import Conversation
from sidecar.demo_gateway.reply import Fault, Piece, Reply, Text, Thought, ToolCall

_STOP_REASON = {"stop": "end_turn", "tool_calls": "tool_use", "refusal": "refusal"}
_ERROR_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SIGNATURE = "ZGVtbw=="


class AnthropicWire:
    """Writes one reply. Blocks open when the kind of piece changes; each tool call has its own."""

    def __init__(self, talk: Conversation, reply: Reply) -> None:
        self._talk = talk
        self._reply = reply
        self._index = -1
        self._open: str | None = None

    def opening(self) -> list[bytes]:
        """Return the frames before the first piece."""
        usage = {**self._input_usage(), "output_tokens": 1}
        message = {**self._envelope(), "content": [], "stop_reason": None, "usage": usage}
        return [_frame("message_start", message=message)]

    def piece(self, piece: Piece) -> list[bytes]:
        """Return the frames of one piece."""
        match piece:
            case Text(text):
                block = {"type": "text", "text": ""}
                return [*self._enter("text", block), self._delta("text_delta", text=text)]
            case Thought(text):
                block = {"type": "thinking", "thinking": "", "signature": ""}
                return [
                    *self._enter("thinking", block),
                    self._delta("thinking_delta", thinking=text),
                ]
            case ToolCall(id=call_id, name=name, arguments=arguments):
                half = len(arguments) // 2
                call = {"type": "tool_use", "id": _tool_id(call_id), "name": name, "input": {}}
                return [
                    *self._leave(),
                    *self._enter("tool_use", call),
                    self._delta("input_json_delta", partial_json=arguments[:half]),
                    self._delta("input_json_delta", partial_json=arguments[half:]),
                ]
            case Fault():
                return []

    def closing(self) -> list[bytes]:
        """Return the frames after the last piece."""
        delta = {"stop_reason": _STOP_REASON[self._reply.finish], "stop_sequence": None}
        usage = {**self._input_usage(), "output_tokens": self._reply.output_tokens}
        last = _frame("message_delta", delta=delta, usage=usage)
        return [*self._leave(), last, _frame("message_stop")]

    def whole(self) -> dict[str, Any]:
        """Return the answer of a non-streaming call."""
        content: list[dict[str, Any]] = []
        for piece in self._reply.pieces:
            match piece:
                case Text(text):
                    _extend(content, "text", "text", text)
                case Thought(text):
                    _extend(content, "thinking", "thinking", text)
                    content[-1]["signature"] = _SIGNATURE
                case ToolCall(id=call_id, name=name, arguments=arguments):
                    block = {"type": "tool_use", "id": _tool_id(call_id), "name": name}
                    content.append({**block, "input": json.loads(arguments)})
        return {
            **self._envelope(),
            "content": content,
            "stop_reason": _STOP_REASON[self._reply.finish],
            "usage": {**self._input_usage(), "output_tokens": self._reply.output_tokens},
        }

    def _enter(self, kind: str, block: Mapping[str, Any]) -> list[bytes]:
        if self._open == kind:
            return []
        closed = self._leave()
        self._index += 1
        self._open = kind
        start = _frame("content_block_start", index=self._index, content_block=block)
        return [*closed, start]

    def _leave(self) -> list[bytes]:
        if self._open is None:
            return []
        frames = []
        if self._open == "thinking":
            frames.append(self._delta("signature_delta", signature=_SIGNATURE))
        self._open = None
        return [*frames, _frame("content_block_stop", index=self._index)]

    def _delta(self, kind: str, **fields: str) -> bytes:
        return _frame("content_block_delta", index=self._index, delta={"type": kind, **fields})

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": f"msg_{self._talk.key[:24]}",
            "type": "message",
            "role": "assistant",
            "model": self._talk.model,
            "stop_sequence": None,
        }

    def _input_usage(self) -> dict[str, int]:
        return {
            "input_tokens": self._reply.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._reply.cached_tokens,
        }


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error in Anthropic's envelope."""
    kind = _ERROR_TYPE.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def _tool_id(call_id: str) -> str:
    return f"toolu_{call_id.removeprefix('call_')}"


def _extend(content: list[dict[str, Any]], kind: str, field: str, text: str) -> None:
    if content and content[-1]["type"] == kind:
        content[-1][field] += text
    else:
        content.append({"type": kind, field: text})


def _frame(event: str, **fields: Any) -> bytes:
    data = json.dumps({"type": event, **fields}, separators=(",", ":"))
    return f"event: {event}\ndata: {data}\n\n".encode()
