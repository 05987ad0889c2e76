"""What is wrong with JSON that a model refused, in JSON's words and with JSON's paths.

pydantic's own messages speak of Python (`NoneType`, "a valid dictionary"), and its paths hold the tags of
unions, which no client has sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails, core_schema

_SHOWN_CHARS = 80
_NOTHING = object()
_OWN_TYPES = frozenset(get_args(core_schema.ErrorType))

_TEXTS: Mapping[str, str] = {
    **dict.fromkeys(("string_type", "bytes_type", "string_sub_type"), "must be a string"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be an integer"),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type"), "must be a number"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type"), "must be an array"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "must be an object"),
    **dict.fromkeys(("model_attributes_type", "dataclass_type"), "must be an object"),
    "finite_number": "must be a finite number",
    "int_parsing_size": "has too many digits",
    "missing": "is required",
    "none_required": "must be null or left out",
    "string_unicode": "must be valid Unicode text",
    "extra_forbidden": "is not an option of this sidecar; check its spelling, or leave it out",
    "literal_error": "is not offered by this sidecar; it takes {expected}",
    "enum": "is not offered by this sidecar; it takes {expected}",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "json_invalid": "is not JSON: {error}",
    "url_parsing": "must be a URL: {error}",
    "value_error": "{error}",
    "assertion_error": "{error}",
}
"""pydantic's type of an error -> what to say, with the error's context."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `type` is pydantic's, or the one that a validator gave."""

    path: tuple[str | int, ...]
    text: str
    type: str

    def __str__(self) -> str:
        """Return the path, if any, and what is wrong there."""
        where = ".".join(str(step) for step in self.path)
        return f"{where}: {self.text}" if where else self.text


def kind_of(value: object) -> str:
    """Return what JSON calls the kind of a value, with its article."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")


def problems_of(error: ValidationError, value: Any = None) -> list[Problem]:
    """Return what is wrong with `value`, in pydantic's order.

    Without the value, paths may hold the tags of unions.
    """
    return [
        Problem(_path(each["loc"], value, each["type"]), _text(each), each["type"])
        for each in error.errors(include_url=False)
    ]


def _path(loc: tuple[str | int, ...], value: Any, kind: str) -> tuple[str | int, ...]:
    """Return the steps that the client's JSON has; a field that is missing is the last one."""
    if value is None:
        return loc
    path: list[str | int] = []
    for step in loc:
        inside = _inside(value, step)
        # Else it is the tag of a union, or a step into what a validator made of a short form.
        if inside is not _NOTHING or (kind == "missing" and step is loc[-1]):
            path.append(step)
            value = inside
    return tuple(path)


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(step, _NOTHING)
    is_place = isinstance(value, list) and isinstance(step, int) and step < len(value)
    return value[step] if is_place and isinstance(step, int) else _NOTHING


def _text(problem: ErrorDetails) -> str:
    context = problem.get("ctx") or {}
    kind = problem["type"]
    match kind:
        case "union_tag_invalid":
            name = context["discriminator"].strip("'")
            tag = problem["input"].get(name) if isinstance(problem["input"], dict) else None
            expected = context["expected_tags"]
            return f"{name} {shown(tag)} is not offered by this sidecar; it takes {expected}"
        case "union_tag_not_found":
            return f"must be an object with a {context['discriminator']}"
        case "string_too_short" | "too_short" if context["min_length"] == 1:
            return "must not be empty"
    text = _TEXTS.get(kind)
    if text is not None:
        return text.format_map(context)
    return "is not valid" if kind in _OWN_TYPES else problem["msg"]


def shown(value: Any) -> str:
    """Return a value as a message may repeat it: as JSON, cut, a string in single quotes."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."
