"""A gateway that writes on when the test lets it: what happens beside a turn that streams needs no luck."""

from __future__ import annotations

import asyncio


class Gate:
    """Stands for the pauses of a demo gateway's `[[slow: ...]]`: three of them are none, the next lasts until
    `open`. `reached` is set while something waits, or has waited."""

    def __init__(self) -> None:
        self._passed = 0
        self._is_open = asyncio.Event()
        self.reached = asyncio.Event()

    async def __call__(self, _seconds: float) -> None:
        self._passed += 1
        if self._passed > 3:
            self.reached.set()
            await self._is_open.wait()

    def open(self) -> None:
        """Let everything that waits, and everything that follows, be written at once."""
        self._is_open.set()
