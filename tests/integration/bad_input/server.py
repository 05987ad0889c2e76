"""The sidecar that is sent wrong requests, and what must be true of its refusals."""

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import psycopg

from sidecar.app import RunningSidecar
from sidecar.config import StorageSettings
from sidecar.ids import new_id
from tests.harness import RUNTIME_KEY
from tests.raw_client import RawClient
from tests.waiting import PATIENCE_SECONDS

TABLES = ("agents", "agent_versions", "environments", "sessions", "events", "queued_events")
AGENT = {"name": "a", "model": "openai/gpt-4o"}
CREATORS = ("/v1/agents", "/v1/environments", "/v1/sessions")
UNKNOWN = {"agents": new_id("agent"), "environments": new_id("env"), "sessions": new_id("sesn")}


class Server:
    """The sidecar under test and what its database holds."""

    def __init__(
        self, sidecar: RunningSidecar, settings: StorageSettings, http: aiohttp.ClientSession
    ) -> None:
        self.url = sidecar.url
        self.http = http
        self.raw = RawClient(http)
        self._settings = settings

    def counts(self) -> dict[str, int]:
        """Return the number of rows per table, as another process would see them."""
        url = self._settings.database_url
        opened: Any = (
            psycopg.connect(url.get_secret_value())
            if url is not None
            else sqlite3.connect(self._settings.database_file)
        )
        with closing(opened) as connection:
            return {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in TABLES
            }

    async def refused(
        self, method: str, path: str, status: int, type_: str, *says: str, **options: Any
    ) -> dict[str, Any]:
        """Send; check status, envelope, request id, words of the message, and that no row came or went."""
        before = self.counts()
        async with self.http.request(method, path, **options) as response:
            body = await response.json()
            check_envelope(response, body, status, type_)
        for word in says:
            assert word in body["error"]["message"]
        assert self.counts() == before
        return {"headers": response.headers, **body}


def check_envelope(response: Any, body: Any, status: int, type_: str) -> None:
    assert response.status == status, body
    assert response.headers["content-type"].startswith("application/json")
    native = {"name", "data"} if "name" in body else set()  # what opencode's own clients read
    assert body.keys() == {"type", "error", "request_id"} | native
    assert body["type"] == "error"
    assert body["error"]["type"] == type_
    assert body["error"]["message"]
    assert body["request_id"] == response.headers["request-id"]
    assert body["request_id"].startswith("req_")


async def speak(
    server: Server, method: str, path: str, body: bytes = b"", key: bytes = RUNTIME_KEY.encode()
) -> tuple[int, dict[str, str], Any]:
    """Send bytes exactly as given, without a client library that tidies paths up."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode()
            + b"x-api-key: "
            + key
            + b"\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        raw = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    finally:
        writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, json.loads(rest)
