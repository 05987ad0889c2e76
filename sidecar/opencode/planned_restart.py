"""A restart that was requested (by memory, a broken config or an operator), and when it may happen.

It aborts every turn, so it waits for a moment without any. Where such a moment does not come by itself, new
turns are held until the running ones have ended, for a bounded time: all others would wait for one long
turn. After that time they go on, and the restart is tried again later.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)


class PlannedRestart:
    """Decides when a planned restart happens. While `reason` is set, call `is_due` regularly."""

    def __init__(
        self,
        *,
        is_busy: Callable[[], Awaitable[bool]],
        patience_seconds: float,
        hold_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_busy = is_busy
        self._patience_seconds = patience_seconds
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._since = 0.0
        self._held_since: float | None = None
        self._is_forced = False
        self.reason: str | None = None
        """Why it is wanted, None when it is not."""

    @property
    def is_holding(self) -> bool:
        """Whether new turns have to wait."""
        return self._held_since is not None

    def request(self, reason: str, *, is_forced: bool) -> None:
        """Ask for it; forced, it waits for nothing."""
        if self.reason is None:
            self._since = self._clock()
        if self.reason is None or (is_forced and not self._is_forced):
            _log.info("child restart requested", reason=reason, force=is_forced)
        self.reason = reason
        self._is_forced |= is_forced

    def clear(self) -> None:
        """It has happened, or a new child is there for another reason."""
        self.reason, self._is_forced, self._held_since = None, False, None

    async def is_due(self) -> bool:
        """Whether it may happen now. Begins and ends the holding of turns."""
        if self.reason is None:
            return False
        if self._is_forced or not await self._is_busy():
            return True
        now = self._clock()
        if self._held_since is not None:
            if now - self._held_since >= self._hold_seconds:
                _log.warning("turns no longer held, a running one takes long", reason=self.reason)
                self._held_since, self._since = None, now
        elif now - self._since >= self._patience_seconds:
            _log.info("new turns are held for a restart", reason=self.reason)
            self._held_since = now
        return False
