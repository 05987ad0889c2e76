"""The real LiteLLM proxy as a subprocess, from a virtual environment of its own.

It reads nothing but the configuration given here, and reaches no network: its cost map is the one in
the package. Any failure to start carries the end of its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 120.0
"""12 s were measured on two cores. Below the test runner's own limit, so that the log is shown."""
STOP_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LOG_TAIL_BYTES = 6_000


class LiteLLMError(RuntimeError):
    """The proxy is not installed, did not start, or died. The message ends with its log."""


class LiteLLMProxy:
    """A LiteLLM proxy on a free loopback port, with a random master key.

    `config` is what its YAML file holds: `model_list` and settings (the master key is added here).
    `venv` is where `litellm[proxy]` is installed (`make e2e-litellm` does it).
    """

    def __init__(self, config: dict[str, Any], *, venv: Path) -> None:
        self.key = f"sk-{secrets.token_hex(24)}"
        self.port = _free_port()
        self._config = config
        self._executable = venv / "bin" / "litellm"
        self._folder = tempfile.TemporaryDirectory(prefix="litellm-proxy-")
        self._log_file = Path(self._folder.name) / "proxy.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The base URL without `/v1`."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_tail(self) -> str:
        """The end of what the proxy has printed."""
        if not self._log_file.exists():
            return "(nothing printed)"
        return self._log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")

    async def start(self) -> None:
        """Start and wait until it is live. Raises LiteLLMError, and leaves nothing running, if not."""
        if not self._executable.exists():
            raise LiteLLMError(f"there is no LiteLLM at {self._executable}: run make e2e-litellm")
        config_file = Path(self._folder.name) / "config.yaml"
        settings = {
            **self._config.get("general_settings", {}),
            "master_key": "os.environ/LITELLM_MASTER_KEY",
        }
        # JSON is YAML, and needs no further library.
        config_file.write_text(json.dumps({**self._config, "general_settings": settings}, indent=1))
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._executable),
                *("--config", str(config_file), "--host", HOST, "--port", str(self.port)),
                cwd=self._folder.name,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a process group of its own, so that all of it can be ended
            )
        try:
            await self._wait_until_live(self._process)
        except BaseException:
            await self._stop()
            raise

    async def restart(self, config: dict[str, Any]) -> None:
        """Replace the configuration; the port and the key stay. This is how it learns of models."""
        await self._stop()
        self._config = config
        await self.start()

    async def close(self) -> None:
        """End the whole process group and remove its files."""
        await self._stop()
        self._folder.cleanup()

    async def __aenter__(self) -> LiteLLMProxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _environment(self) -> dict[str, str]:
        """Nothing of ours but the path: a DATABASE_URL or a provider's key would change its behaviour."""
        return {
            "PATH": f"{self._executable.parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": self._folder.name,
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NO_PROXY": "*",
        }

    async def _wait_until_live(self, process: asyncio.subprocess.Process) -> None:
        exited = asyncio.create_task(process.wait())
        alive = asyncio.create_task(self._poll())
        try:
            await asyncio.wait(
                {exited, alive}, timeout=START_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if exited.done():
                status = exited.result()
                raise LiteLLMError(f"LiteLLM exited with {status}; its log ends:\n{self.log_tail}")
            if not alive.done():
                waited = f"{START_TIMEOUT_SECONDS:.0f} s"
                raise LiteLLMError(
                    f"LiteLLM was not live after {waited}; its log ends:\n{self.log_tail}"
                )
        finally:
            for task in (exited, alive):
                task.cancel()
            await asyncio.gather(exited, alive, return_exceptions=True)

    async def _poll(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.url}/health/liveliness") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(_POLL_SECONDS)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_SECONDS)
        # Its workers may outlive the leader, so the group is ended even when the leader is gone.
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
