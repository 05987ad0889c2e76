"""Watches whether the store can be written, so that readiness says so before a client finds out."""

from __future__ import annotations

import asyncio

import structlog

from sidecar.store.interface import Connection, Store, StoreError

_log = structlog.get_logger(__name__)


class StoreWatch:
    """Writes a row again and again; `failure` says what went wrong the last time, empty when it worked.

    The row is the one that the vault key is checked against; it keeps its value.
    """

    def __init__(self, store: Store, *, interval_seconds: float) -> None:
        self._store = store
        self._interval_seconds = interval_seconds
        self.failure = ""

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self.check()

    async def check(self) -> None:
        """Check once."""
        before = self.failure
        try:
            await self._store.write(_rewrite)
        except StoreError as error:
            self.failure = str(error) or type(error).__name__
        else:
            self.failure = ""
        if self.failure and not before:
            _log.error(
                "the store cannot be written", error=self.failure, store=self._store.location
            )
        elif before and not self.failure:
            _log.info("the store can be written again", store=self._store.location)


def _rewrite(connection: Connection) -> None:
    connection.execute("UPDATE key_check SET sealed = sealed")
