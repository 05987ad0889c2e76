"""The child's answer while it is not known yet what it will be: its headers wait for the first event.

An error before the first event is answered with its status then. opencode reads an error that comes inside a
stream as text, and tries again for a minute or not at all by words and digits in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import web

_MAX_HELD_BYTES = 64 * 1024


class HeldAnswer:
    """Sends `response` once something of the answer is there, at the latest at `until` (the loop's clock)."""

    def __init__(self, request: web.Request, response: web.StreamResponse, *, until: float) -> None:
        self.response = response
        self._request = request
        self._until = until
        self._held = bytearray()

    @property
    def is_open(self) -> bool:
        """Whether the headers were sent."""
        return self.response.prepared

    async def open(self) -> None:
        """Send the headers, and what was held, unless that was done."""
        if self.is_open:
            return
        await self.response.prepare(self._request)
        if self._held:
            await self.response.write(bytes(self._held))
            self._held.clear()

    async def write(self, data: bytes, *, has_begun: bool) -> None:
        """Send or hold; `has_begun` says that the answer has."""
        if has_begun or len(self._held) + len(data) > _MAX_HELD_BYTES:
            await self.open()
        if self.is_open:
            await self.response.write(data)
        else:
            self._held += data

    async def read(self, reading: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return what `reading` does, which may be called twice; open when the time is up meanwhile."""
        if not self.is_open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._until):
                    return await reading()
            await self.open()
        return await reading()
