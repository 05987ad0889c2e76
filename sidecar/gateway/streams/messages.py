"""Repairs Messages API events that the AI SDK inside opencode cannot read.

What it can read: the chunk schema of `@ai-sdk/anthropic` in opencode 1.18.33. An event or block of a type
that it does not know ends the answer with an error; a block without its stop is a tool call that is never
run; a message without a reason to stop makes opencode ask the model again, at once and without end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sidecar.gateway.streams.facts import FILTERS, LIMITS, is_reason, plain_reason
from sidecar.gateway.streams.tool_calls import new_call_id
from sidecar.gateway.streams.whole_messages import WholeMessages
from sidecar.gateway.usage import read_count, repaired_counts
from sidecar.wire.scalars import read_whole

_BLOCKS = frozenset(
    {
        *("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "compaction"),
        *("mcp_tool_use", "mcp_tool_result", "web_fetch_tool_result", "web_search_tool_result"),
        *("code_execution_tool_result", "bash_code_execution_tool_result", "fallback"),
        *("text_editor_code_execution_tool_result", "tool_search_tool_result"),
        "advisor_tool_result",
    }
)
_DELTAS = frozenset(
    {
        *("text_delta", "input_json_delta", "thinking_delta", "signature_delta"),
        *("compaction_delta", "citations_delta"),
    }
)
_FINAL = frozenset(
    {
        *("end_turn", "stop_sequence", "max_tokens", "refusal", "pause_turn"),
        "model_context_window_exceeded",
    }
)
_SYNONYMS = {
    **dict.fromkeys(LIMITS, "max_tokens"),
    **dict.fromkeys(FILTERS, "refusal"),
}
_OPENING = {
    "text_delta": {"type": "text", "text": ""},
    "thinking_delta": {"type": "thinking", "thinking": ""},
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": ""},
    "tool_use": {"input": {}},
}
_DELTA_TEXT = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
}


_FINAL_ERRORS = frozenset(
    {
        *("authentication_error", "permission_error", "billing_error"),
        *("invalid_request_error", "not_found_error", "request_too_large"),
    }
)
"""Errors that trying again does not mend."""
NO_MESSAGE = {
    "type": "message_start",
    "message": {
        "id": "msg_0",
        "type": "message",
        "role": "assistant",
        "model": "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    },
}
"""Before an error that is final: one that is the first event of a stream is a status 500 to the AI SDK, and
opencode tries again for a minute."""


class MessagesRepair:
    """Keeps what must be known of one answer. `repair` is given every event, in order."""

    def __init__(self) -> None:
        self._has_start = False
        self._open: list[int] = []
        self._dropped: set[int] = set()
        self._call_ids: set[str] = set()
        self._held: list[dict[str, Any]] = []
        """Text of `message_start`, for the case that no block follows."""
        self._has_blocks = False
        self._has_call = False
        self._has_reason = False
        self._has_whole = False
        self._whole = WholeMessages()
        self._repairs: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]] | None]] = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "error": self._error,
            "message": self._message,
        }

    def repair(self, value: dict[str, Any], event: str) -> list[dict[str, Any]] | None:
        """Return what to send in place of the event, None to send it as it came. Changes `value`."""
        is_untyped = not isinstance(value.get("type"), str)
        if is_untyped:
            value["type"] = "error" if value.get("error") else event
        repair_one = self._repairs.get(value["type"])
        if repair_one is None:
            return [] if value["type"] != "ping" else None
        repaired = repair_one(value)
        return [value] if repaired is None and is_untyped else repaired

    def _message(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        """A whole message in one event, or what was written so far."""
        if not isinstance(value.get("content"), list):
            return []
        has_blocks = self._has_blocks and not self._has_whole
        self._has_whole = True
        events: list[dict[str, Any]] = []
        for event in self._whole.events(value, has_blocks=has_blocks):
            repaired = self._repairs[event["type"]](event)
            events += [event] if repaired is None else repaired
        return events

    def _error(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        error = value.get("error")
        if not isinstance(error, dict):
            error = {"message": str(error or value.get("message") or "unknown")}
        begun = [NO_MESSAGE] if error.get("type") in _FINAL_ERRORS and not self._has_start else []
        if all(isinstance(error.get(name), str) for name in ("type", "message")):
            return [*begun, value] if begun else None
        wanted = {"type": "api_error", "message": "unknown", **error}
        wanted["type"] = str(wanted["type"] or "api_error")
        wanted["message"] = str(wanted["message"] or "unknown")
        return [*begun, {**value, "error": wanted}]

    def _message_start(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        if self._has_start:
            return []  # a second message inside the first is refused
        self._has_start = True
        message = value.get("message")
        message = message if isinstance(message, dict) else {}
        usage = message.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        content = message.get("content")
        blocks = [b for b in content if _type(b) == "tool_use"] if isinstance(content, list) else []
        usage, has_odd = _counted(usage)
        has_input = read_count(usage.get("input_tokens")) is not None and not has_odd
        self._has_call |= bool(blocks)
        self._held = [b for b in content if _type(b) == "text"] if isinstance(content, list) else []
        if has_input and (content is None or blocks == content):
            return None
        usage = {**usage, "input_tokens": usage.get("input_tokens") or 0}
        return [{**value, "message": {**message, "usage": usage, "content": blocks}}]

    def _block_start(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        index, block = _index(value), value.get("content_block")
        kind = _type(block)
        if kind not in _BLOCKS or not isinstance(block, dict):
            self._dropped.add(index)
            return []
        # A second block under the index of one that is open would replace it: a lost call.
        closing = self._close([index]) if index in self._open else []
        self._dropped.discard(index)
        self._open.append(index)
        self._has_blocks = True
        self._held = []
        wanted = {**_DEFAULTS.get(kind, {}), **{k: v for k, v in block.items() if v is not None}}
        if kind == "tool_use":
            self._has_call = True
            id_ = wanted.get("id")
            if not isinstance(id_, str) or not id_ or id_ in self._call_ids:
                wanted["id"] = new_call_id()  # two calls with one id would be one to opencode
            self._call_ids.add(wanted["id"])
            wanted["name"] = str(wanted.get("name") or "")
            wanted["input"] = _object(wanted["input"])
        is_right = all(block.get(name) == item for name, item in wanted.items())
        begun = self._begun(index, kind, wanted)
        if is_right and not closing and not begun and value.get("index") == index:
            return None
        return [*closing, {**value, "index": index, "content_block": wanted}, *begun]

    def _begun(self, index: int, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the deltas of a block that begins with its text, which opencode does not read there."""
        field = {"text": "text", "thinking": "thinking"}.get(kind)
        text = block.get(field) if field else None
        if not field or not isinstance(text, str) or not text:
            return []
        block[field] = ""
        deltas = [{"type": f"{field}_delta", field: text}]
        if isinstance(signature := block.get("signature"), str) and signature:
            deltas.append({"type": "signature_delta", "signature": signature})
        return [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]

    def _block_delta(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        index, delta = _index(value), value.get("delta")
        kind = _type(delta)
        if kind not in _DELTAS or not isinstance(delta, dict) or index in self._dropped:
            return []
        field = _DELTA_TEXT.get(kind)
        if field is not None and not isinstance(delta.get(field), str):
            if kind != "input_json_delta" or not isinstance(delta.get(field), dict):
                return []
            delta = {**delta, field: json.dumps(delta[field])}
        if index in self._open:
            is_right = value.get("index") == index and delta is value.get("delta")
            return None if is_right else [{**value, "index": index, "delta": delta}]
        if kind not in _OPENING:
            return []
        self._open.append(index)
        self._has_blocks = True
        self._held = []
        start = {"type": "content_block_start", "index": index, "content_block": _OPENING[kind]}
        return [start, {**value, "index": index}]

    def _block_stop(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        index = _index(value)
        if index not in self._open:
            self._dropped.discard(index)
            return []
        self._open.remove(index)
        return None if value.get("index") == index else [{**value, "index": index}]

    def _message_delta(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        delta, usage = value.get("delta"), value.get("usage")
        delta = delta if isinstance(delta, dict) else {}
        usage = usage if isinstance(usage, dict) else {}
        reason = delta.get("stop_reason")
        wanted = self._reason(str(reason)) if is_reason(reason) else None
        closing = [*self._kept_text(), *self._close(list(self._open))] if wanted else []
        self._has_reason |= wanted is not None
        usage, has_odd = _counted(usage)
        has_output = read_count(usage.get("output_tokens")) is not None and not has_odd
        if has_output and not closing and wanted == reason and delta is value.get("delta"):
            return None
        usage = {**usage, "output_tokens": usage.get("output_tokens") or 0}
        delta = {**delta, "stop_reason": wanted}
        return [*closing, {**value, "delta": delta, "usage": usage}]

    def _message_stop(self, value: dict[str, Any]) -> list[dict[str, Any]] | None:
        closing = [*self._kept_text(), *self._close(list(self._open))]
        if not self._has_reason:
            self._has_reason = True
            delta = {"stop_reason": "tool_use" if self._has_call else "end_turn"}
            closing.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0}})
        return [*closing, value] if closing else None

    def _kept_text(self) -> list[dict[str, Any]]:
        """Return events for the text that came in `message_start` only."""
        held, self._held = self._held, []
        events: list[dict[str, Any]] = []
        for index, block in enumerate(held):
            value = {"type": "content_block_start", "index": index, "content_block": block}
            events += [*(self._block_start(value) or [value]), *self._close([index])]
        return events

    def _reason(self, reason: str) -> str:
        plain = plain_reason(reason)
        known = plain if plain in _FINAL else _SYNONYMS.get(plain, plain)
        if known in _FINAL or (known == "tool_use" and self._has_call):
            return known
        return "tool_use" if self._has_call else "end_turn"

    def _close(self, indices: list[int]) -> list[dict[str, Any]]:
        for index in indices:
            self._open.remove(index)
        return [{"type": "content_block_stop", "index": index} for index in indices]


def _type(holder: object) -> str:
    kind = holder.get("type") if isinstance(holder, dict) else None
    return kind if isinstance(kind, str) else ""


def _counted(usage: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the usage with its counts as numbers and without those that are none, and whether that changed
    it."""
    repaired = repaired_counts(usage)
    if not repaired:
        return usage, False
    counts = {**usage, **repaired}
    return {n: v for n, v in counts.items() if v is not None or n not in repaired}, True


def _object(value: object) -> dict[str, Any]:
    """Return a call's input as an object; some gateways send it as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _index(value: dict[str, Any]) -> int:
    return read_whole(value.get("index")) or 0
