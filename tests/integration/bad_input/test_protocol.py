"""Requests that aiohttp itself refuses, before any handler or middleware is asked."""

import asyncio
import json
import logging
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from tests.harness import RUNTIME_KEY
from tests.integration.bad_input.server import Server
from tests.waiting import PATIENCE_SECONDS

KEY = f"x-api-key: {RUNTIME_KEY}\r\n".encode()
BODY = b"content-type: application/json\r\ncontent-length: 2\r\n"


async def answer_to(server: Server, raw: bytes) -> tuple[int, dict[str, str], Any]:
    """Send the bytes as they are and return status, headers and JSON of the answer."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(raw)
        await writer.drain()
        head, _, body = (await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)).partition(
            b"\r\n\r\n"
        )
    finally:
        writer.close()
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"GET /v1/agents?x=" + b"y" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n" + KEY, "65536"),
        (b"GET /v1/agents HTTP/1.1\r\nhost: x\r\nlong: " + b"y" * 70_000 + b"\r\n" + KEY, "65536"),
        (b"GET /v1/agents?x=\xff\xfe\x01 HTTP/1.1\r\nhost: x\r\n" + KEY, "HTTP"),
        (b"GET /v1/agents HTTP/1.1\r\nhost: x\r\nbad header\r\n" + KEY, "HTTP"),
        (b"GET /v1/agents HTTP/9.9\r\nhost: x\r\n" + KEY, "HTTP"),
        (b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n" + KEY, "HTTP"),
        (b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-encoding: br\r\n" + BODY + KEY, "br"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "HTTP"),
    ],
    ids=["url", "header", "query", "colon", "version", "length", "brotli", "tls"],
)
async def test_what_is_no_readable_http_gets_the_envelope(
    server: Server, caplog: pytest.LogCaptureFixture, raw: bytes, says: str
) -> None:
    """A 400 with type, message and request id, without the caller's bytes, and no error in our log."""
    with capture_logs() as logs:
        end = b"{}\r\n" if b"content-encoding" in raw else b""
        status, headers, body = await answer_to(server, raw + b"\r\n" + end)

    assert status == 400
    assert headers["content-type"].startswith("application/json")
    assert body["error"]["type"] == "invalid_request_error"
    assert says in body["error"]["message"]
    assert RUNTIME_KEY not in json.dumps(body)
    assert body["request_id"] == headers["request-id"]
    assert not [line for line in logs if line["log_level"] in {"warning", "error", "critical"}]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    await server.raw.call("GET", "/v1/agents")
