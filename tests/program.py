"""The command line as users meet it: a process of its own with an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import patience

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Done:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return json.loads(self.out)


def environment(home: Path, **variables: str | None) -> dict[str, str]:
    """Only what a program needs to run, and what is given."""
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "200"}
    return base | {name: value for name, value in variables.items() if value is not None}


async def spawn(
    *arguments: str, home: Path, stdin: int = asyncio.subprocess.DEVNULL, **variables: str | None
) -> asyncio.subprocess.Process:
    """Start `python -m sidecar ...`."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *arguments,
        cwd=ROOT,
        env=environment(home, **variables),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def sidecar(*arguments: str, home: Path, **variables: str | None) -> Done:
    """Run `python -m sidecar ...` to its end."""
    process = await spawn(*arguments, home=home, **variables)
    try:
        async with patience():
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())
