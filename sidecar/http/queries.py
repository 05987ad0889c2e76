"""Models of query strings, and the one way in which fields are validated; each refusal names the field."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import core_schema

from sidecar.errors import InvalidRequestError
from sidecar.managed.common import timestamps
from sidecar.managed.common.pagination import MAX_PAGE_CHARS, Order, Query
from sidecar.wire.agents import MODEL_REQUIRED
from sidecar.wire.fields import FIELD_CODES
from sidecar.wire.problems import Problem, problems_of

M = TypeVar("M", bound=BaseModel)
Q = TypeVar("Q", bound="QueryModel")

MAX_VALUES = 100
"""Of one list parameter."""

LIST_BYTES = web.AppKey("list_bytes", int)
"""Where a page of a list ends: `SIDECAR_HTTP_LIST_BYTES`."""
_INTEGER = re.compile(r"-?[0-9]{1,18}")


class QueryModel(BaseModel):
    """Base of the models of query strings. A field is a parameter; a default is what its absence means.

    A list is sent as the official SDKs do, `name[]=a&name[]=b`, or plainly as `name=a`; the alias of its
    field is `name[]`. Unknown parameters are ignored, as unknown fields of a body are.
    """

    model_config = ConfigDict(extra="ignore", defer_build=True, frozen=True)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """Read the query string as `model`. Raises InvalidRequestError."""
    query = _read(request, model)
    if isinstance(query, ListQuery):
        query.end_at(request.config_dict.get(LIST_BYTES, MAX_PAGE_CHARS))
    return query


def _read(request: web.Request, model: type[Q]) -> Q:
    given = request.query
    if not given:
        return model()
    values: dict[str, Any] = {}
    for field, info in model.model_fields.items():
        name = info.alias or field
        if name.endswith("[]"):
            values[name] = [*given.getall(name, []), *given.getall(name[:-2], [])]
        elif name in given:
            values[name] = given[name]
    return parse(model, values)


class _ReadText(ABC):
    """Marks a type of parameter that is read from text in one step."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """Return the value. Raises ValueError."""

    @abstractmethod
    def shown(self) -> dict[str, Any]:
        """Return its JSON schema."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return self.shown()


@dataclass(frozen=True, slots=True)
class WholeNumber(_ReadText):
    """`Annotated[int, WholeNumber(low, high)]`: an integer in [low, high]."""

    low: int
    high: int

    def read(self, text: str) -> int:
        """Return the number. Raises ValueError."""
        if not _INTEGER.fullmatch(text) or not self.low <= int(text) <= self.high:
            raise ValueError(
                f"must be an integer from {self.low} to {self.high}, got {shorten(text)!r}"
            )
        return int(text)

    def shown(self) -> dict[str, Any]:
        """Return its JSON schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class OneOf(_ReadText):
    """`Annotated[str, OneOf(("asc", "desc"))]`: one of these values."""

    values: tuple[str, ...]
    name: str = ""
    """What they are, for where they are too many to be named in a message."""

    def read(self, text: str) -> str:
        """Return the value. Raises ValueError."""
        if text not in self.values:
            known = f"not {self.name}" if self.name else f"none of {', '.join(self.values)}"
            raise ValueError(f"{shorten(text)!r} is {known}")
        return text

    def shown(self) -> dict[str, Any]:
        """Return its JSON schema."""
        return {"type": "string", "enum": list(self.values)}


def _read_flag(text: Any) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("must be true or false")
    return bool(text.lower() == "true")


def _read_order(text: Any) -> Any:
    if text not in {"asc", "desc"}:
        raise ValueError("must be asc or desc")
    return text


def _read_time(text: Any) -> int:
    try:
        return timestamps.parse_rfc3339(text, field="")
    except InvalidRequestError as error:
        raise ValueError(error.message.removeprefix(": ")) from error


Limit = Annotated[int, WholeNumber(1, 100)]
LargeLimit = Annotated[int, WholeNumber(1, 1000)]
AgentVersion = Annotated[int, WholeNumber(1, 2**31 - 1)]
Flag = Annotated[bool, BeforeValidator(_read_flag), WithJsonSchema({"type": "boolean"})]
OrderParameter = Annotated[Literal["asc", "desc"], BeforeValidator(_read_order)]
Moment = Annotated[
    int, BeforeValidator(_read_time), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""An RFC 3339 time, read as microseconds since the epoch."""


class CreatedAtBounds(QueryModel):
    """Bounds of a time; those of events are on `processed_at`."""

    gt: Moment | None = Field(None, alias="created_at[gt]", description="later than this")
    gte: Moment | None = Field(None, alias="created_at[gte]", description="not before this")
    lt: Moment | None = Field(None, alias="created_at[lt]", description="before this")
    lte: Moment | None = Field(None, alias="created_at[lte]", description="not after this")

    def bounds(self) -> list[tuple[str, int]]:
        """Return (SQL operator, microseconds) of each."""
        pairs = ((">", self.gt), (">=", self.gte), ("<", self.lt), ("<=", self.lte))
        return [(operator, moment) for operator, moment in pairs if moment is not None]

    def narrow(self, query: Query) -> None:
        """Add the bounds to a list query."""
        for operator, microseconds in self.bounds():
            query.where(f"created_at {operator} ?", timestamps.rfc3339(microseconds))


class ListQuery(QueryModel):
    """What every list of resources takes."""

    limit: Limit = Field(20, description="the most items of a page")
    page: str | None = Field(None, description="`next_page` or `prev_page` of an earlier answer")

    _max_chars: int = PrivateAttr(MAX_PAGE_CHARS)

    def end_at(self, max_chars: int) -> None:
        """Bound the page's size."""
        self._max_chars = max_chars

    def paging(self, order: Order = "desc") -> Query:
        """Return the list query."""
        return Query(
            select="", limit=self.limit, max_chars=self._max_chars, order=order, page=self.page
        )


class LargeListQuery(ListQuery):
    """The same of lists whose pages may be ten times as long."""

    limit: LargeLimit = Field(20, description="the most items of a page")


def parse(model: type[M], value: Any) -> M:
    """Validate with pydantic; the first problems become one sentence that names the fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        message, field, code = _explain(error, value)
        raise InvalidRequestError(message, field=field, error_code=code) from error


def _explain(error: ValidationError, value: Any) -> tuple[str, str | None, str | None]:
    """Return a sentence, and field and `error_code` of the first problem."""
    problems = problems_of(error, value)
    # What else such an object has, or lacks, is of no interest.
    problems = [p for p in problems if _is_of_another_kind(p)] or problems
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    first = problems[0]
    field = str(first.path[0]) if first.path else None
    code = first.type if first.type == MODEL_REQUIRED else FIELD_CODES.get(field or "")
    return "; ".join(str(problem) for problem in problems[:3]) + more, field, code


def _is_of_another_kind(problem: Problem) -> bool:
    return problem.type == "literal_error" and problem.path[-1:] == ("type",)


def shorten(text: str) -> str:
    """Return the text, cut to what an error message may repeat of it."""
    return text if len(text) <= 80 else f"{text[:77]}..."
