"""The real program as a process of its own: start it, read its log, find what it left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE_SECONDS, until

ROOT = Path(__file__).parents[1]
_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")


class SidecarProcess:
    """A running `python -m sidecar serve`. Make it with `serving` or run it to its end with `run`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        """Everything it wrote to stdout and stderr so far."""
        self._news = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read(stream))
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]

    @classmethod
    async def start(cls, *arguments: str, **environment: str) -> SidecarProcess:
        """Start with exactly these settings."""
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar",
            *(arguments or ("serve",)),
            cwd=ROOT,
            env=kept | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        return cls(process)

    @property
    def output(self) -> str:
        """Everything it wrote."""
        return "\n".join(self.lines)

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries of that event."""
        return [e for e in map(_parsed, self.lines) if e.get("event") == event]

    async def logged(
        self, event: str, *, count: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait for the `count`-th log entry of that event."""
        async with asyncio.timeout(seconds):
            while len(found := self.entries(event)) < count:
                self._news.clear()
                assert self.process.returncode is None, self.output
                await self._news.wait()
        return found[count - 1]

    async def url(self) -> str:
        """Return the URL it serves, once it does."""
        return str((await self.logged("serving"))["url"])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the exit and the last words; return the exit code."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.lines.append(line.decode(errors="replace").rstrip())
            self._news.set()
        self._news.set()


@asynccontextmanager
async def serving(**environment: str) -> AsyncIterator[SidecarProcess]:
    """Run the program; whatever happens, it and what it started are gone afterwards."""
    sidecar = await SidecarProcess.start(**{"SIDECAR_HTTP_BOOKKEEPING_EVENTS": "1"} | environment)
    try:
        yield sidecar
    finally:
        if sidecar.process.returncode is None:
            with suppress(ProcessLookupError):
                sidecar.send(signal.SIGKILL)
            await sidecar.process.wait()
        for pid in processes_of(Path(environment["DATA_DIR"])):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def run(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run the program to its end; return exit code and output."""
    sidecar = await SidecarProcess.start(*arguments, **environment)
    return await sidecar.ended(), sidecar.output


def environments_of(data_dir: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (pid, environ) of every live process whose environment names the data dir."""
    needle = os.fsencode(data_dir)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                environ = (entry / "environ").read_bytes()
                if needle in environ:
                    yield int(entry.name), environ


def processes_of(data_dir: Path) -> list[int]:
    """Return the live processes whose environment names the data dir."""
    return [pid for pid, _ in environments_of(data_dir)]


async def all_gone(data_dir: Path) -> None:
    """Wait until no process of the data dir is left."""
    await until(lambda: not processes_of(data_dir))


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
