"""What a model's answer says: its usage, an error, why it ended, whether it called tools. Pure.

Formats: OpenAI chat completions (`prompt_tokens` includes cached ones), OpenAI responses (the same
under `input_tokens`), Anthropic messages (`input_tokens` excludes them), and LiteLLM's mixture.
"""

from __future__ import annotations

from typing import Any, Literal

from sidecar.gateway.usage import larger, read_usage
from sidecar.model_requests import Usage
from sidecar.wire.scalars import read_whole

Wire = Literal["chat", "messages", "responses", "other"]

TERMINAL_MARK: dict[Wire, str] = {
    "chat": "finish_reason",
    "messages": "message_stop",
    "responses": "response.completed",
}
"""What every complete stream of a wire format has. `other` formats have none."""

_WIRE: dict[str, Wire] = {
    "chat/completions": "chat",
    "completions": "chat",
    "messages": "messages",
    "responses": "responses",
}
_LAST_RESPONSE_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_REFUSALS = frozenset({"refusal", "content_filter"})
FINAL_REASONS = frozenset(
    {
        *("stop", "length", "content_filter"),  # chat completions
        *("end_turn", "stop_sequence", "max_tokens", "refusal", "pause_turn"),  # messages
        "model_context_window_exceeded",
        *("completed", "max_output_tokens"),  # responses
    }
)
"""After one of these opencode asks the model no further; after any other reason it does."""


_LIMIT_REASONS = frozenset({"length", "max_tokens", "max_output_tokens"})
LIMITS = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit"),
        *("model_context_window_exceeded", "limit", "max_output", "error_limit"),
    }
)
FILTERS = frozenset(
    {
        *("content_filter", "content_filtered", "refusal", "safety", "sensitive", "recitation"),
        *("blocklist", "prohibited_content", "spii", "guardrail_intervened", "image_safety"),
        *(
            "image_prohibited_content",
            "image_recitation",
            "error_toxic",
            "content_policy_violation",
        ),
    }
)
"""Reasons of all vendors' formats, which some gateways leave as they are, as `plain_reason` spells them."""
_INTERRUPTIONS = frozenset(
    {
        *("error", "abort", "aborted", "cancelled", "canceled", "failed", "timeout"),
        *("network_error", "server_error", "insufficient_system_resource"),
        *("malformed_function_call", "malformed_response", "unexpected_tool_call"),
        *("too_many_tool_calls", "missing_thought_signature", "malformed_model_output"),
        *("malformed_tool_use", "time_limit", "user_cancel"),
    }
)
"""Reasons of OpenRouter, vLLM, SGLang, DeepSeek, GLM, Gemini, Bedrock, Cohere and watsonx that say: this is
not the whole answer."""
_NO_REASONS = frozenset({"", "null", "none", "undefined", "unspecified"})
"""Of DashScope, Python and JavaScript programs, and Gemini, while the answer goes on."""


def plain_reason(reason: str) -> str:
    """Return a reason in the spelling of OpenAI and Anthropic: `MAX_TOKENS`, `tool-calls`."""
    return reason.strip().lower().replace("-", "_").removeprefix("finish_reason_")


def is_reason(reason: object) -> bool:
    """Whether a field says why the answer ended. Some gateways write "not yet" as a text."""
    return isinstance(reason, str) and plain_reason(reason) not in _NO_REASONS


def interruption(wire: Wire, value: dict[str, Any]) -> str | None:
    """Return the reason by which an object says that the answer was broken off, None when it says no such
    thing. One that brings its error along is left to the error."""
    if value.get("error"):
        return None
    reasons: list[Any] = []
    if wire == "chat":
        choices = value.get("choices")
        choices = choices if isinstance(choices, list) else []
        if not any(_get(choice, "error") for choice in choices):
            reasons = [_get(choice, "finish_reason") for choice in choices]
    elif wire == "messages":
        reasons = [_get(value.get("delta"), "stop_reason")]
    texts = (reason for reason in reasons if isinstance(reason, str))
    return next((text for text in texts if plain_reason(text) in _INTERRUPTIONS), None)


