"""What a served sidecar writes to stdout: JSON lines, the child's among them, probes and secrets not."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.small_sidecar import fake_child
from tests.waiting import patience

RUNTIME_KEY = "runtime-key-that-must-not-be-logged"
PROBES = ("/health", "/livez", "/readyz", "/startupz")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Served:
    """`opencode-sidecar serve` as a process, and the lines that it wrote so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.raw: list[str] = []

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines as objects; fails for one that is none."""
        return [json.loads(line) for line in self.raw]

    async def until(self, **fields: object) -> dict[str, Any]:
        """Return the first line with these fields, reading on until it is there."""
        for entry in self.lines:
            if fields.items() <= entry.items():
                return entry
        assert self.process.stdout is not None
        async with patience():
            while line := (await self.process.stdout.readline()).decode():
                self.raw.append(line)
                entry: dict[str, Any] = json.loads(line)
                if fields.items() <= entry.items():
                    return entry
        raise AssertionError(f"it ended without {fields}")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DATA_DIR": str(tmp_path / "data"),
        "HOST": "127.0.0.1",
        "PORT": "0",
        "RUNTIME_API_KEY": RUNTIME_KEY,
        "SIDECAR_ADMIN_PORT": "0",
        "SIDECAR_CHILD_BINARY": str(fake_child(tmp_path)),
        "SIDECAR_CONFINEMENT": "off",  # the fake is a program of the tests
        "SIDECAR_CHILD_DRAIN_SECONDS": "0.1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sidecar", "serve"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    yield Served(process)
    if process.returncode is None:
        process.terminate()
        await process.communicate()


async def test_the_log(served: Served) -> None:
    """Every line is JSON; requests are logged with their trace, probes and scrapes are not."""
    admin = (await served.until(event="admin listener"))["url"]
    url = (await served.until(event="serving"))["url"]
    said = await served.until(event="child says", line="listening")
    assert said["source"] == "child"
    headers = {"x-api-key": RUNTIME_KEY}
    async with aiohttp.ClientSession(headers=headers) as http:
        for path in PROBES:
            async with http.get(url + path) as answer:
                assert answer.status in {200, 503}
        async with http.get(f"{admin}/metrics") as answer:
            assert answer.status == 200
        trace = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        async with http.get(f"{url}/v1/models?limit=1", headers=trace) as answer:
            request_id = answer.headers["request-id"]
    entry = await served.until(event="request answered")
    assert entry["path"] == "/v1/models"
    assert entry["request_id"] == request_id
    assert entry["trace_id"] == TRACE
    assert entry["status"] == 200
    served.process.terminate()
    rest, _ = await served.process.communicate()
    served.raw += rest.decode().splitlines()
    assert served.process.returncode == 0
    assert all({"event", "level", "timestamp"} <= line.keys() for line in served.lines)
    answered = [line["path"] for line in served.lines if line["event"] == "request answered"]
    assert answered == ["/v1/models"]
    assert RUNTIME_KEY not in "".join(served.raw)
