"""How long the SDK waits and how often it tries again."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sidecar.sdk.errors import ModelsError


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """Bounds for every request. With the defaults a runtime that never answers costs at most about
    62 seconds: three attempts of 20 s and two waits below 1 s.
    """

    connect_timeout_seconds: float = 5.0
    """Bound for the TCP and TLS connection of one attempt, seconds."""
    request_timeout_seconds: float = 20.0
    """Bound for one whole attempt, seconds, connecting and reading the body included."""
    max_retries: int = 2
    """Further attempts after 408, 429, 5xx, time-outs and connection faults; 0 tries once."""
    first_delay_seconds: float = 0.5
    """Wait before the first retry, seconds; doubles each time, with jitter."""
    max_delay_seconds: float = 8.0
    """Longest wait of our own choice, seconds."""
    max_retry_after_seconds: float = 30.0
    """Longest `Retry-After` that is waited for, seconds. A longer one raises at once: trying earlier than
    asked would only be refused again."""
    max_pages: int = 100
    """Pages walked per list; a list that is longer has `has_more=True`."""

    def delay_before_retry(self, error: ModelsError, attempt: int) -> float | None:
        """Return the wait after failed attempt number `attempt` (from 0), None to give up."""
        if attempt >= self.max_retries or not error.is_retryable:
            return None
        asked = error.retry_after_seconds
        if asked is not None:
            return asked if asked <= self.max_retry_after_seconds else None
        delay = min(self.max_delay_seconds, self.first_delay_seconds * 2.0**attempt)
        return delay * random.uniform(0.75, 1.0)  # noqa: S311  # jitter, not a secret
