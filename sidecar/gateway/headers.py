"""Which headers pass between the child and the gateway."""

from __future__ import annotations

import math
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
"""With these a client could be led past the relay, or be recognised elsewhere."""
_PAUSES = {"retry-after": 1, "retry-after-ms": 1000}
STRIPPED_FROM_ANSWER = _HOP_BY_HOP | LEADING_AWAY | {"date", "server", "content-encoding"}
"""`content-encoding`: what reaches us compressed, although we ask for nothing of the kind, is unpacked."""


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


def for_child(
    headers: CIMultiDictProxy[str], *, max_retry_after_seconds: float
) -> CIMultiDict[str]:
    """Return the headers of the gateway's answer as the child gets them.

    opencode waits as long as `retry-after` says: a turn that waits for tomorrow's quota looks as if it hung.
    """
    passed = CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in STRIPPED_FROM_ANSWER
    )
    for name, unit in _PAUSES.items():
        if name in passed and not _pause(passed[name], unit) <= max_retry_after_seconds:
            passed[name] = str(math.ceil(max_retry_after_seconds * unit))
    return passed


def _pause(value: str, unit: int) -> float:
    """Return the seconds of a pause that is a number of `1/unit` seconds or a date; 0 when it is neither."""
    try:
        return float(value) / unit
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
