"""Time as the API shows it: microseconds since the epoch inside, RFC 3339 with `Z` outside."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sidecar.errors import InvalidRequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LATEST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def now_us() -> int:
    """Return the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(microseconds: int) -> str:
    """Return `2026-11-22T09:00:00.176000Z`; fixed width, so text order is time order."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=64)  # a turn writes this second a dozen times
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def now() -> str:
    """Return the wall clock as RFC 3339."""
    return rfc3339(now_us())


def parse_rfc3339(text: str, *, field: str) -> int:
    """Return microseconds since the epoch. Raises InvalidRequestError naming `field`.

    A time before the epoch or after the year 9999 is taken as the nearest that `rfc3339` can write.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{field}: must be an RFC 3339 time such as 2026-11-22T09:00:00Z", field=field
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0, (moment - _EPOCH) // _MICROSECOND), _LATEST_US)
