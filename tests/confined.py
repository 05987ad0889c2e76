"""A sidecar as a process of another user, and the sessions in it: what the suites about walls stand on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from sidecar.opencode.executable import find_binary
from tests.harness import until_idle, user_message
from tests.sidecar_process import ROOT, SidecarProcess
from tests.waiting import PATIENCE_SECONDS

UID = 10001
USERS = ["own", "other"] if os.geteuid() == 0 else ["own"]
"""Root also plays the image's user, without capabilities."""


@dataclass
class Installation:
    """A Python, our code and opencode, where the user can read them."""

    root: Path
    command: list[str]
    binary: Path
    python: Path
    is_other_user: bool
    has_launcher: bool = False
    """Whether the process that is started is not the sidecar but its parent."""

    def serving(self, _data_dir: Path) -> list[str]:
        """Return the command that serves."""
        return [*self.command, "serve"]

    def environment(self, data_dir: Path) -> dict[str, str]:
        """Return the sidecar's environment, without settings that differ from test to test."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(data_dir),
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{self.root}:{self.root.parent / 'packages'}",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "SIDECAR_ADMIN_PORT": "0",
            "DATA_DIR": str(data_dir),
            "SIDECAR_CHILD_BINARY": str(self.binary),
            "SIDECAR_CONFINEMENT_READABLE": str(self.python.parents[1]),
            "SIDECAR_LOG_FORMAT": "json",
        }

    def beside(self, _sidecar_pid: int) -> list[str]:
        """Return what goes before a command that is to run beside the sidecar, as its user."""
        return self.command[:-3] if self.is_other_user else []

    def seen(self, path: Path, _data_dir: Path) -> str:
        """Return a path as the sidecar and its agents see it."""
        return str(path)

    def seen_pid(self, pid: int) -> int:
        """Return a process id as they see it."""
        return pid


def install(root: Path, user: str) -> Installation:
    """Return what to start the sidecar with; for another user it is copied to `root`, which all may enter."""
    binary = find_binary(None, search_path=None)
    if user == "own":
        python = Path(sys.base_prefix, "bin", "python3")
        return Installation(ROOT, [sys.executable, "-m", "sidecar"], binary, python, False)
    packages = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    _copy(packages, root / "packages")
    _copy(ROOT / "sidecar", root / "code" / "sidecar")
    _link_or_copy(binary, root / "opencode")
    for path in (root, *root.parents):
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
    python = _system_python()
    setpriv = [
        "setpriv",
        f"--reuid={UID}",
        f"--regid={UID}",
        "--clear-groups",
        "--bounding-set=-all",
    ]
    command = [*setpriv, "--inh-caps=-all", "--no-new-privs", str(python), "-m", "sidecar"]
    return Installation(root / "code", command, root / "opencode", python, True)


def _system_python() -> Path:
    """Return a Python that every user can run and that our installed packages fit."""
    for python in (Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        said = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
        if said.stdout.startswith(f"Python {sys.version_info[0]}.{sys.version_info[1]}."):
            return python
    raise AssertionError(f"no Python {sys.version_info[:2]} in /usr that another user could run")


def _copy(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "test", "idlelib")
    shutil.copytree(source, target, copy_function=_link_or_copy, ignore=ignored, symlinks=True)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)


def _link_or_copy(source: str | Path, target: str | Path) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return str(target)


@dataclass
class Sessions:
    """A running sidecar, seen by its client."""

    process: SidecarProcess
    http: aiohttp.ClientSession
    data_dir: Path
    model: str
    has_launcher: bool = False
    environment_id: str = ""

    @property
    def sidecar(self) -> psutil.Process:
        """The sidecar's process."""
        process = psutil.Process(self.process.process.pid)
        return process.children()[0] if self.has_launcher else process

    def workspace(self, session_id: str) -> Path:
        """Return the session's directory."""
        return self.data_dir / "workspaces" / session_id

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        """POST and return the answer."""
        async with self.http.post(path, json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def session(self, *vault_ids: str, configs: list[dict[str, Any]] | None = None) -> str:
        """Make a session; return its id."""
        tools = [{"type": "agent_toolset_20260401", "configs": configs or []}]
        agent = await self.post("/v1/agents", {"name": "a", "model": self.model, "tools": tools})
        if not self.environment_id:
            self.environment_id = (await self.post("/v1/environments", {"name": "e"}))["id"]
        body = {
            "agent": agent["id"],
            "environment_id": self.environment_id,
            "vault_ids": list(vault_ids),
        }
        return str((await self.post("/v1/sessions", body))["id"])

    async def vault(self, name: str, value: str) -> str:
        """Make a vault with one variable; return its id."""
        vault_id = str((await self.post("/v1/vaults", {"display_name": "v"}))["id"])
        auth = {"type": "environment_variable", "secret_name": name, "secret_value": value}
        await self.post(f"/v1/vaults/{vault_id}/credentials", {"auth": auth})
        return vault_id

    async def turn(
        self, session_id: str, prompt: str, seconds: float = 180
    ) -> list[dict[str, Any]]:
        """Run one turn; return its events."""
        path = f"/v1/sessions/{session_id}/events"
        async with self.http.get(f"{path}/stream") as stream:
            await self.post(path, {"events": [user_message(prompt)]})
            return await until_idle(stream, seconds=seconds)

    async def idle(self, session_id: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until no turn of the session runs."""
        async with asyncio.timeout(seconds):
            while True:
                async with self.http.get(f"/v1/sessions/{session_id}") as response:
                    if (await response.json())["status"] == "idle":
                        return
                await asyncio.sleep(0.1)

    async def turns(self, *prompts: tuple[str, str]) -> dict[str, list[dict[str, Any]]]:
        """Run a turn in each session at the same time; return their events by session."""
        running = [self.turn(session_id, prompt) for session_id, prompt in prompts]
        ended = await asyncio.gather(*running)
        return {session_id: events for (session_id, _), events in zip(prompts, ended, strict=True)}

    async def metrics(self) -> str:
        """Return what `/metrics` shows."""
        url = (await self.process.logged("admin listener"))["url"]
        async with self.http.get(f"{url}/metrics") as response:
            return await response.text()

    async def bash(self, session_id: str, command: str, seconds: float = 180) -> str:
        """Have the agent run a command; return what its tool result says."""
        return results(await self.turn(session_id, f"[[bash: {command}]]", seconds))

    async def tool(self, session_id: str, name: str, **arguments: Any) -> str:
        """Have the agent use one of opencode's tools; return what its tool result says."""
        return results(await self.turn(session_id, f"[[tool: {name} {json.dumps(arguments)}]]"))

    async def tools(self, session_id: str, *calls: tuple[str, dict[str, Any]]) -> str:
        """Have the agent use several tools at the same time; return what their results say."""
        script = " ;; ".join(f"{name} {json.dumps(arguments)}" for name, arguments in calls)
        return results(await self.turn(session_id, f"[[tools: {script}]]"))


def results(events: list[dict[str, Any]]) -> str:
    """Return the text of the tool results."""
    found = [event for event in events if event["type"] == "agent.tool_result"]
    assert found, [(event["type"], event.get("name")) for event in events]
    return "".join(block["text"] for event in found for block in event["content"])


@asynccontextmanager
async def confined(
    installation: Installation, data_dir: Path, **settings: str
) -> AsyncIterator[Sessions]:
    """Run a sidecar on the demo gateway's models with these settings."""
    data_dir.mkdir(mode=0o700, exist_ok=True)
    if installation.is_other_user:
        os.chown(data_dir, UID, UID)
    started = await asyncio.create_subprocess_exec(
        *installation.serving(data_dir),
        cwd="/",
        env=installation.environment(data_dir) | settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )
    process = SidecarProcess(started)
    try:
        url = (await process.url()).replace("0.0.0.0", "127.0.0.1")
        key = settings.get("RUNTIME_API_KEY")
        headers = {"x-api-key": key} if key else {}
        async with aiohttp.ClientSession(url, headers=headers) as http:
            async with http.get("/v1/models") as response:
                model = (await response.json())["data"][0]["id"]
            await process.logged("child ready", seconds=120)
            yield Sessions(process, http, data_dir.resolve(), model, installation.has_launcher)
    finally:
        if started.returncode is None:
            sidecar = psutil.Process(started.pid)
            for ended in sidecar.children() if installation.has_launcher else [sidecar]:
                ended.terminate()
            await process.ended()
