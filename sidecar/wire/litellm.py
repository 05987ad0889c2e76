"""What LiteLLM says about its models, read item by item: an odd field or item costs only itself.

Shapes measured on LiteLLM 1.106.2: `GET /v1/models` (OpenAI's, or Anthropic's page), LAP's variant of it,
`GET /model_group/info`, `GET /v1/model/info`. Numbers and flags are read by `sidecar.wire.scalars`; unknown
fields are ignored. What cannot be read is reported as a `Skip`, so that an operator can see why a limit or a
model is missing.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo

from sidecar.wire.model_bounds import MAX_NAME_CHARS, MAX_TOKENS, MAX_USD_PER_TOKEN
from sidecar.wire.problems import kind_of, problems_of
from sidecar.wire.scalars import read_flag, read_number

LITELLM_CREATED = 1677610602
"""LiteLLM answers this constant for every model, so it says nothing."""

PLACEHOLDERS = frozenset({"all-team-models", "no-default-models", "all-proxy-models"})
"""What LiteLLM lists for a key's or a team's permissions; none of them is a model."""

_FIRST_MILLISECONDS = 1e11
"""As seconds it is the year 5138, as milliseconds 1973: from here on a moment is in milliseconds."""
_SHOWN_CHARS = 80
_NAMED_SKIPS = 200
"""How many skips of one list are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Skip:
    """One thing of a list that was not used.

    `item` names the model, or its place in the list; `field` is empty when the whole item was skipped.
    """

    item: str
    field: str
    reason: str


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Listing(Generic[M]):
    """The readable items of a list answer, how much was skipped in it, and the first of that by name."""

    items: list[M]
    skipped: tuple[Skip, ...] = ()
    skipped_count: int = 0
    next_cursor: str | None = None
    """Where the next page begins (`after_id`), None on the last one."""


def _odd(value: object, wanted: str) -> ValueError:
    shown = json.dumps(value) if isinstance(value, (str, int, float)) else kind_of(value)
    cut = shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}..."
    return ValueError(f"{cut} is not {wanted}")


def _number(value: object, wanted: str) -> int | float:
    number = read_number(value)
    if number is None:
        raise _odd(value, wanted)
    return number


def _count(value: object) -> int | None:
    """Whole tokens; zero and less, which some gateways send for "unknown", count as not sent."""
    number = _number(value, "a number of tokens")
    if number > MAX_TOKENS:
        raise _odd(value, f"a number of tokens up to {MAX_TOKENS}")
    return int(number) if number >= 1 else None


def _price(value: object) -> float | None:
    number = _number(value, "a price")
    if not 0 <= number <= MAX_USD_PER_TOKEN:
        raise _odd(value, f"a price between 0 and {MAX_USD_PER_TOKEN:g}")
    return number


def _flag(value: object) -> bool | None:
    flag = read_flag(value)
    if flag is None:
        raise _odd(value, "true or false")
    return flag


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        raise _odd(value, "a text")
    if len(value) > MAX_NAME_CHARS:
        raise _odd(value, f"a text of up to {MAX_NAME_CHARS} characters")
    return value or None


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        raise _odd(value, "a list of texts")
    return [v for v in value if isinstance(v, str)]


def _created_at(value: object) -> str | None:
    """RFC 3339 in UTC from what a list says: a date, or seconds or milliseconds since the epoch.

    The epoch and what lies before it (Go's zero time is 0001-01-01) say that the date is not known.
    """
    moment = _moment(value)
    if moment is None or moment.timestamp() in {0, LITELLM_CREATED} or moment.year < 1970:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(value: object) -> datetime | None:
    try:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # before numbers: 20250801 is a date
                moment = datetime.fromisoformat(value.strip())
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        if (number := read_number(value)) is not None:
            seconds = number / 1000 if number >= _FIRST_MILLISECONDS else number
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise _odd(value, "a date")


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _odd(value, "an object")
    return value


def _lenient(read: Callable[[object], Any], *, default: Callable[[], Any] = lambda: None) -> Any:
    """Return the validator of one field: what `read` refuses is noted, and counts as not sent."""

    def validate(value: object, info: ValidationInfo) -> object:
        if value is None:
            return default()
        try:
            return read(value)
        except ValueError as error:
            if isinstance(info.context, list):
                info.context.append((info.field_name or "", str(error)))
            return default()

    return BeforeValidator(validate)


