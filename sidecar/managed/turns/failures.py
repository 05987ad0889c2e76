"""Why a turn failed, as `session.error` tells it.

Source of the types: the session error events of the official Python SDK 2.12.0; of opencode's error
names: recorded streams of 1.18.33.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.errors import SidecarError
from sidecar.managed.events.event import Draft

FailureType = Literal[
    "unknown_error",
    "model_overloaded_error",
    "model_rate_limited_error",
    "model_request_failed_error",
    "billing_error",
    "mcp_connection_failed_error",
    "mcp_authentication_failed_error",
    "repository_authentication_error",
    "repository_forbidden_error",
    "repository_not_found_error",
    "repository_checkout_error",
    "repository_clone_error",
]

_MODEL_NOT_FOUND = re.compile(r"Model not found: (?P<ref>\S+?)\.(?: |$)")
_BILLING = re.compile(r"insufficient[_ ](quota|funds|credit)|credit balance|billing|budget", re.I)
_MESSAGE_CHARS = 600


@dataclass(frozen=True, slots=True)
class Failure:
    """One reason; `retry_status` is what the client should do: a new message, or a new session."""

    type: FailureType
    message: str
    retry_status: Literal["exhausted", "terminal"] = "exhausted"
    extra: tuple[tuple[str, str | None], ...] = ()

    def draft(self) -> Draft:
        """Make the `session.error` event."""
        error = {
            "type": self.type,
            "message": self.message,
            "retry_status": {"type": self.retry_status},
            **dict(self.extra),
        }
        return Draft("session.error", {"error": error})


class TurnFailedError(SidecarError):
    """The turn cannot go on, for a reason that `session.error` has a type for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def from_child(error: Mapping[str, Any]) -> Failure:
    """Classify the error object of opencode's `session.error`."""
    name = str(error.get("name") or "UnknownError")
    data = error.get("data") or {}
    message = str(data.get("message") or name)[:_MESSAGE_CHARS]
    status = data.get("statusCode")
    if name == "APIError":
        where = f" (status {status})" if status else ""
        return Failure(_by_status(status, message), f"the model request failed{where}: {message}")
    if name == "ProviderAuthError":
        return Failure("model_request_failed_error", f"the gateway refused the key: {message}")
    if name in {"MessageOutputLengthError", "ContextOverflowError"}:
        return Failure("model_request_failed_error", f"{name}: {message}")
    if _MODEL_NOT_FOUND.search(message):
        return Failure("model_request_failed_error", message)
    return Failure("unknown_error", f"opencode failed: {message}")


def _by_status(status: object, message: str) -> FailureType:
    if status == 402 or _BILLING.search(message):
        return "billing_error"
    if status == 429:
        return "model_rate_limited_error"
    if status in {503, 529}:
        return "model_overloaded_error"
    return "model_request_failed_error"
