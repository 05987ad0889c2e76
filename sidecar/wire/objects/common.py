"""What all answers share: times, pages, errors."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

T = TypeVar("T")

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 with microseconds and `Z`."""
AnyObject = dict[str, Any]


class Page(TypedDict, Generic[T]):
    """A page of a list; `next_page` is null at the end."""

    data: list[T]
    next_page: str | None


class PageBothWays(Page[T], Generic[T]):
    """A page with a link to the one before it."""

    prev_page: str | None


class ErrorDetails(TypedDict):
    """By this programs distinguish errors of one type."""

    error_code: str


class ErrorBody(TypedDict):
    """`message` names the field and the fix."""

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "conflict_error",
        "timeout_error",
        "request_too_large",
        "rate_limit_error",
        "overloaded_error",
        "api_error",
    ]
    message: Annotated[str, Field(min_length=1)]
    details: NotRequired[ErrorDetails]


RequestId = Annotated[str, Field(pattern="^req_")]


class ErrorEnvelope(TypedDict):
    """Every error of the API. `request_id` is also in the header `request-id` and in the sidecar's log."""

    type: Literal["error"]
    error: ErrorBody
    request_id: RequestId


class NativeErrorData(TypedDict):
    """What opencode's own clients show."""

    message: str


class NativeErrorEnvelope(ErrorEnvelope):
    """An error on a route of opencode's own API; `name` and `data` are what its clients read."""

    name: str
    data: NativeErrorData
