"""What LiteLLM says about its models. Read leniently: one odd field or item must not hide the others.

Shapes measured on LiteLLM 1.106.2: `GET /v1/models` (OpenAI's, or Anthropic's page), LAP's variant of it,
`GET /model_group/info`, `GET /v1/model/info`. Numbers may come as floats; unknown fields are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError


def _count(value: object) -> int | None:
    number = _price(value)
    return int(number) if number is not None and number >= 1 else None


def _price(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> list[str] | None:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else None


Count = Annotated[int | None, BeforeValidator(_count)]
Price = Annotated[float | None, BeforeValidator(_price)]
Flag = Annotated[bool | None, BeforeValidator(_flag)]
Text = Annotated[str | None, BeforeValidator(_text)]
Texts = Annotated[list[str] | None, BeforeValidator(_texts)]


class Facts(BaseModel):
    """What any source may tell of a model; None is unknown. Costs are USD per token."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    mode: Text = None
    max_input_tokens: Count = None
    max_output_tokens: Count = None
    max_tokens: Count = None
    input_cost_per_token: Price = None
    output_cost_per_token: Price = None
    cache_read_input_token_cost: Price = None
    cache_creation_input_token_cost: Price = None
    supports_vision: Flag = None
    supports_pdf_input: Flag = None
    supports_function_calling: Flag = None
    supports_reasoning: Flag = None
    supports_response_schema: Flag = None
    supported_reasoning_efforts: Texts = None


class ListedModel(Facts):
    """An item of `GET /v1/models`, OpenAI's or Anthropic's shape."""

    id: str
    created: Count = None
    created_at: Text = None
    display_name: Text = None


class ModelGroup(Facts):
    """An item of `GET /model_group/info`: one public name."""

    model_group: str


class DeploymentTarget(BaseModel):
    """Where a deployment leads: `model` is LiteLLM's own `provider/model`."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    model: Text = None


class Deployment(BaseModel):
    """An item of `GET /v1/model/info`: one of the deployments behind a public name."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    model_name: str
    litellm_params: DeploymentTarget = DeploymentTarget()
    model_info: Facts = Facts()


M = TypeVar("M", bound=BaseModel)


def read_items(kind: type[M], body: Any) -> list[M] | None:
    """Return the readable items of a list answer, None when it is no list answer at all."""
    if not isinstance(body, dict):
        return None
    items = next((body[k] for k in ("data", "models") if isinstance(body.get(k), list)), None)
    if items is None:
        return None
    return list(_readable(kind, items))


def _readable(kind: type[M], items: list[Any]) -> Iterator[M]:
    for item in items:
        value = {"id": item} if isinstance(item, str) else item
        try:
            yield kind.model_validate(value)
        except ValidationError:
            continue
