"""A pooler before PostgreSQL, as PgBouncer behaves: its own backend ids, and in transaction mode another
server connection for each transaction. For clients without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from tests.cluster.proxies import TcpProxy

_BACKEND_KEY, _READY = b"K", b"Z"
_IDLE = b"I"


class Pooler(TcpProxy):
    """Gives each client two server connections, and uses them by turns unless it `pins` the first."""

    def __init__(self, server_port: int, *, pins: bool) -> None:
        super().__init__()
        self._server_port = server_port
        self._pins = pins

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Log on to both, then pass on transactions."""
        client = _Client(writer, may_switch=not self._pins)
        (length,) = struct.unpack(">I", size := await reader.readexactly(4))
        start = size + await reader.readexactly(length - 4)
        servers = [await asyncio.open_connection("127.0.0.1", self._server_port) for _ in range(2)]
        answers: list[asyncio.Task[None]] = []
        try:
            for number, (answer, server) in enumerate(servers):
                server.write(start)
                answers.append(asyncio.create_task(client.answer(number, answer)))
                await client.is_ready[number].wait()
            while request := await reader.read(1 << 16):
                servers[client.number][1].write(request)
        finally:
            for task in answers:
                task.cancel()
            for _, server in servers:
                server.close()


class _Client:
    """What one client is answered, and which server connection it has."""

    def __init__(self, writer: asyncio.StreamWriter, *, may_switch: bool) -> None:
        self._writer = writer
        self._may_switch = may_switch
        self.number = 0
        self.is_ready = (asyncio.Event(), asyncio.Event())

    async def answer(self, number: int, server: asyncio.StreamReader) -> None:
        """Pass on what a server says; of the second one not what it says at the start."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await server.readexactly(5)
                body = await server.readexactly(struct.unpack(">I", head[1:])[0] - 4)
                if head[:1] == _BACKEND_KEY:
                    body = struct.pack(">I", 1) + body[4:]
                is_starting = not self.is_ready[number].is_set()
                if number == 0 or not is_starting:
                    self._writer.write(head + body)
                if head[:1] != _READY:
                    continue
                self.is_ready[number].set()
                if self._may_switch and body == _IDLE and not is_starting:
                    self.number = 1 - number
        self._writer.close()
