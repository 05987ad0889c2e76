"""Numbers and flags as gateways write them: `128000`, `128000.0`, `"128000"`; `true`, `"true"`, `1`.

One reading for lists, streams and the SDK. None is what is no such value; a caller decides what that costs.
"""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_LONGEST_NUMBER = 400
"""Characters. No program writes a double with as many; Python refuses to read much longer ones."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def read_number(value: object) -> int | float | None:
    """Return a finite number, whole ones as an integer where they were written without a fraction."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
            return None
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no double holds
        return None


def read_whole(value: object) -> int | None:
    """Return a whole number; one with a fraction is none."""
    number = read_number(value)
    return int(number) if number is not None and number == int(number) else None


def read_flag(value: object) -> bool | None:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
