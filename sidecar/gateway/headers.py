"""Which headers pass between the child and the gateway."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from multidict import CIMultiDict, CIMultiDictProxy

from sidecar.gateway.upstream import key_headers
from sidecar.tracing import TRACEPARENT

_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "content-length"),
    }
)
STRIPPED_FROM_REQUEST = _HOP_BY_HOP | {
    *("host", "authorization", "x-api-key", "cookie", "expect"),
    "accept-encoding",  # a compressed stream would be held back by the compressor and hide usage
}
LEADING_AWAY = frozenset(
    {
        *("location", "content-location", "refresh", "link", "alt-svc", "sourcemap", "x-sourcemap"),
        *("x-accel-redirect", "x-sendfile", "x-reproxy-url", "strict-transport-security"),
        *("nel", "report-to", "reporting-endpoints", "content-security-policy"),
        *("content-security-policy-report-only", "set-cookie", "set-cookie2"),
    }
)
"""By these a client could come to talk to somebody else than the relay, or be recognised there."""
MAX_RETRY_AFTER_SECONDS = 60
"""opencode waits as long as `retry-after` says, without bound: a turn that waits until tomorrow's quota
looks as if it hung. After the bound it asks again, at most 5 times, and then the turn says why."""
_PAUSES = {"retry-after": 1, "retry-after-ms": 1000}
STRIPPED_FROM_ANSWER = _HOP_BY_HOP | LEADING_AWAY | {"date", "server"}


def for_gateway(
    headers: CIMultiDictProxy[str], *, path: str, api_key: str | None, traceparent: str | None
) -> list[tuple[str, str]]:
    """Return the headers of a request of the child as the gateway gets them, with the real key."""
    passed = [
        (name, value)
        for name, value in headers.items()
        if name.lower() not in STRIPPED_FROM_REQUEST
        and not (traceparent and name.lower() == TRACEPARENT)
    ]
    if traceparent:
        passed.append((TRACEPARENT, traceparent))
    passed += key_headers(api_key, is_messages=path.startswith("messages")).items()
    return [*passed, ("accept-encoding", "identity")]


def for_child(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of the gateway's answer as the child gets them."""
    passed = CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in STRIPPED_FROM_ANSWER
    )
    for name, unit in _PAUSES.items():
        if name in passed and _is_long(passed[name], unit):
            passed[name] = str(MAX_RETRY_AFTER_SECONDS * unit)
    return passed


def _is_long(value: str, unit: int) -> bool:
    """Whether a pause, as a number of `1/unit` seconds or as a date, is longer than the bound."""
    try:
        seconds = float(value) / unit
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return False
    return not seconds <= MAX_RETRY_AFTER_SECONDS
