"""Failures of model requests: what kind they are, and how they are reported to the child."""

from __future__ import annotations

import json
from typing import Any

from sidecar.gateway.error_answers import error_body
from sidecar.gateway.error_status import named_status, status_of
from sidecar.gateway.streams.facts import error_in
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


def classify(status: int, body: bytes | str) -> FailureKind:
    """Return the kind of an HTTP error; the body says more than the status where it is known."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    named = _BY_STATUS.get(named_status(error_of(text) or {}) or 0)
    if named is not None:
        return named
    if status in {400, 429} and any(mark in text.lower() for mark in _BILLING_MARKS):
        return "billing"
    return _BY_STATUS.get(status, "failed")


def classify_event(error: dict[str, Any]) -> FailureKind:
    """Return the kind of an error event inside a stream with status 200."""
    return _BY_STATUS.get(status_of(error), "failed")


def error_of(body: bytes | str) -> dict[str, Any] | None:
    """Return the error of a JSON body that is nothing else, None for any other body."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and len(value) == 1:  # Gemini's
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if error:
        return error if isinstance(error, dict) else {"message": str(error)}
    return error_in(value, "")


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
