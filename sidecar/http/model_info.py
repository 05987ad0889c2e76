"""A catalogue entry as the Models API shows it. Pure.

Wire format: `ModelInfo` of the official SDK 2.14.0, plus `object`, `created` and `owned_by`, which LAP's
templates and OpenAI clients read.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sidecar.gateway.catalogue import CatalogueEntry

_LINES = ("haiku", "sonnet", "opus", "fable", "mythos")
_LINE = re.compile(rf"(?<![a-z])({'|'.join(_LINES)})(?![a-z])")
_ABILITIES = frozenset(
    {
        *("input_modalities", "supports_reasoning"),
        *("supports_structured_outputs", "reasoning_efforts"),
    }
)
"""Fields that say something about `capabilities`."""


def model_info(entry: CatalogueEntry) -> dict[str, Any]:
    """Return the model object."""
    return {
        "type": "model",
        "id": entry.id,
        "display_name": entry.display_name,
        "created_at": entry.created_at,
        "lifecycle": "active",
        "line": _line(entry.id),
        "max_input_tokens": entry.max_input_tokens,
        "max_tokens": entry.max_output_tokens,
        "capabilities": _capabilities(entry),
        "deprecated_at": None,
        "retires_at": None,
        "object": "model",
        "created": int(datetime.fromisoformat(entry.created_at).timestamp()),
        "owned_by": "litellm",
    }


def _line(model_id: str) -> str | None:
    """Return Anthropic's model line; null for every other vendor, whatever its model is called."""
    match = _LINE.search(model_id.lower()) if "claude" in model_id.lower() else None
    return match.group(1) if match else None


def _capabilities(entry: CatalogueEntry) -> dict[str, Any] | None:
    """Return the complete object, for strict clients refuse half of one; null when nothing is known."""
    if not _ABILITIES & entry.sources.keys():
        return None
    no, yes = {"supported": False}, {"supported": True}
    efforts = set(entry.reasoning_efforts)
    thinks = _supported(entry.supports_reasoning)
    return {
        "batch": no,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": {
            **_supported(bool(efforts)),
            **{level: _supported(level in efforts) for level in _EFFORTS},
        },
        "image_input": _supported("image" in entry.input_modalities),
        "pdf_input": _supported("pdf" in entry.input_modalities),
        "server_tools": {"supported": False, "code_execution": no, "web_search": no},
        "structured_outputs": _supported(entry.supports_structured_outputs),
        "thinking": {
            **thinks,
            "types": {"adaptive": no, "between_tools": no, "disabled": yes, "enabled": thinks},
        },
    }


_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def _supported(value: object) -> dict[str, bool]:
    return {"supported": value is True}
