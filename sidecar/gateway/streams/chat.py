"""Repairs chat completion chunks that the AI SDK inside opencode cannot read.

What it can read: the chunk schema of `@ai-sdk/openai-compatible` in opencode 1.18.33. One chunk that does
not match ends the whole answer with an error; a `finish_reason` that it does not know makes opencode ask
the model again, at once and without end.
"""

from __future__ import annotations

from typing import Any

from sidecar.gateway.streams.facts import FILTERS, LIMITS, plain_reason
from sidecar.gateway.streams.tool_calls import ToolCalls
from sidecar.gateway.usage import is_count

_REASONS = frozenset({"stop", "length", "content_filter", "function_call", "tool_calls"})
_SYNONYMS = {
    **dict.fromkeys(LIMITS, "length"),
    **dict.fromkeys(FILTERS, "content_filter"),
}
_STRINGS = ("id", "model")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


class ChatRepair:
    """Keeps what must be known of one answer. `repair` is given every chunk, in order."""

    def __init__(self) -> None:
        self._calls = ToolCalls()
        self._has_delta = False
        self._is_changed = False

    def repair(self, value: dict[str, Any], _event: str) -> list[dict[str, Any]] | None:
        """Return what to send in place of the chunk, None to send it as it came. Changes `value`."""
        if value.get("error"):
            return None
        self._is_changed = False
        self._keep(value, _STRINGS, str)
        self._keep(value, ("created",), (int, float))
        self._usage(value)
        choices = value.get("choices")
        if not isinstance(choices, list):
            self._set(value, "choices", [])
        elif not all(isinstance(choice, dict) for choice in choices):
            self._set(value, "choices", [each for each in choices if isinstance(each, dict)])
        for choice in value["choices"]:
            self._choice(choice)
        return [value] if self._is_changed else None

    def _set(self, holder: dict[str, Any], name: str, value: Any) -> None:
        holder[name] = value
        self._is_changed = True

    def _keep(
        self, holder: dict[str, Any], names: tuple[str, ...], kind: type | tuple[type, ...]
    ) -> None:
        """Set fields to null that are neither null nor of that kind."""
        for name in names:
            value = holder.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                self._set(holder, name, None)

    def _usage(self, value: dict[str, Any]) -> None:
        self._keep(value, ("usage",), dict)
        usage = value.get("usage")
        if usage is None:
            return
        self._keep(usage, _DETAILS, dict)
        for holder in (usage, *(usage.get(name) or {} for name in _DETAILS)):
            for name in [name for name in holder if name.endswith("_tokens")]:
                if holder[name] is not None and not is_count(holder[name]):
                    self._set(holder, name, None)

    def _choice(self, choice: dict[str, Any]) -> None:
        self._keep(choice, ("delta",), dict)
        if choice.get("delta"):
            self._has_delta = True
        elif not self._has_delta:  # after deltas it would repeat them
            self._whole(choice)
        delta = choice.get("delta")
        if delta is not None:
            self._delta(delta)
        reason = choice.get("finish_reason")
        if reason is None:
            return
        if reason == "" or not isinstance(reason, str):
            self._set(choice, "finish_reason", None)
            return
        if nameless := self._calls.take_nameless():
            delta = delta if delta is not None else {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or []), *nameless]
            self._set(choice, "delta", delta)
        known = self._reason(reason)
        if known != reason:
            self._set(choice, "finish_reason", known)

    def _whole(self, choice: dict[str, Any]) -> None:
        """Take the text from where whole answers, which are not streams, have it."""
        message, text = choice.get("message"), choice.get("text")
        if isinstance(message, dict):
            calls = message.get("tool_calls")
            if isinstance(calls, list):  # there they have no index
                calls = [{"index": i, **c} for i, c in enumerate(calls) if isinstance(c, dict)]
                message = {**message, "tool_calls": calls}
            self._set(choice, "delta", message)
        elif isinstance(text, str) and text:
            self._set(choice, "delta", {"content": text})

    def _reason(self, reason: str) -> str:
        plain = plain_reason(reason)
        known = reason if reason in _REASONS else _SYNONYMS.get(plain, plain)
        has_calls = not self._calls.is_empty
        if known in {"tool_calls", "function_call"} and not has_calls:
            return "stop"  # opencode would ask again, for there is nothing to wait for
        if known not in _REASONS:
            return "tool_calls" if has_calls else "stop"
        return known

    def _delta(self, delta: dict[str, Any]) -> None:
        if delta.get("role") is not None and delta["role"] != "assistant":
            self._set(delta, "role", "assistant")
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            self._set(delta, "content", _text_of(content))
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal and not delta.get("content"):
            self._set(delta, "content", refusal)  # opencode would show nothing
        self._keep(delta, ("reasoning_content", "reasoning"), str)
        call = delta.get("function_call")
        if isinstance(call, dict) and not delta.get("tool_calls"):
            del delta["function_call"]  # the form of 2023
            self._set(delta, "tool_calls", [{"index": 0, "function": call}])
        fragments = delta.get("tool_calls")
        if fragments is None:
            return
        if not isinstance(fragments, list):
            fragments = [fragments]
            self._is_changed = True
        taken = [self._calls.take(each) for each in fragments if isinstance(each, dict)]
        kept = [each for each in taken if each is not None]
        if len(kept) != len(fragments) or any(
            new is not old for new, old in zip(kept, fragments, strict=True)
        ):
            self._set(delta, "tool_calls", kept)


def _text_of(content: Any) -> str:
    """Return the text of content that came as parts, as Mistral's reasoning models send it."""
    parts = content if isinstance(content, list) else [content]
    texts = (each.get("text") if isinstance(each, dict) else each for each in parts)
    return "".join(text for text in texts if isinstance(text, str))
