"""The official TypeScript SDK, unmodified, through the same steps as the Python smoke client."""

import asyncio
import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.app import Sidecar
from tests.harness import RUNTIME_KEY

PROGRAM = Path(__file__).parent / "typescript"
CACHE = Path(__file__).parents[2] / ".cache" / "typescript-sdk"
STEPS = 12


def _installed() -> Path:
    """Install the SDK from the lock file, once for each content of it; return the program's folder."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "Node.js is needed on PATH"
    assert npm, "npm is needed on PATH"
    lock = (PROGRAM / "package-lock.json").read_bytes()
    folder = CACHE / hashlib.sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / ".installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PROGRAM / name, folder)
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, timeout=150)
            (folder / ".installed").touch()
        shutil.copy(PROGRAM / "smoke.mjs", folder)
    return folder


@pytest.fixture(scope="module")
async def program() -> Path:
    return await asyncio.to_thread(_installed) / "smoke.mjs"


async def test_the_typescript_sdk(sidecar: Sidecar, program: Path) -> None:
    """Models, agents, sessions, streams, confirmations, custom tools, interrupts, the SDK's tool runner."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        sidecar.url,
        RUNTIME_KEY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(150):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    assert text.count("ok: ") == STEPS, text
