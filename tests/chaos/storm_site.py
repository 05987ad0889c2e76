"""The sidecar of a storm: a process of its own on a fixed port, started again whenever it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.lying_gateway import LyingGateway
from tests.chaos.target import Target
from tests.harness import GATEWAY_KEY
from tests.ports import free_port
from tests.sidecar_process import SidecarProcess, processes_of
from tests.waiting import until

KEY = "storm-key-4b1d9e"
_READY_SECONDS = 180.0


@asynccontextmanager
async def site_in(root: Path, **environment: str) -> AsyncIterator[Site]:
    """A sidecar that is ready, in an empty directory, with a gateway of its own; nothing of it is left."""
    gateway = LyingGateway(key=GATEWAY_KEY)
    await gateway.start()
    site = Site(root, gateway)
    site.environment.update(environment)
    try:
        await site.start()
        await site.ready()
        yield site
        left = await site.end()
        assert not left, left
    finally:
        await site.clear_away()


def _stall_seconds() -> float:
    """Return what counts as holding the event loop: 50 ms, and more where the processor is slower.

    A fixed piece of work takes 25 ms of processor time on a machine of 2026; the fastest of three counts.
    """

    def work() -> float:
        began = time.process_time()
        for _ in range(400):
            json.loads(json.dumps(list(range(400))))
        return time.process_time() - began

    return 0.05 * max(1.0, min(work() for _ in range(3)) / 0.025)


class Site:
    """Where the sidecar runs. `output` is everything that any of its processes wrote."""

    def __init__(self, root: Path, gateway: LyingGateway) -> None:
        self._gateway = gateway
        self._gateway_address = urlsplit(gateway.url)
        port = free_port()
        self.data_dir = root / "data"
        self.url = f"http://127.0.0.1:{port}"
        self.target = Target(self.url, KEY)
        self.environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATA_DIR": str(self.data_dir),
            "LITELLM_BASE_URL": f"{gateway.url}/v1",
            "LITELLM_API_KEY": GATEWAY_KEY,
            "RUNTIME_API_KEY": KEY,
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_HTTP_BOOKKEEPING_EVENTS": "1",
            "SIDECAR_ADMIN_PORT": "0",
            "SIDECAR_CHILD_HEALTH_INTERVAL_SECONDS": "1",
            "SIDECAR_CHILD_HEALTH_TIMEOUT_SECONDS": "5",
            "SIDECAR_CHILD_DRAIN_SECONDS": "3",
            "SIDECAR_CHILD_CRASH_LOOP_LIMIT": "100",
            "SIDECAR_CHILD_RESTART_PATIENCE_SECONDS": "5",
            "SIDECAR_LOG_LOOP_STALL_SECONDS": str(_stall_seconds()),
        }
        self._processes: list[SidecarProcess] = []

    @property
    def process(self) -> SidecarProcess:
        """The current process."""
        return self._processes[-1]

    @property
    def output(self) -> str:
        """What all of them wrote."""
        return "\n".join(process.output for process in self._processes)

    async def start(self) -> None:
        """Start it; it is not waited for."""
        self._processes.append(await SidecarProcess.start(**self.environment))

    async def ready(self) -> float:
        """Wait until it is ready for turns; return how long that took, seconds. Starts it if it has ended."""
        began = time.monotonic()
        async with asyncio.timeout(_READY_SECONDS):
            while not await self._is_ready():
                if self.process.process.returncode is not None:
                    await self.start()
                await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def _is_ready(self) -> bool:
        try:
            answer = await self.target.call("GET", "/readyz", seconds=5)
        except (OSError, EOFError, TimeoutError):
            return False
        return answer.status == 200

    async def restart_opencode(self) -> None:
        """Have opencode replaced, as an operator does."""
        admin = Target(str((await self.process.logged("admin listener"))["url"]), KEY)
        answer = await admin.call("POST", "/admin/restart", {}, seconds=30)
        assert answer.status == 202, answer

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "sidecar.db"

    async def stop_gateway(self) -> None:
        """Let the gateway be gone: connections to it are refused, and those that are open end."""
        await self._gateway.close()

    def set_lie(self, lie: str | None) -> None:
        """Have the gateway's lists of models lie, see `LIES`, or be honest again."""
        self._gateway.lie = lie

    async def start_gateway(self) -> None:
        """Let another one listen where it was."""
        host, port = self._gateway_address.hostname, self._gateway_address.port
        assert host is not None
        assert port is not None
        self._gateway = LyingGateway(host=host, port=port, key=GATEWAY_KEY)
        await self._gateway.start()

    def opencode_start_seconds(self) -> float:
        """Return how long the first opencode took from its start until it was ready."""
        return float(self._processes[0].entries("child ready")[0]["seconds"])

    def stalls(self) -> list[str]:
        """Return what held the event loop for too long."""
        return [
            f"{entry['seconds']} s in {entry['place']}"
            for process in self._processes
            for entry in process.entries("event loop held")
        ]

    def child_pid(self) -> int | None:
        """Return the process id of the opencode that was started last."""
        started = self.process.entries("child started")
        return int(started[-1]["pid"]) if started else None

    def send_child(self, number: signal.Signals) -> None:
        """Send opencode a signal, if it is there."""
        pid = self.child_pid()
        if pid is not None:
            self.send(pid, number)

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of this site, if it is there."""
        if self._is_ours(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _is_ours(self, pid: int) -> bool:
        with suppress(OSError):
            return os.fsencode(self.data_dir) in Path(f"/proc/{pid}/environ").read_bytes()
        return False

    async def end(self) -> list[int]:
        """Stop it as a platform does; return the processes that are left."""
        if self.process.process.returncode is None:
            self.process.send(signal.SIGTERM)
            await self.process.ended(90)
        with suppress(AssertionError):
            await until(lambda: not processes_of(self.data_dir))
        return processes_of(self.data_dir)

    async def clear_away(self) -> None:
        """Leave nothing behind, whatever has happened."""
        await self._gateway.close()
        for process in self._processes:
            if process.process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send(signal.SIGKILL)
                await process.process.wait()
        for pid in processes_of(self.data_dir):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
