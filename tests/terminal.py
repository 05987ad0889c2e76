"""A terminal in which the tests run interactive programs and read their screen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pyte

from tests.waiting import PATIENCE_SECONDS

_PASSED_ON = ("PATH", "LANG", "TMPDIR")


class Terminal:
    """A program behind a pseudo-terminal; its output is drawn on a screen in memory."""

    def __init__(
        self, process: asyncio.subprocess.Process, master: int, screen: pyte.Screen
    ) -> None:
        self._process = process
        self._master = master
        self._screen = screen
        self._stream = pyte.ByteStream(screen)
        self._changed = asyncio.Event()
        self._is_over = False
        asyncio.get_running_loop().add_reader(master, self._read)

    @classmethod
    @asynccontextmanager
    async def running(
        cls, command: Sequence[str], environment: Mapping[str, str], *, columns: int, rows: int
    ) -> AsyncIterator[Terminal]:
        """Run the program; it is gone afterwards."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *command,
            env=kept | {"TERM": "xterm-256color"} | dict(environment),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        terminal = cls(process, master, pyte.Screen(columns, rows))
        try:
            yield terminal
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            terminal._close()

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    async def type(self, keys: str) -> None:
        """Press keys, one after the other as a person does: a burst would be taken for a paste."""
        for key in keys:
            os.write(self._master, key.encode())
            await asyncio.sleep(0.02)

    async def until(
        self, wanted: str, *, count: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until the screen shows `wanted`, `count` times."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.text.count(wanted) < count:
                    await self._next_change()
        assert self.text.count(wanted) >= count, f"{wanted!r} is not on the screen:\n{self.text}"

    async def until_gone(self, unwanted: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the screen does not show it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while unwanted in self.text:
                    await self._next_change()
        assert unwanted not in self.text, f"{unwanted!r} stays on the screen:\n{self.text}"

    async def ended(self, *, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the program's end; return its exit code."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def _next_change(self) -> None:
        assert not self._is_over, f"the program has ended:\n{self.text}"
        self._changed.clear()
        await self._changed.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            data = b""
        if data:
            self._stream.feed(data)
        else:
            self._is_over = True
            asyncio.get_running_loop().remove_reader(self._master)
        self._changed.set()

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
