"""A secret in the shapes in which a server may say it again, and the search for it in text."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

_USERS = ("", "a:", "ab:", "x-access-token:", "somebody-else:")
_ENCODED = re.compile(rb"[A-Za-z0-9+/_-]{8,}")
_PERCENT = re.compile("%[0-9A-F]{2}")


def shapes_of(secret: str) -> list[str]:
    """Return the secret as it is and encoded in other ways, also as part of something else."""
    raw, percent = secret.encode(), quote(secret, safe="")
    lower = _PERCENT.sub(lambda match: match[0].lower(), percent)
    shapes = [secret, percent, lower, raw.hex(), raw.hex().upper(), json.dumps({"token": secret})]
    shapes.append(f"https://user:{percent}@host/app.git")
    encoders = (base64.b64encode, base64.urlsafe_b64encode)
    pairs = [user.encode() + raw for user in _USERS]
    return [*shapes, *(f"Basic {encode(pair).decode()}" for pair in pairs for encode in encoders)]


def gives_away(text: str, secret: str) -> list[str]:
    """Return the shapes of the secret that are in the text, however the text itself is encoded as JSON.

    A shape counts that lacks the first or last characters: what is masked in base64 leaves such a rest.
    """
    core = secret[2:-2].encode()
    found = []
    for part in _unescaped(text.encode("utf-8", "surrogateescape")):
        lowered = part.lower()
        needles = {
            "as it is": core in part,
            "percent-encoded": quote(core, safe="").encode().lower() in lowered,
            "hexadecimal": core.hex().encode() in lowered,
            "base64": any(core in decoded for decoded in _decoded(part)),
        }
        found += [name for name, is_there in needles.items() if is_there]
    return found


def _unescaped(text: bytes) -> Iterator[bytes]:
    """Yield the text as it is, and without up to three levels of a JSON string's escapes."""
    for _ in range(4):
        yield text
        text = re.sub(rb'\\(["\\/])', rb"\1", text)


def _decoded(text: bytes) -> Iterator[bytes]:
    for match in _ENCODED.finditer(text):
        run = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for first in range(4):
            piece = run[first:]
            try:
                yield base64.b64decode(piece[: len(piece) // 4 * 4])
            except binascii.Error:
                continue
