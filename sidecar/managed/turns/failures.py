"""Why a turn failed, as `session.error` shows it.

Source of the types: the session error events of the official Python SDK 2.14.0; of opencode's error
names: recorded streams of 1.18.33.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sidecar.errors import SidecarError
from sidecar.managed.events.event import Draft
from sidecar.masking import masked_urls
from sidecar.model_requests import RequestFailure
from sidecar.wire.objects.events import FailureType
from sidecar.wire.opencode_retries import as_it_was

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
            "message": masked_urls(self.message),
            "retry_status": {"type": self.retry_status},
            **{name: text and masked_urls(text) for name, text in self.extra},
        }
        return Draft("session.error", {"error": error})


class TurnFailedError(SidecarError):
    """The turn cannot go on, for a reason that `session.error` has a type for."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


_BY_KIND: dict[str, FailureType] = {
    "overloaded": "model_overloaded_error",
    "rate_limited": "model_rate_limited_error",
    "billing": "billing_error",
}


def of_turn(error: Mapping[str, Any], request: RequestFailure | None) -> Failure:
    """Classify the error object of opencode's `session.error`, of a turn whose latest request failed so.

    The relay saw the failure itself: it decides the type. opencode passes on what is inside a stream as
    mere text.
    """
    failure = from_child(error)
    if request is None:
        return failure
    if request.kind in {"limit", "wrong_format"}:
        return Failure("model_request_failed_error", request.message)
    known = _BY_KIND.get(request.kind, "model_request_failed_error")
    if failure.type == "unknown_error":
        return Failure(known, f"the model request failed: {request.message}")
    # What opencode says may be more exact than a failure that has no kind of its own.
    return failure if request.kind == "failed" else replace(failure, type=known)


def cut_by_limit(*, has_text: bool) -> Failure:
    """The model's last answer used up its output limit. The API has no stop reason for that."""
    what = "the answer was cut" if has_text else "the model wrote nothing"
    return Failure(
        "model_request_failed_error",
        f"{what}: it used up its output limit (finish reason length, max_tokens); ask it to go on, "
        "or use a model with a larger limit",
    )


def empty_answer(*, has_thought: bool) -> Failure:
    """The model ended the turn without a word or a tool call: the API has no stop reason for that."""
    what = "it only reasoned" if has_thought else "its answer was empty"
    return Failure(
        "model_request_failed_error",
        f"the model ended the turn without a text or a tool call: {what}; send the message again, or use "
        "another model",
    )


def from_child(error: Mapping[str, Any]) -> Failure:
    """Classify the error object of opencode's `session.error`."""
    name = str(error.get("name") or "UnknownError")
    data = error.get("data") or {}
    message = as_it_was(str(data.get("message") or name))[:_MESSAGE_CHARS]
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
