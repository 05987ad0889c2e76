"""opencode's config file as we write it: `https://opencode.ai/config.json`, reduced to what we use.

opencode 1.18.33 refuses a file with fields or types it does not know: ours is checked before it is written.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from sidecar.wire.model_bounds import (
    MAX_NAME_CHARS,
    MAX_TOKENS,
    MAX_TYPED_NAME_CHARS,
    MAX_USD_PER_MILLION,
)


class Strict(BaseModel):
    """Our own config file: a field that we did not mean is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


Tokens = Annotated[int, Field(gt=0, le=MAX_TOKENS)]
Price = Annotated[float, Field(ge=0, le=MAX_USD_PER_MILLION, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TYPED_NAME_CHARS)]


class Limit(Strict):
    """Token limits of a model."""

    context: Annotated[int, Field(ge=0, le=MAX_TOKENS)]
    """0: unknown, which switches compaction off."""
    output: Tokens


class Cost(Strict):
    """USD per million tokens."""

    input: Price
    output: Price
    cache_read: Price
    cache_write: Price


class Modalities(Strict):
    """What a model reads and writes."""

    input: list[Literal["text", "image", "audio", "video", "pdf"]]
    output: list[Literal["text"]]


class Package(Strict):
    """The wire of one model, where it differs from its provider's."""

    npm: Literal["@ai-sdk/anthropic"]


class Model(Strict):
    """One model of a provider."""

    name: Name
    limit: Limit
    tool_call: bool
    reasoning: bool
    attachment: bool
    modalities: Modalities
    temperature: bool
    cost: Cost
    provider: Package | None = None


class ProviderOptions(Strict):
    """Where a provider is reached; both values are references to the environment."""

    baseURL: Annotated[str, Field(pattern=r"^\{env:\w+\}$")]  # noqa: N815  # opencode's spelling
    apiKey: Annotated[str, Field(pattern=r"^\{env:\w+\}$")]  # noqa: N815  # opencode's spelling


class Provider(Strict):
    """One provider."""

    name: Text
    npm: Literal["@ai-sdk/openai-compatible"]
    options: ProviderOptions
    models: dict[Text, Model]


class Agent(Strict):
    """One agent; `disable` alone switches a built-in one off."""

    mode: Literal["primary", "subagent"] | None = None
    description: str | None = None
    prompt: str | None = None
    disable: bool | None = None


Action = Literal["allow", "deny"]  # never "ask": only sessions that asked for it get an answer


class Config(Strict):
    """The file that `OPENCODE_CONFIG` names, as we write it."""

    enabled_providers: list[Text]
    model: Text | None = None
    small_model: Text | None = None
    default_agent: str | None = None
    snapshot: Literal[False]
    share: Literal["disabled"]
    autoupdate: Literal[False]
    lsp: Literal[False]
    formatter: Literal[False]
    permission: dict[str, Action | dict[str, Action]]
    agent: dict[str, Agent]
    provider: dict[str, Provider]
    experimental: dict[str, int]
    plugin: list[Annotated[str, Field(pattern=r"^file://")]] | None = None
