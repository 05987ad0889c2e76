"""Every method and parameter of the official SDK's managed agents API, found by looking at the SDK itself.

A method's parameters are taken apart down to single fields: a union has a case for each of its kinds, an
object one for each optional field. Each case is a whole call, so that a server can be asked what it makes of
it. What a newer SDK adds appears here by itself.
"""

from __future__ import annotations

import datetime
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from typing_extensions import is_typeddict

HELPERS = frozenset({"tool_runner", "poller", "worker"})
"""Loops of the SDK itself, made of calls to other methods."""
NOT_OURS = frozenset({"self", "extra_headers", "extra_query", "extra_body", "timeout"})
HEADERS = frozenset({"betas", "workspace_id"})
"""Parameters of every method, sent as headers."""

_MANY = 6
"""Of a choice between more values than this the first one stands for all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call of `method` (`agents.create`), to see what becomes of the field at `path` (`tools[]`)."""

    method: str
    path: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    value: Any
    """What the field is given."""

    @property
    def name(self) -> str:
        """Return method and path."""
        return f"{self.method}({self.path})"


Samples = Callable[[str, str], Any]
"""Returns a value for a plain field: (method, path) -> value; None for the default one of its type."""


def methods(resource: Any, name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the methods of an SDK resource and of those below it, with their dotted names."""
    for key, member in inspect.getmembers(type(resource)):
        if key.startswith(("_", "with_")):
            continue
        if isinstance(member, property) or type(member).__name__ == "cached_property":
            yield from methods(getattr(resource, key), f"{name}.{key}")
        elif inspect.isfunction(member) and key not in HELPERS:
            yield f"{name}.{key}", getattr(resource, key)


def cases(method: str, call: Callable[..., Any], samples: Samples) -> Iterator[Case]:
    """Yield the calls for one method: with what it requires only, and one for each further field."""
    parameters = inspect.signature(call).parameters
    names = [n for n in parameters if n not in NOT_OURS | HEADERS]
    hints = _hints(call, names)
    required: dict[str, Any] = {}
    optional: list[str] = []
    for name in names:
        is_optional = parameters[name].default is not inspect.Parameter.empty
        if is_optional and not _is_path_part(method, name):
            optional.append(name)
        else:
            required[name] = next(_values(hints[name], method, name, samples))[1]
    yield Case(method, "", call, required, None)
    for name in [*required, *optional]:
        found = list(_values(hints[name], method, name, samples))
        for place, (suffix, value) in enumerate(found):
            if any(value == later and suffix == "" for _, later in found[place + 1 :]):
                continue  # the first kind of a union, which comes again by its name
            if suffix or name in optional:
                yield Case(method, name + suffix, call, {**required, name: value}, value)


def _hints(call: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    function: Any = inspect.unwrap(call)
    function = getattr(function, "__func__", function)
    wanted = types.SimpleNamespace(__annotations__={n: function.__annotations__[n] for n in names})
    return get_type_hints(wanted, function.__globals__, include_extras=True)


def _is_path_part(method: str, name: str) -> bool:
    return name in {"session_id", "vault_id"} and not method.endswith(f".{name}")


def _values(hint: Any, method: str, path: str, samples: Samples) -> Iterator[tuple[str, Any]]:
    """Yield (suffix of the path, value) for a type, the plainest first."""
    hint = _bare(hint)
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        yield from _kinds(hint, method, path, samples)
    elif is_typeddict(hint):
        yield from _objects(hint, method, path, samples)
    elif origin is Literal:
        choices = get_args(hint)
        if len(choices) > _MANY and (given := samples(method, path)) is not None:
            yield "", given
            return
        shown = choices if 1 < len(choices) <= _MANY else choices[:1]
        yield "", choices[0]
        yield from ((f"={choice}", choice) for choice in shown if len(choices) > 1)
    elif origin is dict:
        yield "", {"key": "value"}
    elif origin is not None and get_args(hint):
        (item, *_) = get_args(hint)
        for suffix, value in _values(item, method, f"{path}[]", samples):
            yield f"[]{suffix}" if suffix else "", [value]
    else:
        given = samples(method, path)
        yield "", given if given is not None else _plain(hint)


def _plain(hint: Any) -> Any:
    defaults: dict[Any, Any] = {
        bool: True,
        int: 7,
        float: 7.0,
        datetime.datetime: "2026-01-01T00:00:00Z",
    }
    return defaults.get(hint, "a text")


def _kinds(hint: Any, method: str, path: str, samples: Samples) -> Iterator[tuple[str, Any]]:
    members = [m for m in get_args(hint) if not _is_nothing(m)]
    flat: list[Any] = []
    for member in map(_bare, members):
        nested = get_origin(member) in {Union, types.UnionType}
        flat += [m for m in get_args(member) if not _is_nothing(m)] if nested else [member]
    if len(flat) == 1 or not any(is_typeddict(_bare(m)) for m in flat):
        yield from _values(flat[0], method, path, samples)
        return
    given = samples(method, path)
    if isinstance(given, dict):
        yield "", given
    is_first = given is None
    for member in map(_bare, flat):
        label = f".{_label(member)}" if is_typeddict(member) else ""
        for suffix, value in _values(member, method, path + label, samples):
            if is_first:
                yield "", value
                is_first = False
            if label or suffix:
                yield label + suffix, value


def _objects(hint: Any, method: str, path: str, samples: Samples) -> Iterator[tuple[str, Any]]:
    fields = get_type_hints(hint, include_extras=True)
    # Not `__required_keys__`: annotations that are texts hide their Required from it.
    required = {
        name
        for name, field in fields.items()
        if get_origin(field) is Required
        or (hint.__total__ and get_origin(field) is not NotRequired)
    }
    whole = {}
    for name in sorted(required):
        whole[name] = next(_values(fields[name], method, f"{path}.{name}", samples))[1]
    yield "", whole
    for name, field in fields.items():
        if name in {"type", "name"} and len(get_args(_bare(field))) == 1:
            continue  # which kind it is: it is sent, or it is in the path
        for suffix, value in _values(field, method, f"{path}.{name}", samples):
            if suffix or name not in required:
                yield f".{name}{suffix}", {**whole, name: value}


def _label(member: Any) -> str:
    hints = get_type_hints(member, include_extras=True)
    for name in ("type", "name"):
        literal = _bare(hints[name]) if name in hints else None
        if get_origin(literal) is Literal and len(get_args(literal)) == 1:
            return str(get_args(literal)[0])
    return str(member.__name__)


def _bare(hint: Any) -> Any:
    while get_origin(hint) in {Annotated, Required, NotRequired}:
        hint = get_args(hint)[0]
    if get_origin(hint) in {Union, types.UnionType}:
        members = [m for m in get_args(hint) if not _is_nothing(m)]
        if len(members) == 1:
            return _bare(members[0])
    return hint


def _is_nothing(member: Any) -> bool:
    return member is type(None) or getattr(member, "__name__", "") in {"Omit", "NotGiven"}
