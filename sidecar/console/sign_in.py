"""Sessions of the console, and the bound on attempts to begin one. Pure: the time comes in.

A session is a text that the sidecar signed: `<expiry>.<nonce>.<mac>`, HMAC-SHA256 under a key that is derived
from the inbound key. It holds no key, ends at its expiry or when the inbound key changes, and is valid in
every pod that has the same one. The token of its forms is made in the same way, so it needs no place either.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass

from sidecar.errors import RateLimitedError

_MOST_ENDED = 1000
"""Sessions that were ended before their expiry and are remembered; the oldest is dropped first."""
_MOST_ADDRESSES = 1000
_WINDOW_SECONDS = 60.0
_ALL_ADDRESSES = 10
"""All addresses together may fail this many times as often as one."""


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """What a person has who signed in, until `expires_at` (seconds since the epoch)."""

    expires_at: int
    nonce: str


class SignIns:
    """Begins, recognises and ends sessions. Without an inbound key a session needs no sign-in."""

    def __init__(self, *, key: bytes | None, secret: bytes | None, lifetime_seconds: float) -> None:
        """`secret` is what sessions are derived from; None makes one that this process alone has."""
        self._key = key
        basis = secret or secrets.token_bytes(32)
        self._signing_key = hmac.digest(basis, b"sessions of the console", "sha256")
        self._lifetime_seconds = lifetime_seconds
        self._ended: OrderedDict[str, None] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether no sign-in is needed: the API asks for no key either."""
        return self._key is None

    @property
    def lifetime_seconds(self) -> int:
        """How long a session lasts."""
        return int(self._lifetime_seconds)

    def is_key(self, offered: str) -> bool:
        """Whether `offered` is the inbound key, compared in constant time."""
        return self._key is not None and hmac.compare_digest(
            offered.encode(errors="surrogateescape"), self._key
        )

    def begin(self, now: float) -> ConsoleSession:
        """Return a new session."""
        return ConsoleSession(int(now + self._lifetime_seconds), secrets.token_urlsafe(16))

    def end(self, session: ConsoleSession) -> None:
        """Do not recognise it any more."""
        self._ended[session.nonce] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def text_of(self, session: ConsoleSession) -> str:
        """Return what the cookie holds."""
        return f"{session.expires_at}.{session.nonce}.{self._mac('session', session)}"

    def read(self, text: str, now: float) -> ConsoleSession | None:
        """Return the session of a cookie; None when it is not ours, has expired or was ended."""
        expiry, _, rest = text.partition(".")
        nonce, _, mac = rest.partition(".")
        if not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12):
            return None
        session = ConsoleSession(int(expiry), nonce)
        is_ours = hmac.compare_digest(
            mac.encode(errors="replace"), self._mac("session", session).encode()
        )
        is_valid = is_ours and session.expires_at > now and nonce not in self._ended
        return session if is_valid else None

    def token_of(self, session: ConsoleSession) -> str:
        """Return the token that the session's forms and its script send."""
        return self._mac("form", session)

    def is_token(self, session: ConsoleSession, offered: str) -> bool:
        """Whether `offered` is the session's token, compared in constant time."""
        return hmac.compare_digest(
            offered.encode(errors="replace"), self.token_of(session).encode()
        )

    def _mac(self, use: str, session: ConsoleSession) -> str:
        text = f"{use} {session.expires_at} {session.nonce}"
        return hmac.new(self._signing_key, text.encode(errors="replace"), "sha256").hexdigest()


class Attempts:
    """Counts failed attempts to sign in: per address and minute, and ten times as many of all together."""

    def __init__(self, *, per_minute: int) -> None:
        self._per_minute = per_minute
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=per_minute * _ALL_ADDRESSES)
        self.failed = 0
        self.refused = 0
        """Attempts whose key was not even looked at."""

    def check(self, address: str, now: float) -> None:
        """Raise RateLimitedError when the address, or all together, failed too often. `now` is monotonic."""
        own = self._failures.get(address, deque())
        for failures, most in ((own, self._per_minute), (self._all, self._all.maxlen or 0)):
            while failures and failures[0] <= now - _WINDOW_SECONDS:
                failures.popleft()
            if len(failures) >= most:
                self.refused += 1
                raise RateLimitedError(
                    "too many attempts to sign in failed; wait a minute",
                    retry_after_seconds=failures[0] + _WINDOW_SECONDS - now,
                )

    def note_failure(self, address: str, now: float) -> None:
        """An attempt failed."""
        self.failed += 1
        self._all.append(now)
        own = self._failures.setdefault(address, deque(maxlen=self._per_minute))
        own.append(now)
        self._failures.move_to_end(address)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
