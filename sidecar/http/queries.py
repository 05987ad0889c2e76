"""Parsing of paths, query strings and bodies that all handlers share; each refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sidecar.errors import InvalidRequestError, NotFoundError
from sidecar.ids import Prefix, is_id
from sidecar.managed.common import timestamps
from sidecar.managed.common.pagination import Order, Query
from sidecar.wire.managed import FIELD_CODES, MODEL_REQUIRED

M = TypeVar("M", bound=BaseModel)

_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_INTEGER = re.compile(r"-?[0-9]{1,18}")


def parse(model: type[M], value: Any) -> M:
    """Validate with pydantic; the first problems become one sentence that names the fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        message, field, code = _explain(error)
        raise InvalidRequestError(message, field=field, error_code=code) from error


def path_id(request: web.Request, prefix: Prefix, kind: str, *, name: str = "id") -> str:
    """Return the id from the path; a malformed one is simply not found and never reaches SQL."""
    value = request.match_info[name]
    if not is_id(value, prefix):
        raise NotFoundError(f"{kind} {_shorten(value)!r} does not exist")
    return value


def query_int(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    """Return an integer query parameter in [low, high]. Raises InvalidRequestError."""
    text = request.query.get(name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidRequestError(
            f"{name}: must be an integer from {low} to {high}, got {_shorten(text)!r}", field=name
        )
    return int(text)


def query_version(request: web.Request, name: str) -> int | None:
    """Return an agent's version from the query, None when absent. Raises InvalidRequestError."""
    if name not in request.query:
        return None
    return query_int(request, name, default=1, low=1, high=2**31 - 1)


def query_bool(request: web.Request, name: str, *, default: bool = False) -> bool:
    """Return a `true`/`false` query parameter. Raises InvalidRequestError."""
    text = request.query.get(name)
    if text is None:
        return default
    if text.lower() not in {"true", "false"}:
        raise InvalidRequestError(f"{name}: must be true or false", field=name)
    return text.lower() == "true"


def query_list(request: web.Request, name: str) -> list[str]:
    """Return a list parameter in the SDKs' bracket form `name[]=a&name[]=b` (or plain `name=a`)."""
    return [*request.query.getall(f"{name}[]", []), *request.query.getall(name, [])]


def _explain(error: ValidationError) -> tuple[str, str | None, str | None]:
    """Return a sentence, and field and `error_code` of the first problem."""
    problems = error.errors(include_input=False, include_url=False)
    # What else such an object has, or lacks, is of no interest.
    problems = [p for p in problems if _is_of_another_kind(p)] or problems
    sentences = []
    for problem in problems[:3]:
        where = ".".join(str(part) for part in problem["loc"])
        text = _without_jargon(problem)
        sentences.append(f"{where}: {text}" if where else text)
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    first = problems[0]
    field = str(first["loc"][0]) if first["loc"] else None
    code = first["type"] if first["type"] == MODEL_REQUIRED else FIELD_CODES.get(field or "")
    return "; ".join(sentences) + more, field, code


def _is_of_another_kind(problem: Mapping[str, Any]) -> bool:
    return bool(problem["type"] == "literal_error" and problem["loc"][-1:] == ("type",))


def _without_jargon(problem: Mapping[str, Any]) -> str:
    """Return what is wrong, in the words of the API where pydantic's are its own."""
    context = problem.get("ctx") or {}
    match problem["type"]:
        case "union_tag_invalid":
            name, tag = context["discriminator"].strip("'"), context["tag"][:80]
            return f"{name} {tag!r} is not offered by this sidecar; it takes {context['expected_tags']}"
        case "union_tag_not_found":
            return f"must be an object with a {context['discriminator']}"
        case "literal_error":
            return f"is not offered by this sidecar; it takes {context['expected']}"
        case "extra_forbidden":
            return "is not an option of this sidecar; check its spelling, or leave it out"
        case "model_type" | "model_attributes_type":
            return "must be an object"
    return str(problem["msg"]).removeprefix("Value error, ")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def order_of(request: web.Request, *, default: Order) -> Order:
    """Return the `order` parameter. Raises InvalidRequestError."""
    text = request.query.get("order", default)
    if text == "asc":
        return "asc"
    if text == "desc":
        return "desc"
    raise InvalidRequestError("order: must be asc or desc", field="order")


def page_query(request: web.Request, *, highest: int, order: Order = "desc") -> Query:
    """Return a list query from `limit` (default 20) and `page`."""
    limit = query_int(request, "limit", default=20, low=1, high=highest)
    return Query(select="", limit=limit, order=order, page=request.query.get("page"))


def date_bounds(request: web.Request, name: str) -> list[tuple[str, int]]:
    """Return (SQL operator, microseconds) for each `name[gt|gte|lt|lte]` parameter."""
    return [
        (operator, timestamps.parse_rfc3339(text, field=f"{name}[{suffix}]"))
        for suffix, operator in _COMPARISONS.items()
        for text in request.query.getall(f"{name}[{suffix}]", [])
    ]


def created_at_filters(request: web.Request, query: Query) -> None:
    """Add the `created_at[...]` bounds to a list query."""
    for operator, microseconds in date_bounds(request, "created_at"):
        query.where(f"created_at {operator} ?", timestamps.rfc3339(microseconds))
