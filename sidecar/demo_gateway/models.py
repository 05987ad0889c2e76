"""The demo gateway's models and LiteLLM's shapes of listing them (measured on LiteLLM 1.106.2)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

_CREATED = 1677610602
"""LiteLLM answers this constant for every model."""
_CREATED_AT = "2023-02-28T18:56:42Z"


class DemoModel(BaseModel):
    """One model. Costs are USD per token; None leaves the field out, as LiteLLM does for unknowns."""

    model_config = ConfigDict(extra="forbid")

    id: str
    mode: str | None = "chat"
    provider: str = "openai"
    max_input_tokens: int | None = 128_000
    max_output_tokens: int | None = 16_384
    input_cost_per_token: float | None = 1e-06
    output_cost_per_token: float | None = 4e-06
    supports_vision: bool | None = None
    supports_function_calling: bool | None = True
    supports_reasoning: bool | None = None
    supported_reasoning_efforts: list[str] | None = None


DEFAULT_MODELS: tuple[DemoModel, ...] = (
    DemoModel(
        id="claude-sonnet-4-5",
        provider="anthropic",
        max_input_tokens=200_000,
        max_output_tokens=64_000,
        input_cost_per_token=3e-06,
        output_cost_per_token=1.5e-05,
        supports_vision=True,
        supports_reasoning=True,
        supported_reasoning_efforts=["low", "medium", "high"],
    ),
    DemoModel(
        id="bedrock/anthropic.claude-sonnet-4",
        provider="bedrock",
        max_input_tokens=200_000,
        max_output_tokens=64_000,
        supports_vision=True,
        supports_reasoning=True,
    ),
    DemoModel(id="openai/gpt-4o", supports_vision=True),
    DemoModel(id="openai/gpt-4o-mini", supports_vision=True),
    DemoModel(id="ollama/qwen3:8b", provider="ollama", max_input_tokens=40_960),
    DemoModel(
        id="house-model",
        max_input_tokens=None,
        max_output_tokens=None,
        input_cost_per_token=None,
        output_cost_per_token=None,
        supports_function_calling=None,
    ),
    DemoModel(id="text-embedding-3-small", mode="embedding", max_input_tokens=8_191),
    DemoModel(id="dall-e-3", mode="image_generation", max_input_tokens=None),
)


def openai_page(models: list[DemoModel]) -> dict[str, Any]:
    """`GET /v1/models`."""
    data = [
        {"id": m.id, "object": "model", "created": _CREATED, "owned_by": "openai"}
        | _known(m, "mode", "max_input_tokens", "max_output_tokens")
        for m in models
    ]
    return {"data": data, "object": "list"}


def anthropic_page(models: list[DemoModel]) -> dict[str, Any]:
    """`GET /v1/models` when the caller sends `anthropic-version`: no mode, `limit` ignored."""
    data = [
        {
            "type": "model",
            "id": m.id,
            "display_name": m.id,
            "created_at": _CREATED_AT,
            "max_input_tokens": m.max_input_tokens,
            "max_tokens": m.max_output_tokens,
        }
        for m in models
    ]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None} | ends


def model_groups(models: list[DemoModel]) -> dict[str, Any]:
    """`GET /model_group/info`: per public name; LiteLLM sends numbers as floats."""
    data = []
    for m in models:
        known = _known(m, *(f for f in DemoModel.model_fields if f not in {"id", "provider"}))
        as_floats = {
            key: float(value) if type(value) is int else value for key, value in known.items()
        }
        data.append({"model_group": m.id, "providers": [m.provider], **as_floats})
    return {"data": data}


def deployments(models: list[DemoModel]) -> dict[str, Any]:
    """`GET /v1/model/info`: per deployment."""
    data = []
    for m in models:
        info = _known(m, *(f for f in DemoModel.model_fields if f not in {"id", "provider"}))
        info |= {"key": m.id, "max_tokens": m.max_output_tokens}
        data.append(
            {
                "model_name": m.id,
                "litellm_params": {"model": f"{m.provider}/{m.id}"},
                "model_info": info,
            }
        )
    return {"data": data}


def _known(model: DemoModel, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(model, name)) is not None}
