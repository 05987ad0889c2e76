"""The OpenAPI 3.1 document, made from the routes' declarations and the models that their handlers use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from sidecar import __version__
from sidecar.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RequestTimeoutError,
    RequestTooLargeError,
    SidecarError,
    StoreUnavailableError,
)
from sidecar.http.middleware import PUBLIC_PATHS, is_native
from sidecar.http.operations import Content, Operation, operations_of, tag_of
from sidecar.wire.objects.common import ErrorEnvelope, NativeErrorEnvelope

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream"
_Key = tuple[Any, JsonSchemaMode]

_ALWAYS: Sequence[type[SidecarError]] = (InvalidRequestError, StoreUnavailableError)
_WITH_KEY: Sequence[type[SidecarError]] = (AuthenticationError, PermissionDeniedError)
_WITH_BODY: Sequence[type[SidecarError]] = (
    RequestTimeoutError,
    RequestTooLargeError,
    OverloadedError,
)

_DESCRIPTION = """\
The Managed Agents API of Anthropic on top of opencode, and the models of a LiteLLM gateway.

- Unknown fields of a body and unknown parameters are ignored, unless a schema says otherwise.
- Every `GET` but those of event streams answers `HEAD` as well. A method that a path does not have is a 405 \
with `allow`.
- A request that is not HTTP, or has a header that is too long, is a 400 whatever its path; `Expect` with \
anything but `100-continue` is a 417.
- 503 has `retry-after`: the store, opencode or the gateway is away, or the server is as busy as it may be. \
A 500 is a defect of the sidecar, with the envelope of all errors.
- Messages are not served here: `POST /v1/messages` is the gateway's.
- opencode's own API is forwarded beside this one; its document is at `/doc`.
"""

_HEADERS: Mapping[str, tuple[str, Mapping[str, Any], bool]] = {
    "request-id": ("The request's id, also in the log.", {"type": "string"}, True),
    "retry-after": ("Seconds.", {"type": "string", "pattern": "^[0-9]+$"}, False),
    "x-should-retry": ("Whether to retry.", {"enum": ["true", "false"]}, False),
    "www-authenticate": ("Where HTTP Basic is taken.", {"type": "string"}, False),
    "etag": ("A strong tag of the body.", {"type": "string"}, True),
    "age": (
        "Seconds; there when the list is the last good one.",
        {"type": "string", "pattern": "^[0-9]+$"},
        False,
    ),
}
_ERROR_HEADERS: Mapping[int, Sequence[str]] = {
    401: ["www-authenticate"],
    409: ["x-should-retry"],
    429: ["retry-after"],
    503: ["retry-after"],
    529: ["retry-after"],
}

_SECURITY = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
    "Basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The key as the password, under any name; on opencode's routes only.",
    },
}


def make_document(apis: Sequence[type], *, is_key_required: bool) -> dict[str, Any]:
    """Return the document of the routes that these classes declare."""
    operations = [operation for api in apis for operation in operations_of(api)]
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _Described(operation, schemas, is_key_required=is_key_required)
        paths.setdefault(operation.template, {})[operation.method.lower()] = described.make()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "opencode-sidecar",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": tag_of(api), "description": inspect.getdoc(api) or ""} for api in apis],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": _errors(schemas, operations),
            "headers": {
                name: {"description": text, "schema": schema, "required": is_required}
                for name, (text, schema, is_required) in _HEADERS.items()
            },
            "securitySchemes": _SECURITY,
        },
    }


class _Schemas:
    """The schemas of all models that travel as JSON."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        wanted: dict[_Key, None] = dict.fromkeys(
            [(ErrorEnvelope, "serialization"), (NativeErrorEnvelope, "serialization")]
        )
        for operation in operations:
            if operation.body is not None:
                wanted[operation.body, "validation"] = None
            contents = (content.schema for content in operation.others.values())
            for type_ in (operation.response, *contents):
                if type_ is not None:
                    wanted[type_, "serialization"] = None
        found, definitions = TypeAdapter.json_schemas(
            [(key, key[1], TypeAdapter(key[0])) for key in wanted],
            ref_template="#/components/schemas/{model}",
        )
        self.components: dict[str, Any] = definitions.get("$defs", {})
        self._found = found

    def sent(self, model: Any) -> dict[str, Any]:
        """Return the schema of a body."""
        return self._found[(model, "validation"), "validation"]

    def answered(self, type_: Any) -> dict[str, Any]:
        """Return the schema of an answer."""
        return self._found[(type_, "serialization"), "serialization"]


