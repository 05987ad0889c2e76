"""What the SDK hands out: the Anthropic list of models, whatever the runtime.

Source of the shape: the Anthropic Models API (`GET /v1/models`, Python SDK 2.14.0). Every page here,
dumped with `model_dump(mode="json")` and served, is accepted by that SDK in strict mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from sidecar.sdk.capabilities import ModelCapabilities
from sidecar.sdk.errors import MissingKeyError, ModelsError
from sidecar.wire.model_bounds import MAX_TOKENS
from sidecar.wire.scalars import read_whole

UNKNOWN_DATE = datetime(1970, 1, 1, tzinfo=UTC)
"""The epoch, which the Anthropic API itself uses for an unknown release date."""


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")  # noqa: TRY004  # pydantic collects ValueErrors
    return value


def _known_date(value: datetime) -> datetime:
    """Give the moment a zone. Raises ValueError before the epoch, as for the year 1, Go's zero time."""
    if value.year < UNKNOWN_DATE.year:
        raise ValueError("is before 1970")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _whole(value: object) -> object:
    """Read a number of tokens in any of the forms that gateways use."""
    number = read_whole(value)
    if number is None:
        raise ValueError("is no whole number")
    return number


Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(_whole)]
Moment = Annotated[datetime, BeforeValidator(_refuse_bool), AfterValidator(_known_date)]


class ModelInfo(BaseModel):
    """One model, typed like `anthropic.types.ModelInfo`, plus `runtime` and `raw`.

    Fields that the runtime does not give are None (`display_name`: the id; `created_at`: the epoch;
    `lifecycle`: "active"). Fields newer than this SDK are kept as attributes.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    id: Annotated[str, Field(min_length=1)]
    """The exact id to send back to the runtime; never shortened, prefixed or lower-cased."""
    type: Literal["model"] = "model"
    display_name: Annotated[str, Field(min_length=1)] = Field(
        default_factory=lambda data: str(data.get("id", ""))
    )
    """A name for people."""
    created_at: Moment = UNKNOWN_DATE
    """Release date; the epoch when unknown."""
    lifecycle: Literal["active", "deprecated", "retired"] = "active"
    max_input_tokens: Tokens | None = None
    """Context window, tokens."""
    max_tokens: Tokens | None = None
    """Longest answer, tokens."""
    capabilities: ModelCapabilities | None = None
    line: Literal["haiku", "sonnet", "opus", "fable", "mythos"] | None = None
    """Anthropic's model line, such as `opus`; None for other vendors."""
    deprecated_at: Moment | None = None
    retires_at: Moment | None = None
    runtime: str
    """The runtime that listed the model, such as `cursor`."""
    raw: Any = Field(default=None, repr=False)
    """The item as the runtime sent it: an object, or a string where it sends strings."""

    @classmethod
    def read(cls, fields: Mapping[str, Any], *, runtime: str, raw: Any) -> Self | None:
        """Build from foreign data: a field of a wrong type counts as absent, so that one odd number
        does not hide a usable model. None when there is no usable id.
        """
        values = {**fields, "runtime": runtime, "raw": raw}
        while True:
            try:
                return cls.model_validate(values)
            except ValidationError as error:
                wrong = {problem["loc"][0] for problem in error.errors(include_url=False)}
                if "id" in wrong:
                    return None
                values = {name: value for name, value in values.items() if name not in wrong}


class ModelPage(BaseModel):
    """The Anthropic list: all models of one runtime, in the runtime's own order.

    The SDK walks all pages itself, so `has_more` is True only when the bound `RequestPolicy.max_pages`
    was reached. Iterating yields the models.
    """

    model_config = ConfigDict(frozen=True)

    data: tuple[ModelInfo, ...]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None
    runtime: str

    def __iter__(self) -> Iterator[ModelInfo]:  # type: ignore[override]  # as the official SDK's pages
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class AllModels:
    """The answer of `list_all()`: what each runtime said, failures apart from successes."""

    pages: Mapping[str, ModelPage] = field(default_factory=dict)
    """Runtime -> its list."""
    errors: Mapping[str, ModelsError] = field(default_factory=dict)
    """Runtime -> why its list could not be had."""
    unconfigured: Mapping[str, MissingKeyError] = field(default_factory=dict)
    """Runtime -> what to set; these were not asked."""

    @property
    def data(self) -> tuple[ModelInfo, ...]:
        """The models of all runtimes that answered; each knows its `runtime`."""
        return tuple(model for page in self.pages.values() for model in page)
