"""JSON responses and error envelopes, made in one way for all handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from sidecar.aiokit import aside
from sidecar.errors import MethodNotAllowedError, SidecarError
from sidecar.managed.common.pagination import Envelope
from sidecar.masking import masked_urls
from sidecar.wire.json_writing import write_json

_NATIVE_ERRORS = {400: "BadRequest", 404: "NotFoundError"}
"""Status -> `name` of the errors that opencode's `/doc` declares; others keep our own name."""


def encode(body: Any) -> bytes:
    """Return compact JSON that every client can store.

    Older versions stored NUL and lone surrogates: one must not spoil the list that it is in.
    """
    return write_json(body, is_ascii=False).encode()


def json_response(
    body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with compact JSON."""
    return _encoded(encode(body), status=status, headers=headers)


async def page_response(page: Envelope) -> web.Response:
    """Answer with a page of a list; a large one is encoded in a thread."""
    return _encoded(await aside(page.size, lambda: encode(page)))


def error_response(
    error: SidecarError, request_id: str, *, is_native: bool = False
) -> web.Response:
    """Make Anthropic's error envelope; `details.error_code` and `retry-after` when given.

    With `is_native` it has `name` and `data.message` beside, which opencode's own clients read.
    """
    message = masked_urls(error.message)
    body: dict[str, Any] = {"type": error.type, "message": message}
    if error.error_code:
        body["details"] = {"error_code": error.error_code}
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowedError):
        headers[hdrs.ALLOW] = error.allowed
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_seconds)))
    envelope = {"type": "error", "error": body, "request_id": request_id}
    if is_native:
        name = _NATIVE_ERRORS.get(error.status, type(error).__name__)
        envelope |= {"name": name, "data": {"message": message}}
        if error.status == 401:
            headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="opencode-sidecar", charset="UTF-8"'
    return json_response(envelope, status=error.status, headers=headers)


def _encoded(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=body,
        status=status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )
