"""A TCP proxy that passes everything on, and can lose one answer that is on its way back."""

from __future__ import annotations

import asyncio
import contextlib


class CuttingProxy:
    """Listens on `host`:`port` and passes on to 127.0.0.1:`port`."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._armed_with = b""
        self.cuts = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port)

    async def close(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_next(self, request: bytes) -> None:
        """Lose the answer to the next request whose bytes contain these."""
        self._armed_with = request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        is_cut = asyncio.Event()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                await asyncio.gather(
                    self._requests(reader, back, is_cut), self._answers(there, writer, is_cut)
                )
            finally:
                back.close()
        writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if self._armed_with and self._armed_with in data:
                self._armed_with = b""
                is_cut.set()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if is_cut.is_set():
                self.cuts += 1
                writer.transport.abort()
                raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
        writer.close()
