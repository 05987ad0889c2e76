"""Token usage as any of the formats says it, in one meaning. Pure.

Formats: OpenAI chat completions (`prompt_tokens` includes cached ones), OpenAI responses (the same
under `input_tokens`), Anthropic messages (`input_tokens` excludes them), and LiteLLM's mixture.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sidecar.model_requests import Usage
from sidecar.wire.model_bounds import MAX_TOKENS
from sidecar.wire.scalars import read_number


def larger(old: Usage | None, new: Usage) -> Usage:
    """Return the larger of each count: Anthropic's are cumulative over a stream, and some gateways send
    zeros at one end."""
    if old is None:
        return new
    return Usage(*(max(getattr(old, f.name), getattr(new, f.name)) for f in fields(Usage)))


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


def read_count(value: object) -> int | float | None:
    """Return a number of tokens, None for what is none. By a huge one opencode would begin to compact."""
    number = read_number(value)
    return number if number is not None and 0 <= number <= MAX_TOKENS else None


def repaired_counts(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of a usage object that have to be written in another form, or as null."""
    counts = {name: read_count(value) for name, value in usage.items() if name.endswith("_tokens")}
    return {
        name: count
        for name, count in counts.items()
        if usage[name] is not None and (count is None or isinstance(usage[name], str))
    }


def _count(holder: Any, name: str) -> int:
    return int(read_count(_get(holder, name)) or 0)


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None
