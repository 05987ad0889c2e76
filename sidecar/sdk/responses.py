"""From a vendor's HTTP answer to JSON or to the error that says what to do about it."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from sidecar.sdk.endpoints import Connection
from sidecar.sdk.errors import (
    AuthenticationError,
    BadAnswerError,
    ModelsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRefusedError,
    UnavailableError,
)
from sidecar.wire.json_text import read_leniently

_MAX_MESSAGE_CHARS = 300
_NOT_JSON = object()
_REQUEST_ID_HEADERS = ("request-id", "x-request-id", "x-litellm-call-id")

_BY_STATUS: Mapping[int, type[ModelsError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: UnavailableError,
    429: RateLimitedError,
}

_DEFAULT_SENTENCES: Mapping[type[ModelsError], str] = {
    AuthenticationError: "the key was refused",
    PermissionDeniedError: "the key may not list models",
    NotFoundError: "not found",
    RateLimitedError: "too many requests",
    UnavailableError: "the service failed",
    RequestRefusedError: "the request was refused",
}


def read_answer(
    *,
    runtime: str,
    connection: Connection,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> Any:
    """Return the JSON of a 2xx answer. Raises the ModelsError of everything else.

    `headers` must look names up without regard to case.
    """
    request_id = request_id_of(headers)
    if 200 <= status < 300:
        return _json_of_success(runtime, status, headers, body, request_id)
    if 300 <= status < 400:
        raise BadAnswerError(
            "answered with a redirect, which is not followed because it would carry the key to another "
            "place; correct the base URL",
            runtime=runtime,
            status=status,
            request_id=request_id,
        )
    value = _parse(body)
    kind = _BY_STATUS.get(status) or (UnavailableError if status >= 500 else RequestRefusedError)
    if status == HTTPStatus.BAD_REQUEST and connection.endpoint.refuses_key(value):
        kind = AuthenticationError
    error = kind(
        _sentence(kind, value, connection),
        runtime=runtime,
        status=status,
        request_id=request_id,
        retry_after_seconds=_retry_after_seconds(headers),
        error_code=_error_code(value),
    )
    told = headers.get("x-should-retry")
    if told in {"true", "false"}:
        error.is_retryable = told == "true"
    raise error


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the vendor's id of the request, whatever its header is called."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)


def _json_of_success(
    runtime: str, status: int, headers: Mapping[str, str], body: bytes, request_id: str | None
) -> Any:
    value = _parse(body)
    if value is not _NOT_JSON:
        return value
    kind = headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    what = "a web page" if body.lstrip()[:1] == b"<" else "something that is not JSON"
    raise BadAnswerError(
        f"answered {what} ({kind[:80]}); does the base URL point at the API?",
        runtime=runtime,
        status=status,
        request_id=request_id,
    )


def _parse(body: bytes) -> Any:
    """Return the JSON or `_NOT_JSON`; the decoder's own error would keep the whole body alive.

    Numbers that could not be sent on as JSON, and what is nested too deeply, cost themselves only.
    """
    try:
        return read_leniently(body)
    except ValueError:
        return _NOT_JSON


def _sentence(kind: type[ModelsError], value: Any, connection: Connection) -> str:
    """Our sentence, then the vendor's own words: one line, masked, cut, no control characters."""
    default = _DEFAULT_SENTENCES[kind]
    told = _vendor_message(value)
    if not told:
        return default
    printable = "".join(c if c.isprintable() else " " for c in connection.mask(told))
    words = " ".join(printable.split())
    if len(words) > _MAX_MESSAGE_CHARS:
        words = f"{words[: _MAX_MESSAGE_CHARS - 3]}..."
    return f"{default}: {words}"


def _vendor_message(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("error")
    candidates = [inner.get("message")] if isinstance(inner, dict) else []
    candidates += [value.get("message"), value.get("detail"), inner]
    return next((c for c in candidates if isinstance(c, str) and c.strip()), None)


def _error_code(value: Any) -> str | None:
    for name in ("error", "details", "error_code"):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after-ms`, then `retry-after` as seconds or as an HTTP date; never negative."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        moment = email.utils.parsedate_to_datetime(text or "")
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
