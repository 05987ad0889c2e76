"""Identifiers: a type prefix and 26 characters of Crockford base32 (48 bits of time, 80 random).

The time part makes ids of one kind sort by creation, which keeps SQLite's indexes dense; the random
part makes them unguessable. Alphabet and lengths follow the ULID layout.
"""

from __future__ import annotations

import os
import re
import time
from typing import Literal

Prefix = Literal["agent", "env", "sesn", "sevt", "sthr", "vlt", "vcrd", "sesrsc", "req", "msg"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_RANDOM_BYTES = 10
_POOL_IDS = 400
_ID = re.compile(r"[a-z]{2,8}_[0-9A-HJKMNP-TV-Z]{26}\Z")


_pool: list[int] = []
"""Random numbers for the next ids. A turn needs a dozen, and each question to the system lets another
thread have the interpreter. Taking one is atomic: jobs of the store make ids too."""


def new_id(prefix: Prefix) -> str:
    """Return a new id such as `agent_01K...`."""
    value = (int(time.time() * 1000) << 80) | _random_bits()
    return f"{prefix}_{''.join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])}"


def _random_bits() -> int:
    while True:
        try:
            return _pool.pop()
        except IndexError:
            drawn = os.urandom(_POOL_IDS * _RANDOM_BYTES)
            places = range(0, len(drawn), _RANDOM_BYTES)
            _pool.extend(int.from_bytes(drawn[at : at + _RANDOM_BYTES]) for at in places)


def is_id(value: str, prefix: Prefix) -> bool:
    """Whether `value` has the form of our ids of that kind; anything else never reaches SQL."""
    return value.startswith(f"{prefix}_") and _ID.match(value) is not None
