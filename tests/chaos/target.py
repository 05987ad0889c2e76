"""The server that the programs of this folder are pointed at, and raw connections to it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Target:
    """A running sidecar: its URL, its key, and its process id where its memory is looked at."""

    url: str
    key: str | None = None
    pid: int | None = None

    @classmethod
    def from_arguments(cls, description: str) -> Target:
        """Read `URL [--key KEY] [--pid PID]` from the command line."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument(
            "url", help="where the sidecar serves, for example http://127.0.0.1:8080"
        )
        parser.add_argument("--key", default=os.environ.get("RUNTIME_API_KEY"))
        parser.add_argument(
            "--pid", type=int, help="its process id, to report memory and descriptors"
        )
        given = parser.parse_args()
        return cls(given.url, given.key, given.pid)

    async def connect(self, *, receive_buffer: int | None = None) -> Connection:
        """Open a TCP connection, with a small receive buffer for readers that do not read."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        if receive_buffer is None:
            return await asyncio.open_connection(address.hostname, address.port)
        import socket  # only here

        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)  # its only parameter
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        return await asyncio.open_connection(sock=sock, limit=1024)

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """Return a request's head with our key."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
        if self.key:
            lines.append(f"x-api-key: {self.key}")
        return "\r\n".join([*lines, "", ""]).encode()

    async def call(
        self, method: str, path: str, body: Any = None, *, seconds: float = 60
    ) -> Answer:
        """Send one request on a connection of its own and read the answer."""
        raw = b"" if body is None else json.dumps(body).encode()
        async with self.open() as (reader, writer):
            head = self.head(method, path, f"content-length: {len(raw)}", "connection: close")
            writer.write(head + raw)
            return await read_answer(reader, seconds=seconds)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Connection]:
        """A connection that is closed afterwards."""
        reader, writer = await self.connect()
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def resident_bytes(self) -> int:
        """Return the resident size of the process."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """Return its largest resident size since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin a new measurement of the peak."""
        (Path("/proc") / str(self.pid) / "clear_refs").write_text("5")

    def descriptors(self) -> int:
        """Return how many descriptors the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


@dataclass(frozen=True)
class Answer:
    """A status, headers in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def is_enveloped(self) -> bool:
        """Whether a refusal is Anthropic's error envelope with a request id; opencode's routes add to it."""
        try:
            return (
                self.json.keys() - {"name", "data"} == {"type", "error", "request_id"}
                and self.json["request_id"] == self.headers["request-id"]
            )
        except (ValueError, AttributeError, KeyError, TypeError):
            return False


async def read_answer(reader: asyncio.StreamReader, *, seconds: float = 60) -> Answer:
    """Read one answer with a content-length, or to the end of the connection."""
    async with asyncio.timeout(seconds):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length")
        body = await (reader.read() if length is None else reader.readexactly(int(length)))
        return Answer(int(lines[0].split()[1]), headers, body)


class Probe:
    """Asks `/livez` on new connections all the while, as a kubelet does, and keeps the longest wait."""

    def __init__(self, target: Target, *, pause_seconds: float = 0.02) -> None:
        self._target = target
        self._pause_seconds = pause_seconds
        self.asked = 0
        self.failures: list[str] = []
        self.longest_seconds = 0.0

    async def __aenter__(self) -> Probe:
        self._task = asyncio.create_task(self._run(), name="probe")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            began = time.perf_counter()
            try:
                answer = await self._target.call("GET", "/livez", seconds=30)
                if answer.status != 200:
                    self.failures.append(f"{answer.status}")
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(repr(error))
            self.asked += 1
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - began)
            await asyncio.sleep(self._pause_seconds)
