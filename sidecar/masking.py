"""Secrets in text that others wrote: also percent-encoded and in base64, at any place in what was encoded."""

from __future__ import annotations

import base64
import functools
from urllib.parse import quote

MASK = "***"
_MIN_ENCODED = 8
"""Shorter pieces of base64 would mask ordinary text."""


def masked(text: str, secret: str) -> str:
    """Return the text with every shape of the secret replaced by `***`."""
    for shape in shapes(secret):
        text = text.replace(shape, MASK)
    return text


@functools.lru_cache(maxsize=256)
def shapes(secret: str) -> tuple[str, ...]:
    """Return the secret as it is, percent-encoded, and what is the same in every base64 of text around it."""
    found = {secret, quote(secret, safe=""), quote(secret)}
    raw = secret.encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        first = (
            before * 8 + 5
        ) // 6  # what also holds bits of the text before it is not the secret's
        piece = encoded[first : (before + len(raw)) * 8 // 6]
        if len(piece) >= _MIN_ENCODED:
            found |= {piece, piece.replace("+", "-").replace("/", "_"), quote(piece, safe="")}
    return tuple(sorted(found - {""}, key=len, reverse=True))
