"""TCP proxies of the tests: the round robin of a Service, and one that loses an answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import ABC, abstractmethod
from urllib.parse import urlsplit

_PIECE_BYTES = 1 << 16


class TcpProxy(ABC):
    """Listens on `host`:`port`; 0 picks a free port. `url` is valid after `start`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)
        self.url = f"http://{self._host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @abstractmethod
    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it is over."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self.pass_on(reader, writer)
        writer.close()


class RoundRobin(TcpProxy):
    """Spreads connections over the live pods; each connection stays with its pod."""

    def __init__(self) -> None:
        super().__init__()
        self._targets: list[tuple[str, int]] = []
        self._turn = itertools.count()

    def add(self, url: str) -> None:
        """Send connections to this pod, too."""
        address = urlsplit(url)
        self._targets.append((address.hostname or "", address.port or 0))

    def remove(self, url: str) -> None:
        """Send no more connections there."""
        address = urlsplit(url)
        with contextlib.suppress(ValueError):
            self._targets.remove((address.hostname or "", address.port or 0))

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the next pod; a Service skips those that do not answer."""
        for _ in range(len(self._targets)):
            host, port = self._targets[next(self._turn) % len(self._targets)]
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(host, port)
                try:
                    await asyncio.gather(_copy(reader, back), _copy(there, writer))
                finally:
                    back.close()
                return


class CuttingProxy(TcpProxy):
    """Passes on to the same port of 127.0.0.1, and can lose one answer that is on its way back."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._armed_with = b""
        self.cuts = 0

    def cut_next(self, request: bytes) -> None:
        """Lose the answer to the next request whose bytes contain these."""
        self._armed_with = request

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on both ways until an answer is to be lost."""
        is_cut = asyncio.Event()
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(
                self._requests(reader, back, is_cut), self._answers(there, writer, is_cut)
            )
        finally:
            back.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: asyncio.Event
    ) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if self._armed_with and self._armed_with in data:
                self._armed_with = b""
                is_cut.set()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: asyncio.Event
    ) -> None:
        while data := await reader.read(_PIECE_BYTES):
            if is_cut.is_set():
                self.cuts += 1
                writer.transport.abort()
                raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
