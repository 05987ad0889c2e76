"""Secrets in text that is shown: known ones by value, in every shape, and those in URLs by their place.

A server may echo what it was sent in a shape of its own: percent-encoded, as hexadecimal digits, in a JSON
string, in base64 at any place in what was encoded (`Basic <user>:<token>`).
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST_SECRET = 6
"""Shorter values would mask ordinary words."""
_MIN_ENCODED = 8
"""Shorter pieces of base64 would mask ordinary text."""
_SECRETS_IN_USE = 200
"""Each costs a microsecond or two per line of the log."""

_SECRET_WORDS = frozenset(
    {
        *("apikey", "auth", "authorization", "code", "credential", "credentials", "jwt", "key"),
        *("pass", "passphrase", "passwd", "password", "pwd", "secret", "sig", "signature", "token"),
    }
)
_SECRET_ENDINGS = ("apikey", "accesskey", "password", "secret", "secretkey", "signature", "token")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_USERINFO = re.compile(r"""(?<=://)[^\s/?#"'<>]+@""")
_LOWER_HEX = re.compile("%[0-9A-F]{2}")
_PARAMETER = re.compile(r"""(?<=[?&;#])([^\s=&;#"'<>]{1,200})=([^\s&;#"'<>]+)""")

T = TypeVar("T")


def masked(text: str, secret: str) -> str:
    """Return the text with every shape of the secret replaced by `***`."""
    for shape in shapes(secret):
        text = text.replace(shape, MASK)
    return text


@functools.lru_cache(maxsize=1024)
def shapes(secret: str) -> tuple[str, ...]:
    """Return the secret as it is, percent-encoded, as JSON has it, in hexadecimal digits, and what is the
    same in every base64 of text around it. The longest comes first.
    """
    raw = secret.encode()
    found = {secret, raw.hex(), raw.hex().upper()}
    for text in (quote(secret, safe=""), quote(secret), quote(secret, safe="").replace("%20", "+")):
        found |= {text, _LOWER_HEX.sub(lambda match: match[0].lower(), text)}
    for is_ascii in (True, False):
        once = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        twice = json.dumps(once, ensure_ascii=is_ascii)[1:-1]  # JSON in a string of JSON
        found |= {once, once.replace("/", r"\/"), twice}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        # What also holds bits of the text before it is not the secret's.
        first = (before * 8 + 5) // 6
        piece = encoded[first : (before + len(raw)) * 8 // 6]
        if len(piece) >= _MIN_ENCODED:
            found |= {piece, piece.replace("+", "-").replace("/", "_"), quote(piece, safe="")}
            found.add(piece.replace("/", r"\/"))
    return tuple(sorted(found - {""}, key=len, reverse=True))


class Mask:
    """Replaces some secrets in texts, and in JSON with texts in it; the latest `bound` that were added.

    Secrets of less than `shortest` characters are left alone.
    """

    def __init__(
        self,
        secrets: Iterable[str] = (),
        *,
        bound: int | None = None,
        shortest: int = SHORTEST_SECRET,
    ) -> None:
        self._bound = bound
        self._shortest = shortest
        self._secrets: OrderedDict[str, None] = OrderedDict()
        self.add(*secrets)

    def __bool__(self) -> bool:
        return bool(self._secrets)

    def add(self, *secrets: str) -> None:
        """Mask these too from now on."""
        for secret in secrets:
            if len(secret) >= self._shortest:
                self._secrets[secret] = None
                self._secrets.move_to_end(secret)
        while self._bound is not None and len(self._secrets) > self._bound:
            self._secrets.popitem(last=False)

    def text(self, text: str) -> str:
        """Return the text without the secrets."""
        # The longest first: one may be the beginning of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = masked(text, secret)
        return text

    def json(self, value: T) -> T:
        """Return a value as JSON has them with all its strings masked, also names of fields."""
        return self._json(value) if self._secrets else value

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._json(key): self._json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(item) for item in value]
        return value


IN_USE = Mask(bound=_SECRETS_IN_USE)
"""What this process has decrypted last: masked in its log and in what it keeps of opencode's output."""


def masked_urls(text: str) -> str:
    """Return the text with users and passwords of URLs, and their parameters that look secret, replaced.

    The one rule for URLs in all that is logged and answered.
    """
    if "://" in text:
        text = _USERINFO.sub(f"{MASK}@", text)
    return _PARAMETER.sub(_masked_parameter, text) if "=" in text else text


def secret_in(url: str) -> str | None:
    """Return what in a URL is a secret by its place: "a user or password", "the parameter 'token'"."""
    if _USERINFO.search(url):
        return "a user or password"
    for match in _PARAMETER.finditer(url):
        if _is_secret(match[1]):
            return f"the parameter {unquote(match[1])[:80]!r}"
    return None


def passwords_in(url: str) -> list[str]:
    """Return the password in a URL, as it is written there and as it is meant; none in any other text."""
    found = list(_USERINFO.finditer(url))
    written = found[-1][0][:-1].partition(":")[2] if found else ""
    return list(dict.fromkeys([written, unquote(written)])) if written else []


def _masked_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}={MASK}" if _is_secret(match[1]) else match[0]


def _is_secret(name: str) -> bool:
    """Whether a parameter's name says so: `access_token`, `X-Amz-Signature`, `exaApiKey`, `sig`."""
    words = [word.lower() for word in _WORD.findall(unquote(name))]
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words)
