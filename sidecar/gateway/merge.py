"""Three sources and the operator's word become one entry per model. Pure.

Precedence per field: operator override > `/v1/model/info` > `/model_group/info` > `/v1/models`. What no
source knows stays None: a caller that needs a limit chooses its own default.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.gateway.rules import Override, Rules, Wire, why_hidden
from sidecar.wire.litellm import Deployment, Facts, ListedModel, ModelGroup
from sidecar.wire.model_bounds import why_unusable

SOURCES = ("models", "model_group_info", "model_info")
"""From the poorest, which alone decides what exists, to the richest."""

EPOCH = "1970-01-01T00:00:00Z"

_MESSAGES_PROVIDERS = frozenset({"anthropic", "azure_ai", "bedrock", "vertex_ai"})
"""LiteLLM providers that take Anthropic's messages without translation."""
_SPEAKS_MESSAGES = "supports_messages"

Layers = Mapping[str, Mapping[str, Any]]
"""Source name -> what it says of one model, in the fields of CatalogueEntry."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model of the gateway. None is unknown; costs are USD per token.

    `listed` False hides it from the list (`hidden_because` says why) but it may still be named, unless
    `is_usable` is False too.
    `created_at` is RFC 3339, the epoch when unknown. `sources` names the source of each known field.
    """

    id: str
    display_name: str
    created_at: str = EPOCH
    mode: str | None = None
    listed: bool = True
    hidden_because: str | None = None
    is_usable: bool = True
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


def facts_of_list(models: Iterable[ListedModel]) -> dict[str, dict[str, Any]]:
    """Return what `/v1/models` says, by model id."""
    facts = {}
    for model in models:
        known = _known(model)
        if created_at := model.created_at or model.created:
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
        if deployment.provider is not None:
            known[_SPEAKS_MESSAGES] = deployment.provider in _MESSAGES_PROVIDERS
        for name in deployment.names:
            held = facts.get(name)
            facts[name] = known if held is None else _common(held, known)
    return facts


def merge(layers_by_id: Mapping[str, Layers], rules: Rules) -> dict[str, CatalogueEntry]:
    """Return an entry for every model, hidden ones included."""
    return {model_id: _entry(model_id, layers, rules) for model_id, layers in layers_by_id.items()}


def listed_order(entries: Collection[CatalogueEntry]) -> tuple[str, ...]:
    """Return the ids of listed entries: newest first, then by id."""
    listed = sorted(e.id for e in entries if e.listed)
    created = {e.id: e.created_at for e in entries}
    return tuple(sorted(listed, key=created.__getitem__, reverse=True))


def _entry(model_id: str, layers: Layers, rules: Rules) -> CatalogueEntry:
    override = rules.overrides.get(model_id, Override())
    said = override.model_dump(exclude_none=True)
    if override.created_at is not None:
        said["created_at"] = override.created_at.strftime("%Y-%m-%dT%H:%M:%SZ")
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
    unusable = why_unusable(model_id)
    if override.listed is not None and unusable is None:
        hidden_because = None if override.listed else "hidden by SIDECAR_GATEWAY_OVERRIDES"
    values |= {
        "listed": hidden_because is None,
        "hidden_because": hidden_because,
        "is_usable": unusable is None,
    }
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
