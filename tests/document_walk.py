"""Every field of a request body that the OpenAPI document describes, each in a body that is right without it.

A union has a body for each of its kinds, a list one with one item, an object one for each of its fields. What
a later version of the document adds appears here by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
Samples = Callable[[Path], Any]
"""Returns a right value for a plain field, None for the default one of its type."""

_MARK = "\N{REPLACEMENT CHARACTER}here"


@dataclass(frozen=True, slots=True)
class Field:
    """A field at `path`, and a body that has it."""

    path: Path
    body: Any
    kind: str
    """The kind of the object that has it, and its name there."""

    @property
    def value(self) -> Any:
        """Return what the body has there."""
        value = self.body
        for step in self.path:
            value = value[step]
        return value

    @property
    def name(self) -> str:
        """Return the path as error messages write it."""
        return ".".join(map(str, self.path))

    def body_with(self, value: str) -> str:
        """Return the body as JSON text, with this JSON text in the field's place."""
        return json.dumps(_replaced(self.body, self.path, _MARK)).replace(json.dumps(_MARK), value)


class Walk:
    """Walks the schemas of one document."""

    def __init__(self, document: dict[str, Any], samples: Samples) -> None:
        self._document = document
        self._samples = samples

    def fields(self, schema: dict[str, Any]) -> list[Field]:
        """Return the fields below a body's schema, each once in each kind of object that has it."""
        found: dict[tuple[Path, str], Field] = {}
        for path, body in self._bodies(schema, ()):
            if path:
                kinds = _kinds(body, path)
                field = Field(path, body, "/".join(kinds[-2:]))
                found.setdefault((path, "/".join(kinds)), field)
        return list(found.values())

    def example(self, schema: dict[str, Any], path: Path = ()) -> Any:
        """Return a value with what is required only."""
        return next(self._bodies(schema, path))[1]

    def _bodies(self, schema: dict[str, Any], at: Path) -> Iterator[tuple[Path, Any]]:
        """Yield (path below here, value that has it), the plainest first with an empty path."""
        schema = self._resolved(schema)
        kinds = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if kinds:
            real = [kind for kind in kinds if self._resolved(kind).get("type") != "null"]
            sample = self._samples(at)
            if sample is not None:
                yield (), sample
            for kind in real:
                yield from self._bodies(kind, at)
        elif "properties" in schema:
            yield from self._objects(schema, at)
        elif schema.get("type") == "array":
            sample = self._samples(at)
            if sample is not None:
                yield (), sample
            for below, value in self._bodies(schema["items"], (*at, 0)):
                if not below and sample is None:
                    yield (), [value]
                yield (0, *below), [value]
        elif schema.get("type") == "object":
            yield (), {"key": "value"}
            yield ("key",), {"key": "value"}
        else:
            yield (), self._plain(schema, at)

    def _objects(self, schema: dict[str, Any], at: Path) -> Iterator[tuple[Path, Any]]:
        properties = schema["properties"]
        whole = {
            name: self.example(properties[name], (*at, name)) for name in schema.get("required", ())
        }
        yield (), whole
        for name, each in properties.items():
            for below, value in self._bodies(each, (*at, name)):
                yield (name, *below), {**whole, name: value}

    def _plain(self, schema: dict[str, Any], at: Path) -> Any:
        if "const" in schema:
            return schema["const"]
        sample = self._samples(at)
        if sample is not None:
            return sample
        if "enum" in schema:
            return schema["enum"][0]
        plain = {"boolean": True, "integer": 1, "number": 1.5, "null": None}
        return plain.get(str(schema.get("type")), "a text")

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].split("/")[1:]:
                found = found[part]
            schema = found
        return schema


def _replaced(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    first, *rest = path
    if isinstance(value, list):
        items = list(value)
        items[int(first)] = _replaced(items[int(first)], tuple(rest), new)
        return items
    return {**value, first: _replaced(value.get(first) if rest else None, tuple(rest), new)}


def _kinds(body: Any, path: Path) -> list[str]:
    """Return the kinds of the objects on the way, and the last name: in another kind it is another field."""
    kinds = []
    for step in path:
        if isinstance(body, dict):
            kinds.append(str(body.get("type") or body.get("name") or "/".join(sorted(body))))
        body = body[step]
    return [*kinds, ".".join(str(step) for step in path[-2:])]