def error_in(value: dict[str, Any], event: str) -> dict[str, Any] | None:
    """Return the error of an object that is one but not in the usual form, None for all others.

    Met: `event: error` with the error itself as its data, `{"object": "error", ...}` (vLLM),
    `{"detail": ...}` (FastAPI), an error within a choice (OpenRouter).
    """
    if value.get("error"):
        return None
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        error = _get(choice, "error")
        if error:
            return error if isinstance(error, dict) else {"message": str(error)}
    if event == "error" or value.get("object") == "error" or set(value) == {"detail"}:
        message = value.get("message") or value.get("detail") or value.get("msg") or str(value)
        kept = {name: value[name] for name in ("type", "code", "status") if value.get(name)}
        return {"type": "api_error", **kept, "message": str(message)}
    return None


def wire_of(path: str) -> Wire:
    """Return the wire format of a route below `/v1/`."""
    return _WIRE.get(path, "other")


class AnswerFacts:
    """Collects from the JSON objects of one answer, streamed or whole.

    `usage` is None when the answer had none; `error` is the error object of an error inside the stream;
    `reason` is why the model stopped; `has_mark` says whether the terminal mark was there, and `is_over`
    that nothing of the answer can follow.
    """

    def __init__(self, wire: Wire) -> None:
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.reason: str | None = None
        self.has_mark = wire == "other"
        self.is_over = False
        self._wire = wire
        self._calls: set[object] = set()

    @property
    def call_count(self) -> int:
        """How many calls of tools there are, at the least: calls with one and the same index count as one."""
        return len(self._calls)

    @property
    def is_refusal(self) -> bool:
        """Whether the model refused to answer."""
        return self.reason in _REFUSALS

    @property
    def is_progress(self) -> bool:
        """Whether the answer brings a turn on: it called a tool, or it is a finished message."""
        if self.error is not None:
            return False
        # A call that the limit cut is none: opencode reports it to the model, which begins it again.
        return self.reason not in _LIMIT_REASONS if self._calls else self.reason in FINAL_REASONS

    def see_done(self) -> None:
        """`[DONE]`: OpenAI's end of a stream, which some gateways send on every wire."""
        self.is_over = self.is_over or self._wire != "messages"

    def see(self, value: dict[str, Any]) -> None:
        """Look at one object."""
        # message: Anthropic's message_start; response: events of OpenAI's Responses API
        for holder in (value, value.get("message"), value.get("response")):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                self.usage = larger(self.usage, read_usage(holder["usage"]))
        error = value.get("error") or _get(value.get("response"), "error")
        if value.get("type") == "error" and not error:  # the Responses API's has no `error` inside
            error = {"message": value.get("message"), "code": value.get("code")}
        if error:
            self.error = error if isinstance(error, dict) else {"message": str(error)}
            self.is_over = True
        elif self._wire == "chat":
            self._chat(value)
        elif self._wire == "messages":
            self._messages(value)
        elif self._wire == "responses":
            self._responses(value)

    def _chat(self, value: dict[str, Any]) -> None:
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = _get(choice, "delta") or _get(choice, "message")
            fragments = _get(delta, "tool_calls") or _get(delta, "function_call") or []
            for place, each in enumerate(fragments if isinstance(fragments, list) else [fragments]):
                index = read_whole(_get(each, "index"))
                self._calls.add(place if index is None else index)
            if is_reason(reason := _get(choice, "finish_reason")):
                self.reason = str(reason)
                self.has_mark = True

    def _messages(self, value: dict[str, Any]) -> None:
        reason = value.get("stop_reason") or _get(value.get("delta"), "stop_reason")
        if is_reason(reason):
            self.reason = str(reason)
        block = value.get("content_block")
        blocks = value.get("content") or _get(value.get("message"), "content")
        if _get(block, "type") == "tool_use":
            self._calls.add(str(value.get("index")))
        for place, each in enumerate(blocks if isinstance(blocks, list) else ()):
            if _get(each, "type") == "tool_use":
                self._calls.add(str(place))
        if value.get("type") == "message_stop":
            self.has_mark = self.is_over = True

    def _responses(self, value: dict[str, Any]) -> None:
        if _get(value.get("item"), "type") == "function_call":
            self._calls.add(str(value.get("output_index")))
        if str(value.get("type")) in _LAST_RESPONSE_EVENTS:
            details = _get(value.get("response"), "incomplete_details")
            self.reason = str(_get(details, "reason") or "completed")
            self.has_mark = self.is_over = True


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None
