"""Holds answers against the OpenAPI document: status, content type, headers, and the exact shape of the body.

Clients that are made by `tests.harness.http_client` do it with every answer that they read. A field that the
document does not have is a failure, too, though clients must bear one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import aiohttp
import jsonschema_rs

from sidecar.http.agents import AgentsApi
from sidecar.http.document import DocumentApi
from sidecar.http.environments import EnvironmentsApi
from sidecar.http.events import EventsApi
from sidecar.http.health import HealthApi
from sidecar.http.models import ModelsApi
from sidecar.http.native import NativeApi
from sidecar.http.openapi import make_document
from sidecar.http.resources import ResourcesApi
from sidecar.http.sessions import SessionsApi
from sidecar.http.vaults import VaultsApi

APIS = (
    *(ModelsApi, AgentsApi, EnvironmentsApi, ResourcesApi, VaultsApi, SessionsApi, EventsApi),
    *(NativeApi, HealthApi, DocumentApi),
)
EVERYWHERE = {405, 417}
"""Statuses that the document describes for all paths at once."""
STREAM = "text/event-stream"


class CheckedResponse(aiohttp.ClientResponse):
    """An answer that is held against the document when it is read."""

    is_checked = False

    async def read(self) -> bytes:
        """Read and check."""
        body = await super().read()
        if not self.is_checked:
            self.is_checked = True
            check_answer(self.method, self.url.raw_path, self.status, self.headers, body)
        return body


def check_answer(
    method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Raise AssertionError where an answer is not as the document says. Paths of others are let pass."""
    operation = find_operation(method, path)
    if operation is None or status in EVERYWHERE:
        if path.startswith("/v1/") and status >= 400 and body:
            _validate(_envelope(), json.loads(body), f"{method} {path}: {status}")
        return
    where = f"{method} {path}: {status}"
    assert str(status) in operation["responses"], f"{where} is not in the document: {body[:300]!r}"
    declared = _resolved(operation["responses"][str(status)])
    for name, header in declared["headers"].items():
        assert name in headers or not _resolved(header)["required"], f"{where}: no header {name}"
    if not body:
        return
    media_type = headers["content-type"].partition(";")[0]
    assert media_type in declared.get("content", ()), (
        f"{where}: {media_type} is not in the document"
    )
    if media_type != STREAM:
        _validate(json.dumps(declared["content"][media_type]["schema"]), json.loads(body), where)


def check_frame(frame: dict[str, Any]) -> None:
    """Raise AssertionError where a frame of a session's stream is not as the document says."""
    stream = document()["paths"]["/v1/sessions/{id}/events/stream"]["get"]["responses"]["200"]
    _validate(json.dumps(stream["content"][STREAM]["x-itemSchema"]), frame, "frame")


@cache
def document() -> dict[str, Any]:
    """Return the document of everything; objects in it have no other fields than it names."""
    made = json.loads(json.dumps(make_document(APIS, is_key_required=True)))
    for schema in made["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return dict(made)


def find_operation(method: str, path: str) -> dict[str, Any] | None:
    """Return the operation that answers a request, None when the document has none."""
    for pattern, methods in _patterns():
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = methods.get(method.lower())
            return found
    return None


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    def pattern(template: str) -> re.Pattern[str]:
        variable = ".+" if template.startswith("/v1/models/") else "[^/]+"
        return re.compile(re.sub(r"\\\{\w+\\\}", lambda _: variable, re.escape(template)))

    return [(pattern(template), methods) for template, methods in document()["paths"].items()]


def _resolved(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found = document()
    for part in value["$ref"].split("/")[1:]:
        found = found[part]
    return found


@cache
def _envelope() -> str:
    return json.dumps({"$ref": "#/components/schemas/ErrorEnvelope"})


def _validate(schema: str, value: Any, where: str) -> None:
    error = next(_validator(schema).iter_errors(value), None)
    assert error is None, f"{where} is not as the document says: {error}"


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": document()["components"]}
    return jsonschema_rs.Draft202012Validator(whole)
