"""Probes and models as they are answered."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from sidecar.wire.objects.common import Time


class OpencodeHealth(TypedDict):
    """The supervised opencode; `failure` says why it is `failed`."""

    state: str
    version: str
    tested_version: NotRequired[str]
    failure: NotRequired[str]


class GatewayHealth(TypedDict):
    """The LiteLLM gateway; `age_seconds` is the age of its list of models."""

    demo: bool
    models: int
    age_seconds: float | None


class ConfinementHealth(TypedDict):
    """How far agents are confined, and what is missing for more."""

    level: Literal["off", "partial", "full"]
    lacks: NotRequired[list[str]]


class Health(TypedDict):
    """The sidecar and its neighbours. `ok` is false while opencode or the store cannot be used."""

    ok: bool
    version: str
    opencode: OpencodeHealth
    gateway: GatewayHealth
    confinement: ConfinementHealth


class Live(TypedDict):
    """The process answers."""

    live: Literal[True]


class Ready(TypedDict):
    """Whether prompts can be served."""

    ready: bool
    opencode: str
    store: NotRequired[str]


class Started(TypedDict):
    """Whether every route is served."""

    started: Literal[True]


class Supported(TypedDict):
    """Whether the model can do it."""

    supported: bool


class EffortCapability(TypedDict):
    """Which levels of effort the model takes."""

    supported: bool
    low: Supported
    medium: Supported
    high: Supported
    xhigh: Supported
    max: Supported


class ServerToolsCapability(TypedDict):
    """Tools that the model's vendor executes."""

    supported: bool
    code_execution: Supported
    web_search: Supported


class ThinkingTypes(TypedDict):
    """Kinds of thinking."""

    adaptive: Supported
    between_tools: Supported
    disabled: Supported
    enabled: Supported


class ThinkingCapability(TypedDict):
    """Whether and how the model thinks."""

    supported: bool
    types: ThinkingTypes


class Capabilities(TypedDict):
    """What a model can do, as far as the gateway says."""

    batch: Supported
    citations: Supported
    code_execution: Supported
    context_management: Supported
    effort: EffortCapability
    image_input: Supported
    pdf_input: Supported
    server_tools: ServerToolsCapability
    structured_outputs: Supported
    thinking: ThinkingCapability


class ModelObject(TypedDict):
    """A model of the gateway: Anthropic's object, with the three fields of OpenAI's beside."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: Time
    lifecycle: Literal["active"]
    line: Literal["haiku", "sonnet", "opus", "fable", "mythos"] | None
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: Capabilities | None
    deprecated_at: None
    retires_at: None
    object: Literal["model"]
    created: int
    owned_by: str


@with_config(ConfigDict(extra="allow"))
class RuntimeModelObject(TypedDict):
    """A model of another runtime; `raw` is what that runtime says of it."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: Time
    lifecycle: Literal["active", "deprecated", "retired"]
    line: Literal["haiku", "sonnet", "opus", "fable", "mythos"] | None
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: dict[str, Any] | None
    deprecated_at: Time | None
    retires_at: Time | None
    runtime: str
    raw: Any


class ModelList(TypedDict):
    """A page of models. `runtime` is there when another runtime was asked for."""

    data: list[ModelObject | RuntimeModelObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"]
    runtime: NotRequired[str]
