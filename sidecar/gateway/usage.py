"""Token usage read from a passing answer, without parsing what carries none.

Formats: OpenAI chat completions (`prompt_tokens` includes cached ones), OpenAI responses (the same
under `input_tokens`), Anthropic messages (`input_tokens` excludes them), and LiteLLM's mixture.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from sidecar.model_requests import Usage

_MAX_HELD_BYTES = 8 * 1024 * 1024
"""An answer without a line end is held for the tap at most up to this size; then it is not tapped."""

_SIGNS = (b'"usage"', b'"error"', b'"refusal"', b'"content_filter"')
"""Only lines with one of these are parsed. Inside a JSON string the quotes would be escaped."""


class AnswerTap:
    """Collects usage, an error and a refusal from the bytes of one answer, fed in any split.

    After `finish()`: `usage` (None when the answer told none), `error` (the error object of an
    error event inside the stream) and `is_refusal`.
    """

    def __init__(self, *, is_sse: bool) -> None:
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.is_refusal = False
        self._is_sse = is_sse
        self._held: list[bytes] = []
        self._held_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if not self._is_sse:
            self._hold(chunk)
            return
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._hold(chunk)
            return
        lines = chunk[:end]
        if self._held:
            lines = b"".join(self._held) + lines
            self._held.clear()
            self._held_bytes = 0
        if end < len(chunk):
            self._hold(chunk[end:])
        if any(sign in lines for sign in _SIGNS):
            for line in lines.splitlines():
                self._line(line)

    def finish(self) -> None:
        """Look at what was held back for its line end."""
        rest = b"".join(self._held)
        self._held.clear()
        if self._is_sse:
            self._line(rest)
        elif any(sign in rest for sign in _SIGNS):
            self._object(rest)

    def _hold(self, chunk: bytes) -> None:
        self._held_bytes += len(chunk)
        if self._held_bytes <= _MAX_HELD_BYTES:
            self._held.append(chunk)
        else:
            self._held.clear()

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:") and any(sign in line for sign in _SIGNS):
            self._object(line[5:])

    def _object(self, raw: bytes) -> None:
        try:
            value = json.loads(raw)
        except ValueError:
            return
        if not isinstance(value, dict):
            return
        # message: Anthropic's message_start; response: the last event of OpenAI's Responses API
        for holder in (value, value.get("message"), value.get("response")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                self._merge(read_usage(holder["usage"]))
        if isinstance(value.get("error"), dict):
            self.error = value["error"]
        reasons = [value.get("stop_reason"), _get(value.get("delta"), "stop_reason")]
        choices = value.get("choices")
        if isinstance(choices, list):
            reasons += [_get(choice, "finish_reason") for choice in choices]
        self.is_refusal |= "refusal" in reasons or "content_filter" in reasons

    def _merge(self, new: Usage) -> None:
        old = self.usage or Usage()
        # Anthropic's numbers are cumulative over the stream; some gateways send zeros at one end.
        self.usage = Usage(
            *(max(getattr(old, f.name), getattr(new, f.name)) for f in fields(Usage))
        )


def read_usage(raw: dict[str, Any]) -> Usage:
    """Return the usage of any of the formats in one meaning."""
    details = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    read = _count(raw, "cache_read_input_tokens") or _count(details, "cached_tokens")
    created = _count(raw, "cache_creation_input_tokens") or _count(details, "cache_creation_tokens")
    prompt = _count(raw, "prompt_tokens")
    if not prompt and "input_tokens_details" in raw:
        prompt = _count(raw, "input_tokens")
    fresh = max(0, prompt - read - created) if prompt else _count(raw, "input_tokens")
    output = _count(raw, "completion_tokens") or _count(raw, "output_tokens")
    return Usage(fresh, output, created, read)


def _count(holder: Any, name: str) -> int:
    value = _get(holder, name)
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None
