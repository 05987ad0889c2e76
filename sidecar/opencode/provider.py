"""From a gateway model to opencode's provider config. Pure.

Wire format: `provider` in https://opencode.ai/config.json as opencode 1.18.33 reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.naming import GATEWAY_PROVIDER, child_id
from sidecar.opencode.environment import RELAY_TOKEN_VARIABLE, RELAY_URL_VARIABLE

CHAT_PACKAGE = "@ai-sdk/openai-compatible"
MESSAGES_PACKAGE = "@ai-sdk/anthropic"
"""Both are compiled into opencode; any other package would be fetched by npm at the first prompt."""

RELAY_URL_REFERENCE = f"{{env:{RELAY_URL_VARIABLE}}}"
RELAY_TOKEN_REFERENCE = f"{{env:{RELAY_TOKEN_VARIABLE}}}"

DEFAULT_CONTEXT_TOKENS = 128_000
"""For a model whose limit is unknown. Absent would switch off compaction and end in a refusal."""
DEFAULT_OUTPUT_TOKENS = 8192
"""For a model whose limit is unknown; opencode's own 32000 is more than many models accept."""

_MIN_COMPACTED_TOKENS = 16_384
"""opencode's own prompt and tools take up to about 10 000 tokens, which no compaction removes. Below this
context it is switched off (0): then the gateway refuses what is too long, and the turn says so."""

_MODALITIES = ("text", "image", "audio", "video", "pdf")
"""Those that opencode knows; others would make the whole file invalid."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Prices in USD per million tokens."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What opencode needs to know of one gateway model.

    `id` is the gateway's, slashes and colons kept. `wire` chooses chat completions or messages.
    """

    id: str
    display_name: str = ""
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: frozenset[str] = frozenset({"text"})
    supports_tools: bool = True
    supports_reasoning: bool = False
    costs: Costs = Costs()
    wire: Literal["messages", "chat"] = "chat"


def model_config(entry: ModelEntry) -> dict[str, Any]:
    """Return the value of `provider.litellm.models[child_id(entry.id)]`."""
    inputs = [kind for kind in _MODALITIES if kind == "text" or kind in entry.input_modalities]
    config: dict[str, Any] = {
        "name": entry.display_name or entry.id,
        "limit": _limit(entry),
        "tool_call": entry.supports_tools,
        "reasoning": entry.supports_reasoning,
        "attachment": len(inputs) > 1,
        "modalities": {"input": inputs, "output": ["text"]},
        "temperature": True,
        "cost": {
            "input": entry.costs.input,
            "output": entry.costs.output,
            "cache_read": entry.costs.cache_read,
            "cache_write": entry.costs.cache_write,
        },
    }
    if entry.wire == "messages":
        config["provider"] = {"npm": MESSAGES_PACKAGE}
    return config


def _limit(entry: ModelEntry) -> dict[str, int]:
    """Return limits between which opencode has room to work.

    It compacts as soon as the context less the output is used up. With nothing between them, as in the
    lists of many small models, every answer would be followed by a compaction, without end.
    """
    context = entry.max_input_tokens or DEFAULT_CONTEXT_TOKENS
    output = entry.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    if context < _MIN_COMPACTED_TOKENS:
        return {"context": 0, "output": min(output, context)}
    return {"context": context, "output": min(output, context // 2)}


def provider_config(models: Mapping[str, ModelEntry]) -> dict[str, Any]:
    """Return the value of `provider`: one entry through which all gateway models are reached."""
    return {
        GATEWAY_PROVIDER: {
            "name": "LiteLLM",
            "npm": CHAT_PACKAGE,
            "options": {"baseURL": RELAY_URL_REFERENCE, "apiKey": RELAY_TOKEN_REFERENCE},
            "models": {child_id(name): model_config(models[name]) for name in sorted(models)},
        }
    }
