"""Identifiers: a type prefix and 26 characters of Crockford base32 (48 bits of time, 80 random).

The time part makes ids of one kind sort by creation, which keeps SQLite's indexes dense; the random
part makes them unguessable. Alphabet and lengths follow the ULID layout.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Literal

Prefix = Literal["agent", "env", "sesn", "sevt", "sthr", "vlt", "vcrd", "sesrsc", "req", "msg"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26
_ID = re.compile(r"[a-z]{2,8}_[0-9A-HJKMNP-TV-Z]{26}\Z")


def new_id(prefix: Prefix) -> str:
    """Return a new id such as `agent_01K...`."""
    value = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    chars = [""] * _LENGTH
    for position in range(_LENGTH - 1, -1, -1):
        chars[position] = _ALPHABET[value & 31]
        value >>= 5
    return f"{prefix}_{''.join(chars)}"


def is_id(value: str, prefix: Prefix) -> bool:
    """Whether `value` has the form of our ids of that kind; anything else never reaches SQL."""
    return value.startswith(f"{prefix}_") and _ID.match(value) is not None