class _Described:
    """One operation."""

    def __init__(self, operation: Operation, schemas: _Schemas, *, is_key_required: bool) -> None:
        self._operation = operation
        self._schemas = schemas
        self._is_public = operation.path in PUBLIC_PATHS
        self._is_native = is_native(operation.path)
        self._is_key_required = is_key_required

    def make(self) -> dict[str, Any]:
        """Return the operation object."""
        operation = self._operation
        text = inspect.cleandoc(operation.description)
        described: dict[str, Any] = {
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": text.partition("\n")[0],
            "description": text,
            "security": self._security(),
            "parameters": [*self._path_parameters(), *self._query_parameters(), *self._headers()],
            "responses": self._responses(),
        }
        if operation.body is not None:
            described["requestBody"] = {
                "required": not operation.is_body_optional,
                "content": {_JSON: {"schema": self._schemas.sent(operation.body)}},
            }
        return described

    def _security(self) -> list[dict[str, list[str]]]:
        if self._is_public:
            return []
        names = ["ApiKey", "Bearer", *(["Basic"] if self._is_native else [])]
        ways: list[dict[str, list[str]]] = [{name: []} for name in names]
        return ways if self._is_key_required else [{}, *ways]

    def _path_parameters(self) -> Iterator[dict[str, Any]]:
        operation = self._operation
        ids = {path_id.name: path_id for path_id in operation.ids.values()}
        for name in re.findall(r"\{(\w+)\}", operation.template):
            known = ids.get(name)
            schema = {"type": "string", "minLength": 1}
            if known is not None:
                schema = {"type": "string", "pattern": known.pattern}
            yield {"name": name, "in": "path", "required": True, "schema": schema}

    def _query_parameters(self) -> Iterator[dict[str, Any]]:
        if self._operation.query is None:
            return
        schema = self._operation.query.model_json_schema(mode="validation")
        for name, field in schema["properties"].items():
            parameter = {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
            }
            if "description" in field:
                parameter["description"] = field["description"]
            yield {**parameter, "schema": _of_parameter(field)}

    def _headers(self) -> Iterator[dict[str, Any]]:
        for header in self._operation.headers:
            yield {
                "name": header.name,
                "in": "header",
                "description": header.description,
                "schema": {"type": "string"},
            }

    def _responses(self) -> dict[str, Any]:
        operation = self._operation
        responses: dict[str, Any] = {
            str(error.status): {"$ref": f"#/components/responses/{_name(error, self._is_native)}"}
            for error in self._raised()
        }
        contents = dict(operation.others)
        if operation.response is not None:
            contents[operation.status] = Content("Done.", operation.response)
        for status, content in contents.items():
            responses[str(status)] = self._response(status, content)
        return dict(sorted(responses.items()))

    def _raised(self) -> Iterator[type[SidecarError]]:
        operation = self._operation
        yield from _ALWAYS
        if not self._is_public:
            yield from _WITH_KEY
        if operation.ids:
            yield NotFoundError
        if operation.body is not None:
            yield from _WITH_BODY
        yield from operation.raises

    def _response(self, status: int, content: Content) -> dict[str, Any]:
        response: dict[str, Any] = {
            "description": content.description,
            "headers": _headers("request-id", *content.headers),
        }
        if content.schema is None:
            return response
        schema = self._schemas.answered(content.schema)
        if content.media_type == _EVENT_STREAM:
            # OpenAPI 3.1 has no words for a stream: 3.2's, which readers of 3.1 ignore.
            response["content"] = {
                _EVENT_STREAM: {"schema": {"type": "string"}, "x-itemSchema": schema}
            }
            return response
        if status >= 400:
            schema = {"anyOf": [schema, self._schemas.answered(ErrorEnvelope)]}
        response["content"] = {content.media_type: {"schema": schema}}
        return response


def _of_parameter(field: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: it is left out, never null."""
    options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
    kept = {key: field[key] for key in field if key not in {"anyOf", "title", "description"}}
    if kept.get("default", ...) is None:
        del kept["default"]
    return {**(options[0] if options else {}), **kept}


def _errors(schemas: _Schemas, operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the responses of all errors, for opencode's routes in the form that its clients read."""
    raised: set[type[SidecarError]] = {*_ALWAYS, *_WITH_KEY, *_WITH_BODY, NotFoundError}
    raised |= {error for operation in operations for error in operation.raises}
    responses = {}
    for error in sorted(raised, key=lambda error: error.status):
        for envelope, is_native_ in ((ErrorEnvelope, False), (NativeErrorEnvelope, True)):
            responses[_name(error, is_native_)] = {
                "description": f"{HTTPStatus(error.status).phrase if error.status != 529 else 'Overloaded'}"
                f": `{error.type}`",
                "headers": _headers("request-id", *_ERROR_HEADERS.get(error.status, ())),
                "content": {_JSON: {"schema": schemas.answered(envelope)}},
            }
    return responses


def _name(error: type[SidecarError], is_native_: bool) -> str:
    return f"{'Native' if is_native_ else ''}Error{error.status}"


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
