"""Errors as the child is answered: with the status of their kind, and tried again only where that may help.

opencode tries a model request again by its status, and also by words and digits anywhere in the answer. It
makes room by compaction when it knows that a prompt was too long.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web
from multidict import CIMultiDict

from sidecar.gateway.error_status import is_final, is_too_long, pause_of
from sidecar.wire.opencode_retries import has_retry_words, without_retry_words

_ANTHROPIC_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_KEPT = ("type", "code", "param", "status")
_TOO_LONG_CODE = "context_length_exceeded"
"""OpenAI's, by which opencode knows on every wire that it has to compact."""


def error_answer(
    path: str,
    status: int,
    message: str,
    *,
    error: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    max_retry_after_seconds: float = math.inf,
) -> web.Response:
    """Make an error answer in the format of the route.

    `error` is what the gateway said of it, whose words and pause are kept; `headers` are the gateway's.
    """
    sent = CIMultiDict(headers or {})
    sent.popall(hdrs.CONTENT_TYPE, None)
    pause = pause_of(error) if error is not None else None
    if pause is not None and hdrs.RETRY_AFTER not in sent and not is_final(status):
        sent[hdrs.RETRY_AFTER] = str(math.ceil(min(pause, max_retry_after_seconds)))
    body = error_body(path, status, message, error=error)
    return web.Response(body=body, status=status, headers=sent, content_type="application/json")


def error_body(
    path: str, status: int, message: str, *, error: dict[str, Any] | None = None
) -> bytes:
    """Return an error in the format of the route: Anthropic's for messages, else OpenAI's."""
    said = {n: v for n in _KEPT if isinstance(v := (error or {}).get(n), str) and v}
    is_context = error is not None and status in {400, 413} and is_too_long(error)
    if is_context:
        said["code"] = _TOO_LONG_CODE
    elif is_final(status):
        message = without_retry_words(message)
        said = {name: word for name, word in said.items() if not has_retry_words(word)}
    if path.startswith("messages"):
        type_ = _ANTHROPIC_TYPE.get(status, "api_error")
        return json.dumps(
            {"type": "error", "error": {"type": type_, **said, "message": message}}
        ).encode()
    return json.dumps(
        {"error": {"type": "relay_error", "code": str(status), **said, "message": message}}
    ).encode()
