"""Three sources and the operator's word become one entry per model. Pure.

Precedence per field: operator override > `/v1/model/info` > `/model_group/info` > `/v1/models`. What no
source knows stays None: inventing a limit is the business of whoever needs one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from sidecar.wire.litellm import Deployment, Facts, ListedModel, ModelGroup

Wire = Literal["messages", "chat"]
SOURCES = ("models", "model_group_info", "model_info")
"""From the poorest, which alone decides what exists, to the richest."""

EPOCH = "1970-01-01T00:00:00Z"

_CHAT_MODES = frozenset({"chat", "responses"})
_LITELLM_CREATED = 1677610602
"""LiteLLM answers this constant for every model, so it says nothing."""

_NOT_CHAT = re.compile(
    r"(^|[-_./:@])"
    r"(embed(ding)?s?|e5|bge|gte|tts|stt|speech|whisper|transcri(be|ption)|dall-?e|images?|imagen|"
    r"stable-diffusion|sdxl|flux|sora|veo|video|rerank(er)?|moderations?|realtime|ocr)"
    r"(?=$|[-_./:@]|\d)",
    re.IGNORECASE,
)
"""Names of models that do not chat; asked only when no source tells the mode."""

_MESSAGES_PROVIDERS = frozenset({"anthropic", "azure_ai", "bedrock", "vertex_ai"})
"""LiteLLM providers that take Anthropic's messages without translation."""
_SPEAKS_MESSAGES = "supports_messages"

Layers = Mapping[str, Mapping[str, Any]]
"""Source name -> what it says of one model, in the fields of CatalogueEntry."""


class Override(BaseModel):
    """An operator's word on one model; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    display_name: str | None = None
    created_at: datetime | None = None
    mode: str | None = None
    listed: bool | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: tuple[Literal["text", "image", "pdf"], ...] | None = None
    supports_tools: bool | None = None
    supports_reasoning: bool | None = None
    supports_structured_outputs: bool | None = None
    reasoning_efforts: tuple[str, ...] | None = None
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cache_read_cost_per_token: float | None = None
    cache_write_cost_per_token: float | None = None
    wire: Wire | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model of the gateway. None is unknown; costs are USD per token.

    `listed` False hides it from the list (`hidden_because` says why) but it may still be named.
    `created_at` is RFC 3339, the epoch when unknown. `sources` tells who said each known field.
    """

    id: str
    display_name: str
    created_at: str = EPOCH
    mode: str | None = None
    listed: bool = True
    hidden_because: str | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    input_modalities: tuple[str, ...] = ("text",)
    supports_tools: bool | None = None
    supports_reasoning: bool | None = None
    supports_structured_outputs: bool | None = None
    reasoning_efforts: tuple[str, ...] = ()
    input_cost_per_token: float | None = None
    output_cost_per_token: float | None = None
    cache_read_cost_per_token: float | None = None
    cache_write_cost_per_token: float | None = None
    wire: Wire = "chat"
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's part of the merge."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    claude_wire: Wire = "messages"
    default_wire: Wire = "chat"


def facts_of_list(models: Iterable[ListedModel]) -> dict[str, dict[str, Any]]:
    """Return what `/v1/models` says, by model id."""
    facts = {}
    for model in models:
        known = _known(model)
        created_at = _created_at(model)
        if created_at is not None:
            known["created_at"] = created_at
        if model.display_name:
            known["display_name"] = model.display_name
        facts[model.id] = known
    return facts


def facts_of_groups(groups: Iterable[ModelGroup]) -> dict[str, dict[str, Any]]:
    """Return what `/model_group/info` says, by public name."""
    facts = {}
    for group in groups:
        known = _known(group)
        if group.mode is None:
            # For a model LiteLLM does not know, it sends every ability as false.
            known = {k: v for k, v in known.items() if v is not False and k != "input_modalities"}
        facts[group.model_group] = known
    return facts


def facts_of_deployments(deployments: Iterable[Deployment]) -> dict[str, dict[str, Any]]:
    """Return what `/v1/model/info` says; several deployments promise only what all of them can."""
    facts: dict[str, dict[str, Any]] = {}
    for deployment in deployments:
        known = _known(deployment.model_info)
        target = deployment.litellm_params.model
        if target is not None:
            known[_SPEAKS_MESSAGES] = target.partition("/")[0] in _MESSAGES_PROVIDERS
        held = facts.get(deployment.model_name)
        facts[deployment.model_name] = known if held is None else _common(held, known)
    return facts


def merge(layers_by_id: Mapping[str, Layers], rules: Rules) -> dict[str, CatalogueEntry]:
    """Return an entry for every model, hidden ones included."""
    return {model_id: _entry(model_id, layers, rules) for model_id, layers in layers_by_id.items()}


