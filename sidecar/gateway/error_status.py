"""Which HTTP status an error has that came without one: inside a stream, or in a body with status 200. Pure.

Words that were met in `type`, `code` and `status`: Anthropic's and OpenAI's error types, Google's status
names, the exceptions of AWS, of LiteLLM and of vLLM. LiteLLM also begins its messages with
`litellm.<exception>:`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from sidecar.wire.scalars import read_number, read_whole

UNKNOWN_STATUS = 502
"""Of an error that says nothing of its kind. opencode tries again."""
OVERLOADED_STATUS = 529
"""Anthropic's."""

_BY_WORD = {
    **dict.fromkeys(
        (
            *("invalid_request", "bad_request", "invalid_argument", "validation", "invalid_prompt"),
            *("context_length_exceeded", "context_window_exceeded", "string_above_max_length"),
            *("unprocessable_entity", "unsupported_params", "unsupported_value", "invalid_value"),
            *("content_policy_violation", "content_filter", "invalid_image", "failed_precondition"),
        ),
        400,
    ),
    **dict.fromkeys(
        (
            *("authentication", "invalid_api_key", "unauthorized", "unauthenticated"),
            *("unrecognized_client", "no_db_connection", "token_expired", "expired_token"),
        ),
        401,
    ),
    **dict.fromkeys(
        (
            *("billing", "insufficient_quota", "budget_exceeded", "payment_required"),
            *("insufficient_credits", "insufficient_balance", "billing_hard_limit_reached"),
        ),
        402,
    ),
    **dict.fromkeys(("permission", "permission_denied", "access_denied", "forbidden"), 403),
    **dict.fromkeys(("not_found", "model_not_found", "resource_not_found"), 404),
    **dict.fromkeys(("request_too_large", "request_entity_too_large", "payload_too_large"), 413),
    **dict.fromkeys(
        (
            *("rate_limit", "rate_limit_exceeded", "rate_limited", "too_many_requests"),
            *("resource_exhausted", "throttling", "throttled", "quota_exceeded"),
        ),
        429,
    ),
    **dict.fromkeys(
        (
            *("overloaded", "engine_overloaded", "server_overloaded", "model_overloaded"),
            *("service_unavailable", "unavailable", "model_not_ready"),
        ),
        OVERLOADED_STATUS,
    ),
    **dict.fromkeys(
        ("timeout", "request_timeout", "deadline_exceeded", "model_timeout", "gateway_timeout"), 504
    ),
}
_ENDINGS = ("_error", "_exception")
_NAMED_IN_TEXT = re.compile(r"\blitellm\.(?:\w+\.)*(\w+)", re.ASCII)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TOO_LONG = re.compile(
    r"maximum context length|context (?:length|window)|prompt is too long|too many (?:input )?tokens"
    r"|input (?:token count|length).{0,200}?exceeds|exceeds the (?:maximum|max|available) ",
    re.IGNORECASE,
)
"""How gateways and vendors say that the prompt is longer than the model's context."""
_TOO_LONG_WORDS = frozenset({"context_length_exceeded", "context_window_exceeded"})
_BILLING = re.compile(r"insufficient_quota|credit balance|exceeded your current quota|budget", re.I)
_PAUSE_IN_TEXT = re.compile(
    r"(?:try again|retry|retrying) (?:in|after) (\d+(?:\.\d+)?) ?(ms|s|m|sec|min)?\w*",
    re.IGNORECASE,
)
_SECONDS = {"ms": 0.001, "m": 60, "min": 60}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
"""Google's, as in `"retryDelay": "34s"`."""


def is_final(status: int) -> bool:
    """Whether another try does not mend an error of this status."""
    return 400 <= status < 500 and status not in {408, 409, 425, 429}


def status_of(error: dict[str, Any]) -> int:
    """Return the status that an error of this kind has."""
    text = str(error.get("message") or "")
    status = named_status(error)
    if status in {429, None} and _BILLING.search(text):
        return 402
    if status is None:
        return 400 if _TOO_LONG.search(text) else UNKNOWN_STATUS
    return OVERLOADED_STATUS if status == 503 else status


def is_too_long(error: dict[str, Any]) -> bool:
    """Whether the error says that the prompt is longer than the model's context."""
    words = {_word(error.get(name)) for name in ("code", "type")}
    text = str(error.get("message") or "")
    if match := _NAMED_IN_TEXT.search(text):
        words.add(_word(match[1]))
    return bool(words & _TOO_LONG_WORDS) or bool(_TOO_LONG.search(text))


def named_status(error: dict[str, Any]) -> int | None:
    """Return the status that the error's own words and numbers say, None when they say none.

    Many gateways say 500 of everything: then what the error is called is more exact.
    """
    words = [_word(error.get(name)) for name in ("code", "type", "status")]
    if match := _NAMED_IN_TEXT.search(str(error.get("message") or "")):
        words.append(_word(match[1]))
    named = [_BY_WORD[word] for word in words if word in _BY_WORD]
    if 402 in named:
        return 402  # OpenAI's quota is a 429 by number, and waiting does not help
    numbers = (read_whole(error.get(name)) for name in ("code", "status", "status_code"))
    said = [number for number in numbers if number and 400 <= number < 600 and number != 500]
    return next(iter([*said, *named]), None)


def pause_of(error: dict[str, Any]) -> int | None:
    """Return the seconds after which the error asks to try again, None when it does not say."""
    seconds = read_number(error.get("retry_after"))
    milliseconds = read_number(error.get("retry_after_ms"))
    if seconds is None and milliseconds is not None:
        seconds = milliseconds / 1000
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if seconds is None and isinstance(delay, str) and (match := _DURATION.fullmatch(delay)):
            seconds = float(match[1])
    if seconds is None and (match := _PAUSE_IN_TEXT.search(str(error.get("message") or ""))):
        seconds = float(match[1]) * _SECONDS.get((match[2] or "s").lower(), 1)
    return math.ceil(seconds) if seconds is not None and seconds >= 0 else None


def _word(value: object) -> str:
    """Return a name in the spelling of the table: `RateLimitError` is `rate_limit`."""
    if not isinstance(value, str):
        return ""
    word = _CAMEL.sub("_", value.strip()).lower().replace("-", "_").replace(" ", "_")
    for ending in _ENDINGS:
        word = word.removesuffix(ending)
    return word
