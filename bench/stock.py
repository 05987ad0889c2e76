"""opencode as it is installed, with its defaults: what a user would run instead of the sidecar.

Only the gateway is configured, as opencode's documentation says. Its own traffic to the network (the list of
models.dev, updates) is switched off: it would measure the network, in opencode's disfavour.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import aiohttp

from bench.processes import BASIC_MODEL, GATEWAY_KEY, free_port
from bench.straight import StraightOpencode
from sidecar.naming import GATEWAY_PROVIDER
from sidecar.opencode.boot_process import BootProcess
from sidecar.opencode.client import ChildClient
from sidecar.opencode.executable import find_binary
from sidecar.processes.process import ChildProcess

DEFAULT_AGENT = "build"
_QUIET = ("OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_AUTOUPDATE")
_READY_SECONDS = 120.0
_POLL_SECONDS = 0.005


def configure(home: Path, *, gateway_url: str, models: list[str]) -> None:
    """Write the user's config file: the gateway as a provider, and its models."""
    folder = home / ".config" / "opencode"
    folder.mkdir(parents=True, exist_ok=True)
    provider = {
        "name": "LiteLLM",
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{gateway_url}/v1", "apiKey": GATEWAY_KEY},
        "models": {name: {"name": name} for name in models},
    }
    document = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {GATEWAY_PROVIDER: provider},
        "model": f"{GATEWAY_PROVIDER}/{BASIC_MODEL}",
    }
    (folder / "opencode.json").write_text(json.dumps(document))


async def spawn(home: Path, session: aiohttp.ClientSession) -> BootProcess:
    """Start `opencode serve` for that user, without waiting for it."""
    port = free_port()
    command = [str(find_binary(None, search_path=os.environ.get("PATH"))), "serve"]
    process = await ChildProcess.spawn(
        [*command, "--hostname", "127.0.0.1", "--port", str(port)],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            **dict.fromkeys(_QUIET, "1"),
        },
        cwd=home,
        on_line=lambda _stream, _text: None,
    )
    client = ChildClient(
        base_url=f"http://127.0.0.1:{port}",
        password="",
        session=session,
        request_timeout_seconds=_READY_SECONDS,
    )
    return BootProcess(process=process, client=client, port=port)


async def seconds_to_its_models(home: Path) -> float:
    """Start it, and return the seconds until it has answered its list of models; it is ended then."""
    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        boot = await spawn(home, session)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                # One that asks for the list earlier, when the port is open, is never answered.
                while True:
                    if await boot.version() is not None:
                        break
                    await asyncio.sleep(_POLL_SECONDS)
                await boot.client.providers(home)
                return time.perf_counter() - began
        finally:
            await boot.end(is_polite=True)


class StockOpencode(StraightOpencode):
    """The same turns, in an opencode with its defaults and its default agent."""

    agent = DEFAULT_AGENT

    async def _spawn(self) -> BootProcess:
        home = self._directory / "home"
        await asyncio.to_thread(
            configure, home, gateway_url=self._gateway_url, models=[BASIC_MODEL]
        )
        return await spawn(home, self._session)