def listed_order(entries: Collection[CatalogueEntry]) -> tuple[str, ...]:
    """Return the ids of listed entries: newest first, then by id."""
    listed = sorted(e.id for e in entries if e.listed)
    created = {e.id: e.created_at for e in entries}
    return tuple(sorted(listed, key=created.__getitem__, reverse=True))


def why_hidden(model_id: str, mode: str | None, rules: Rules) -> str | None:
    """Return why a model is not listed, None when it is."""
    if "*" in model_id:
        return "wildcard"
    if mode is not None and mode not in _CHAT_MODES:
        return f"mode {mode}"
    if mode is None and (match := _NOT_CHAT.search(model_id)):
        return f"no mode, and its name says {match.group(2).lower()}"
    if any(fnmatchcase(model_id, glob) for glob in rules.exclude):
        return "excluded by SIDECAR_GATEWAY_EXCLUDE"
    if rules.include and not any(fnmatchcase(model_id, glob) for glob in rules.include):
        return "not in SIDECAR_GATEWAY_INCLUDE"
    return None


def _entry(model_id: str, layers: Layers, rules: Rules) -> CatalogueEntry:
    override = rules.overrides.get(model_id, Override())
    said = override.model_dump(exclude_none=True)
    if override.created_at is not None:
        said["created_at"] = _rfc3339(override.created_at)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    ordered = [*((name, layers.get(name, {})) for name in SOURCES), ("override", said)]
    for source, layer in ordered:
        for name, value in layer.items():
            values[name] = tuple(value) if isinstance(value, list) else value
            sources[name] = source
    values.setdefault("wire", _wire(model_id, values.pop(_SPEAKS_MESSAGES, None), rules))
    sources.pop(_SPEAKS_MESSAGES, None)
    values.setdefault("display_name", model_id)
    hidden_because = why_hidden(model_id, values.get("mode"), rules)
    if override.listed is not None:
        hidden_because = None if override.listed else "hidden by SIDECAR_GATEWAY_OVERRIDES"
    values |= {"listed": hidden_because is None, "hidden_because": hidden_because}
    return CatalogueEntry(id=model_id, sources=sources, **values)


def _wire(model_id: str, speaks_messages: bool | None, rules: Rules) -> Wire:
    """Claude by messages, unless its deployment would have to translate them: LiteLLM then needs an
    upstream that serves `/v1/responses`, which few do."""
    is_claude = any(mark in model_id.lower() for mark in ("claude", "anthropic"))
    if is_claude and rules.claude_wire == "messages" and speaks_messages is False:
        return "chat"
    return rules.claude_wire if is_claude else rules.default_wire


def _known(facts: Facts) -> dict[str, Any]:
    """Return the known facts in the catalogue's own field names."""
    known: dict[str, Any] = {
        "mode": facts.mode,
        "max_input_tokens": facts.max_input_tokens,
        "max_output_tokens": facts.max_output_tokens or facts.max_tokens,
        "input_modalities": _modalities(facts),
        "supports_tools": facts.supports_function_calling,
        "supports_reasoning": facts.supports_reasoning,
        "supports_structured_outputs": facts.supports_response_schema,
        "reasoning_efforts": facts.supported_reasoning_efforts or None,
        "input_cost_per_token": facts.input_cost_per_token,
        "output_cost_per_token": facts.output_cost_per_token,
        "cache_read_cost_per_token": facts.cache_read_input_token_cost,
        "cache_write_cost_per_token": facts.cache_creation_input_token_cost,
    }
    return {name: value for name, value in known.items() if value is not None}


def _modalities(facts: Facts) -> list[str] | None:
    if facts.supports_vision is None and facts.supports_pdf_input is None:
        return None
    kinds = {"image": facts.supports_vision, "pdf": facts.supports_pdf_input}
    return ["text", *(kind for kind, is_supported in kinds.items() if is_supported)]


def _common(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return what holds for both deployments; costs are those of the first."""
    common = {}
    for name in {**a, **b}:
        if name not in a or name not in b:
            if not name.startswith("supports_"):
                common[name] = a.get(name, b.get(name))
        elif name.startswith("max_"):
            common[name] = min(a[name], b[name])
        elif name.startswith("supports_"):
            common[name] = a[name] and b[name]
        elif isinstance(a[name], list):
            common[name] = [item for item in a[name] if item in b[name]]
        else:
            common[name] = a[name]
    return common


def _created_at(model: ListedModel) -> str | None:
    if model.created_at:
        try:
            moment = datetime.fromisoformat(model.created_at)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    elif model.created:
        try:
            moment = datetime.fromtimestamp(model.created, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    else:
        return None
    return None if moment.timestamp() in {0, _LITELLM_CREATED} else _rfc3339(moment)


def _rfc3339(moment: datetime) -> str:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
