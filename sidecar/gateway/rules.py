"""The operator's part of the catalogue: overrides per model, and what is hidden from the list. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sidecar.config import GatewaySettings
from sidecar.errors import SettingsError
from sidecar.wire.litellm import PLACEHOLDERS
from sidecar.wire.model_bounds import MAX_NAME_CHARS, MAX_TOKENS, MAX_USD_PER_TOKEN, why_unusable
from sidecar.wire.problems import problems_of

Wire = Literal["messages", "chat"]

_FIRST_YEAR = 1970
_CHAT_MODES = frozenset({"chat", "responses"})
_NOT_CHAT = re.compile(
    r"(^|[-_./:@])"
    r"(embed(ding)?s?|e5|bge|gte|tts|stt|speech|whisper|transcri(be|ption)|dall-?e|images?|imagen|"
    r"stable-diffusion|sdxl|flux|sora|veo|video|rerank(er)?|moderations?|realtime|ocr)"
    r"(?=$|[-_./:@]|\d)",
    re.IGNORECASE,
)
"""Names of models that do not chat; looked at only when no source gives the mode."""

Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Price = Annotated[float, Field(ge=0, le=MAX_USD_PER_TOKEN)]


def _in_utc(moment: datetime) -> datetime:
    try:
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None
    if moment.year < _FIRST_YEAR:
        raise ValueError(f"is before {_FIRST_YEAR}")
    return moment


class Override(BaseModel):
    """An operator's word on one model; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    display_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)] | None = None
    created_at: Annotated[datetime, AfterValidator(_in_utc)] | None = None
    mode: str | None = None
    listed: bool | None = None
    max_input_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None
    input_modalities: tuple[Literal["text", "image", "pdf"], ...] | None = None
    supports_tools: bool | None = None
    supports_reasoning: bool | None = None
    supports_structured_outputs: bool | None = None
    reasoning_efforts: tuple[str, ...] | None = None
    input_cost_per_token: Price | None = None
    output_cost_per_token: Price | None = None
    cache_read_cost_per_token: Price | None = None
    cache_write_cost_per_token: Price | None = None
    wire: Wire | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's part of the merge."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    claude_wire: Wire = "messages"
    default_wire: Wire = "chat"


def within_bounds(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of one model without those that are outside the bounds of reading.

    For a copy on disk, which may come from a version that read more.
    """
    known = {name: value for name, value in facts.items() if name in Override.model_fields}
    try:
        Override.model_validate(known)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False)}
        return {name: value for name, value in facts.items() if name not in wrong}
    return dict(facts)


def why_hidden(model_id: str, mode: str | None, rules: Rules) -> str | None:
    """Return why a model is not listed, None when it is."""
    return why_unusable(model_id) or _why_no_chat(model_id, mode) or _why_filtered(model_id, rules)


def _why_no_chat(model_id: str, mode: str | None) -> str | None:
    if model_id in PLACEHOLDERS:
        return "a placeholder of LiteLLM, not a model"
    if "*" in model_id:
        return "wildcard"
    if mode is not None and mode.lower() not in _CHAT_MODES:
        return f"mode {mode}"
    if mode is None and (match := _NOT_CHAT.search(model_id)):
        return f"no mode, and its name says {match.group(2).lower()}"
    return None


def _why_filtered(model_id: str, rules: Rules) -> str | None:
    if any(fnmatchcase(model_id, glob) for glob in rules.exclude):
        return "excluded by SIDECAR_GATEWAY_EXCLUDE"
    if rules.include and not any(fnmatchcase(model_id, glob) for glob in rules.include):
        return "not in SIDECAR_GATEWAY_INCLUDE"
    return None


def rules_of(settings: GatewaySettings) -> Rules:
    """Return the rules of the settings. Raises SettingsError for a wrong override."""
    overrides = {}
    for model_id, raw in settings.overrides.items():
        try:
            overrides[model_id] = Override.model_validate(raw)
        except ValidationError as error:
            problem = problems_of(error, raw)[0]
            where = ".".join(str(part) for part in (model_id, *problem.path))
            raise SettingsError(
                f"SIDECAR_GATEWAY_OVERRIDES: {where}: {problem.text}; known fields: "
                f"{', '.join(Override.model_fields)}"
            ) from error
    return Rules(
        include=settings.include,
        exclude=settings.exclude,
        overrides=overrides,
        claude_wire=settings.claude_wire,
        default_wire=settings.default_wire,
    )
