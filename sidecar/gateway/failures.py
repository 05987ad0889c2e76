"""Failures of model requests: what kind they are, and how they are reported to the child. Pure."""

from __future__ import annotations

import json
from typing import Any

from sidecar.gateway.streams.frames import write_frame
from sidecar.gateway.streams.messages import NO_MESSAGE
from sidecar.model_requests import FailureKind

_BILLING_MARKS = ("insufficient_quota", "billing", "budget", "credit balance")
_BY_STATUS: dict[int, FailureKind] = {
    401: "authentication",
    402: "billing",
    403: "authentication",
    408: "timeout",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_BY_TYPE: dict[str, FailureKind] = {
    "authentication_error": "authentication",
    "no_db_connection": "authentication",  # LiteLLM without database: 400 for an unknown key
    "billing_error": "billing",
    "rate_limit_error": "rate_limited",
    "overloaded_error": "overloaded",
    "timeout_error": "timeout",
}
_STATUS: dict[FailureKind, int] = {
    "authentication": 401,
    "billing": 402,
    "rate_limited": 429,
    "overloaded": 503,
    "timeout": 504,
}
_ANTHROPIC_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
}


def classify(status: int, body: bytes | str) -> FailureKind:
    """Return the kind of an HTTP error; the body says more than the status where it is known."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    by_type = _BY_TYPE.get(str(_error_of(text).get("type")))
    if by_type is not None:
        return by_type
    if status in {400, 429} and any(mark in text.lower() for mark in _BILLING_MARKS):
        return "billing"
    return _BY_STATUS.get(status, "failed")


def classify_event(error: dict[str, Any]) -> FailureKind:
    """Return the kind of an error event inside a stream with status 200."""
    code = str(error.get("code") or "")
    status = int(code) if code.isdecimal() else 500
    return classify(status, json.dumps({"error": error}))


def classify_answer(body: bytes) -> tuple[FailureKind, int]:
    """Return the kind of an answer that is none although its status is 200, and the status it should have.

    Its kind is `not_sse` when it is not a known error.
    """
    kind = classify(400, body)
    return ("not_sse", 502) if kind == "failed" else (kind, _STATUS[kind])


def error_body(path: str, status: int, message: str) -> bytes:
    """Return an error in the format of the route: Anthropic's for messages, else OpenAI's."""
    if path.startswith("messages"):
        error = {"type": _ANTHROPIC_TYPE.get(status, "api_error"), "message": message}
        return json.dumps({"type": "error", "error": error}).encode()
    error = {"type": "relay_error", "message": message, "code": str(status)}
    return json.dumps({"error": error}).encode()


def error_event(path: str, message: str, *, is_final: bool = False) -> bytes:
    """Return an error as a frame that ends a stream which has begun.

    One that is final must not look as if trying again could help; nothing of an answer may be before it.
    """
    status = 400 if is_final else 504
    if path.startswith("responses"):
        error = {"type": "relay_error", "code": str(status), "message": message, "param": None}
        value = {"type": "error", "sequence_number": 0, **error, "error": error}
        return b"\n\n" + write_frame({**value, "type": "error"}, is_named=True)
    head = b"\n\n"
    if path.startswith("messages"):
        head += write_frame(NO_MESSAGE, is_named=True) if is_final else b""
        head += b"event: error\n"
    return head + b"data: " + error_body(path, status, message) + b"\n\n"


def _error_of(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}
