"""Node programs of the tests: their packages are installed from a lock file, once for each content of it."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

_CACHE = Path(__file__).parents[1] / ".cache" / "node-programs"


def install(folder: Path) -> Path:
    """Install what `folder`'s lock file names; return a folder with the packages and the programs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "Node.js is needed on PATH"
    assert npm, "npm is needed on PATH"
    lock = (folder / "package-lock.json").read_bytes()
    target = _CACHE / f"{folder.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (target / ".installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, target)
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=target, check=True, stdin=subprocess.DEVNULL, timeout=300)
            (target / ".installed").touch()
        for program in folder.glob("*.mjs"):
            shutil.copy(program, target)
    return target


async def run(program: Path, *arguments: str, seconds: float = 150) -> str:
    """Run it; return what it printed. Fails when it does."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(program),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode()
    assert process.returncode == 0, text
    return text