Count = Annotated[int | None, _lenient(_count)]
Price = Annotated[float | None, _lenient(_price)]
Flag = Annotated[bool | None, _lenient(_flag)]
Text = Annotated[str | None, _lenient(_text)]
Texts = Annotated[list[str] | None, _lenient(_texts)]
Created = Annotated[str | None, _lenient(_created_at)]
Id = Annotated[str, Field(min_length=1)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Facts(_Wire):
    """What any source may say of a model; None is unknown. Costs are USD per token."""

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

    id: Id
    created: Created = None
    created_at: Created = None
    display_name: Text = None


class ModelGroup(Facts):
    """An item of `GET /model_group/info`: one public name."""

    model_group: Id


class DeploymentTarget(_Wire):
    """Where a deployment leads: `model` is LiteLLM's own `provider/model`, or names the model alone."""

    model: Text = None
    custom_llm_provider: Text = None


class DeploymentFacts(Facts):
    """`model_info` of a deployment. A team's deployment is listed under `team_public_model_name`."""

    litellm_provider: Text = None
    team_public_model_name: Text = None


class Deployment(_Wire):
    """An item of `GET /v1/model/info`: one of the deployments behind a public name."""

    model_name: Id
    litellm_params: Annotated[DeploymentTarget, _lenient(_mapping, default=DeploymentTarget)] = (
        DeploymentTarget()
    )
    model_info: Annotated[DeploymentFacts, _lenient(_mapping, default=DeploymentFacts)] = (
        DeploymentFacts()
    )

    @property
    def names(self) -> set[str]:
        """The public names under which `GET /v1/models` may list it."""
        public = self.model_info.team_public_model_name
        return {self.model_name, public} if public else {self.model_name}

    @property
    def provider(self) -> str | None:
        """LiteLLM's name of the provider, as far as the item says it."""
        named, slash, _ = (self.litellm_params.model or "").partition("/")
        return (
            self.litellm_params.custom_llm_provider
            or (named if slash else None)
            or self.model_info.litellm_provider
        )


def items_of(body: Any) -> list[Any] | None:
    """Return the items of a list answer: an array alone is one, too, and small gateways call it `models`."""
    if isinstance(body, list):
        return body
    if not isinstance(body, dict):
        return None
    return next((body[k] for k in ("data", "models") if isinstance(body.get(k), list)), None)


def read_items(kind: type[M], body: Any) -> Listing[M] | None:
    """Return the readable items of a list answer, None when it is not a list at all."""
    items = items_of(body)
    if items is None:
        return None
    read: list[M] = []
    skipped: list[Skip] = []
    for place, item in enumerate(items):
        value = {"id": item} if isinstance(item, str) else item
        odd_fields: list[tuple[str, str]] = []
        try:
            model = kind.model_validate(value, context=odd_fields)
        except ValidationError as error:
            first = problems_of(error)[0]
            skipped.append(Skip(f"item {place}", "", str(first)))
            continue
        read.append(model)
        skipped += (Skip(_name_of(value, place), *odd) for odd in odd_fields)
    return Listing(read, tuple(skipped[:_NAMED_SKIPS]), len(skipped), _next_cursor(body))


def joined(pages: Sequence[Listing[M]]) -> Listing[M]:
    """Return the pages of a list as one."""
    if len(pages) == 1:
        return pages[0]
    skipped = [skip for page in pages for skip in page.skipped]
    return Listing(
        [item for page in pages for item in page.items],
        tuple(skipped[:_NAMED_SKIPS]),
        sum(page.skipped_count for page in pages),
    )


def _next_cursor(body: Any) -> str | None:
    """Anthropic's page: `{"has_more": true, "last_id": ...}`."""
    if not isinstance(body, dict) or read_flag(body.get("has_more")) is not True:
        return None
    cursor = body.get("last_id")
    return cursor if isinstance(cursor, str) and cursor else None


def _name_of(item: Any, place: int) -> str:
    names = (item.get(key) for key in ("id", "model_group", "model_name"))
    return next((n[:_SHOWN_CHARS] for n in names if isinstance(n, str)), f"item {place}")
