"""The programs that are measured, each in a process of its own so that measuring costs them nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
RUNTIME_KEY = "runtime-key-of-the-benchmarks"
GATEWAY_KEY = "gateway-key-of-the-benchmarks"
BASIC_MODEL = "vendor/model-000"

_READY_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.005
_LOG_TAIL_BYTES = 4_000


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on disk (/tmp is memory on many machines) and in no git repository, which opencode
    would take for the project and look through."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


class Program:
    """A started program with its log; `end` stops it and everything it started."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        *arguments: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        executable: str = sys.executable,
    ) -> Program:
        """Run this Python, or another executable, with `arguments`; nothing of our environment but the path
        is passed on."""
        inherited = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(log.parent)}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                executable,
                *arguments,
                cwd=ROOT,
                env={**inherited, **(environment or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def resident_bytes(self) -> int:
        """Return the resident memory of this one process, without what it started."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def cpu_seconds(self) -> float:
        """Return the processor time this one process has used so far, without what it started."""
        return cpu_seconds(self.pid)

    async def answers(self, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the body of the first 200 from `url`. Raises RuntimeError with the log's end."""
        # opencode leaves a request without an answer that comes as soon as its port is open.
        bound = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(headers=headers, timeout=bound) as http:

            async def ask() -> bytes | None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(url) as response:
                        return await response.read() if response.status == 200 else None
                return None

            return await self._until(ask, f"{url} did not answer 200")

    async def exit_status(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        async with asyncio.timeout(_READY_SECONDS):
            return await self._process.wait()

    async def first_line(self) -> str:
        """Return the first line it prints. Raises RuntimeError when it prints none."""

        async def look() -> str | None:
            line, end, _ = self._log.read_text().partition("\n")
            return line if end else None

        return await self._until(look, "nothing was printed")

    async def _until(self, look: Callable[[], Awaitable[T | None]], complaint: str) -> T:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                while self._process.returncode is None:
                    if (found := await look()) is not None:
                        return found
                    await asyncio.sleep(_POLL_SECONDS)
        tail = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        raise RuntimeError(f"{complaint}; the log ends:\n{tail}")

    async def end(self) -> None:
        """SIGTERM, wait, then kill what is left of it and of its children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.pid).children(recursive=True)
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), _STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        await self._process.wait()


@dataclass(frozen=True, slots=True)
class Server:
    """A program that listens."""

    url: str
    program: Program


@asynccontextmanager
async def gateway(directory: Path, *, models: int = 1) -> AsyncIterator[Server]:
    """The scripted gateway with that many chat models, `vendor/model-000` and so on."""
    port, listed = free_port(), directory / "models.json"
    listed.write_text(json.dumps([{"id": name} for name in model_names(models)]))
    program = await Program.start(
        *("-m", "sidecar.demo_gateway", "--port", str(port), "--key", GATEWAY_KEY),
        *("--models", str(listed)),
        log=directory / "gateway.log",
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await program.answers(f"{url}/health/liveliness")
        yield Server(url, program)
    finally:
        await program.end()


@asynccontextmanager
async def flood(directory: Path, name: str = "flood") -> AsyncIterator[Server]:
    """A program that streams as fast as it can, see `bench.flood`."""
    port = free_port()
    program = await Program.start("-m", "bench.flood", str(port), log=directory / f"{name}.log")
    url = f"http://127.0.0.1:{port}"
    try:
        await program.answers(f"{url}/global/health")
        yield Server(url, program)
    finally:
        await program.end()


@asynccontextmanager
async def patient_client(
    headers: Mapping[str, str], url: str | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of as many and as long answers as there are."""
    async with aiohttp.ClientSession(
        url,
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield session


@asynccontextmanager
async def sidecar(
    directory: Path, gateway_url: str, *, gateway_key: str = GATEWAY_KEY, wait_for: str = "/readyz"
) -> AsyncIterator[Server]:
    """A sidecar as users run it, with its data below `directory`, once `wait_for` answers 200."""
    server = await start_sidecar(directory, gateway_url, gateway_key=gateway_key)
    try:
        await server.program.answers(server.url + wait_for, {"x-api-key": RUNTIME_KEY})
        yield server
    finally:
        await server.program.end()


async def start_sidecar(
    directory: Path,
    gateway_url: str,
    *,
    gateway_key: str = GATEWAY_KEY,
    settings: Mapping[str, str] | None = None,
) -> Server:
    """Spawn a sidecar without waiting for it. The caller ends the program."""
    port = free_port()
    program = await Program.start(
        *("-m", "sidecar", "serve"),
        log=directory / "sidecar.log",
        environment={
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "RUNTIME_API_KEY": RUNTIME_KEY,
            "DATA_DIR": str(directory / "data"),
            "LITELLM_BASE_URL": gateway_url,
            "LITELLM_API_KEY": gateway_key,
            "SIDECAR_CHILD_DRAIN_SECONDS": "2",
            "SIDECAR_ADMIN_PORT": "0",
            **(settings or {}),
        },
    )
    return Server(f"http://127.0.0.1:{port}", program)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, in steps of 10 ms."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def model_names(count: int) -> Sequence[str]:
    """Return the ids of the gateway's models; the first is `BASIC_MODEL`."""
    return [f"vendor/model-{number:03}" for number in range(count)]


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
