"""A real S3 server (nanio) over a directory: it checks signatures and takes uploads in parts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.waiting import until

ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"
BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where it is. Its bucket is the folder `BUCKET` of the directory, and an object a file in that."""

    endpoint: str

    def settings(self) -> dict[str, str]:
        """Return what a sidecar needs to use it."""
        return {
            "SIDECAR_ARCHIVE_URL": f"s3://{BUCKET}",
            "SIDECAR_ARCHIVE_ENDPOINT": self.endpoint,
            "SIDECAR_ARCHIVE_ACCESS_KEY": ACCESS_KEY,
            "SIDECAR_ARCHIVE_SECRET_KEY": SECRET_KEY,
        }


@asynccontextmanager
async def s3_server(directory: Path) -> AsyncIterator[S3Server]:
    """Run the server until the block ends."""
    (directory / BUCKET).mkdir(parents=True)
    with socket.socket() as probe:  # it takes no port 0
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("nanio"),
        *("serve", "--data-dir", directory, "--host", "127.0.0.1", "--port", str(port)),
        env={**os.environ, "NANIO_ACCESS_KEY": ACCESS_KEY, "NANIO_SECRET_KEY": SECRET_KEY},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        await _answers(server.endpoint, process)
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as http:

        async def is_up() -> bool:
            assert process.returncode is None, "the S3 server ended"
            try:
                async with http.get(url):
                    return True
            except aiohttp.ClientError:
                return False

        await until(is_up)
