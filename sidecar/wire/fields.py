"""What request bodies of the Managed Agents API have in common: their base, and fields of several of them.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits. Unknown fields are
ignored, so that a newer client can talk to an older sidecar; known fields are checked strictly. Whether a
field was sent at all (omitted keeps, null clears) is read from `model_fields_set`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

MAX_METADATA_PAIRS = 16

FIELD_CODES = {"metadata": "invalid_metadata"}
"""Field -> Anthropic's `error_code` for whatever is wrong with it."""

_T = TypeVar("_T")
Items = Annotated[list[_T], Field(fail_fast=True)]
"""A list in a request. It ends at its first wrong item: a million wrong ones would each become an error,
and three errors are shown. Its length, where it has a bound, is checked before the items are."""


class Body(BaseModel):
    """Base of all request bodies: strict types, unknown fields ignored.

    Validators are built at the first use: building them all would be a tenth of the start.
    """

    model_config = ConfigDict(extra="ignore", strict=True, defer_build=True)


def refused(reason: str) -> BeforeValidator:
    """Return the validator of a field that only null may be given to."""

    def check(value: Any) -> None:
        if value is not None:
            raise ValueError(reason)

    return BeforeValidator(check)


def left_out(value: Any) -> Any:
    """Return the value, and None in the place of `{}`."""
    return None if value == {} else value


LeftOut = BeforeValidator(left_out)
"""`{}` means that the field was left out, as clients send it that fill in every field."""


def or_default(default: Any) -> BeforeValidator:
    """Return the validator that puts the default in the place of null."""
    return BeforeValidator(lambda value: default if value is None else value)


def check_token(value: str) -> str:
    """Return the token. A header carries it: raises ValueError unless it is one line of printable ASCII."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError("must be printable ASCII on one line, without spaces around it")
    return value


def _few(most: int) -> BeforeValidator:
    """Return the validator that refuses an object with too many pairs before looking at any."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise ValueError(f"at most {MAX_METADATA_PAIRS} pairs")
        return value

    return BeforeValidator(check)


def _check_metadata(value: dict[str, str | None]) -> dict[str, str | None]:
    for key, item in value.items():
        if not 1 <= len(key) <= 64:
            raise ValueError(f"key {key[:70]!r} must have 1 to 64 characters")
        if item is not None and len(item) > 512:
            raise ValueError(f"value of {key!r} must have at most 512 characters")
    return value


def _check_whole(value: dict[str, str | None]) -> dict[str, str | None]:
    for key, item in value.items():
        if item is None:
            raise ValueError(f"value of {key!r} must be a string")
    return value


def _pairs_schema(value: dict[str, Any]) -> WithJsonSchema:
    """Return what the checks above say, for the API's description."""
    return WithJsonSchema(
        {
            "type": "object",
            "additionalProperties": {**value, "maxLength": 512},
            "propertyNames": {"minLength": 1, "maxLength": 64},
        }
    )


_Pairs = Annotated[dict[str, str | None], AfterValidator(_check_metadata)]
MetadataPatch = Annotated[
    _Pairs, _few(2 * MAX_METADATA_PAIRS), _pairs_schema({"type": ["string", "null"]})
]
"""Metadata of an update: a null value deletes the key. It can delete as many pairs as there may be, and set
as many; how many there are then is checked on the result."""
Metadata = Annotated[
    _Pairs,
    AfterValidator(_check_whole),
    _few(MAX_METADATA_PAIRS),
    _pairs_schema({"type": "string"}),
]

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Description = Annotated[str, StringConstraints(max_length=2048)]
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
