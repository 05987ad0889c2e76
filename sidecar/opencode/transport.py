"""How opencode is asked: one request function, and what its answers mean when they are not the wanted one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from sidecar.aiokit import SMALL_BYTES, aside
from sidecar.errors import ChildError, ChildSlowError, ChildUnavailableError
from sidecar.opencode.environment import USERNAME
from sidecar.wire.json_text import read_leniently
from sidecar.wire.json_writing import json_chunks, json_size, write_json

UNBOUNDED = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
"""For answers that take as long as they take; only connecting is bounded."""

_BODY_EXCERPT = 256
"""Characters of a failed answer that may reach a log or a client."""
_RETRY_AFTER_SECONDS = 2.0


class Transport:
    """Requests to one boot of the child. `call` and `send` raise as `ChildClient` says."""

    def __init__(
        self,
        *,
        base_url: str,
        password: str,
        session: aiohttp.ClientSession,
        request_timeout_seconds: float,
    ) -> None:
        self.base_url = base_url
        self._session = session
        credentials = base64.b64encode(f"{USERNAME}:{password}".encode()).decode()
        self._authorization = f"Basic {credentials}"
        self._bounded = aiohttp.ClientTimeout(total=request_timeout_seconds)

    async def call(
        self,
        method: str,
        path: str,
        *,
        directory: Path | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        bound: aiohttp.ClientTimeout | None = None,
    ) -> Any:
        """Send JSON and return the JSON of the answer, None for an empty one."""
        pairs = dict(query or {})
        if directory is not None:
            pairs["directory"] = str(directory)
        encoded = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs.items())
        target = f"{self.base_url}{path}" + (f"?{encoded}" if encoded else "")
        data: bytes | AsyncIterable[bytes] | None = None
        headers = None
        if body is not None:
            headers = {"content-type": "application/json"}
            is_small = json_size(body) <= SMALL_BYTES
            data = write_json(body, is_ascii=False).encode() if is_small else _streamed(body)
        response = await self.send(
            method, target, data=data, headers=headers, bound=bound or self._bounded
        )
        async with response:
            try:
                raw = await response.read()
            except (aiohttp.ClientError, OSError) as error:
                raise _unavailable(method, path, error) from error
        if response.status >= 400:
            raise _refused(method, path, response.status, raw.decode(errors="replace"))
        try:
            return await aside(len(raw), lambda: read_leniently(raw)) if raw else None
        except ValueError as error:
            raise ChildError(
                f"opencode did not answer readable JSON to {method} {path}",
                upstream_status=response.status,
            ) from error

    async def send(
        self,
        method: str,
        target: str,
        *,
        data: bytes | AsyncIterable[bytes] | None,
        headers: Mapping[str, str] | None,
        bound: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request and return the unread answer, whatever its status. The caller closes it.

        `target` is a complete URL, already encoded.
        """
        try:
            return await self._session.request(
                method,
                URL(target, encoded=True),
                data=data,
                headers={**(headers or {}), "authorization": self._authorization},
                timeout=bound,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            path = target.removeprefix(self.base_url).partition("?")[0]
            raise _unavailable(method, path, error) from error


async def _streamed(body: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Write a large body while it is sent, so that it is not in memory twice."""
    for chunk in json_chunks(body):
        yield chunk
        await asyncio.sleep(0)  # opencode may take it all without letting us wait


def _unavailable(method: str, path: str, error: Exception) -> ChildUnavailableError:
    is_slow = isinstance(error, TimeoutError) and not isinstance(
        error, aiohttp.ConnectionTimeoutError
    )
    kind = ChildSlowError if is_slow else ChildUnavailableError
    return kind(
        f"opencode did not answer {method} {path}", retry_after_seconds=_RETRY_AFTER_SECONDS
    )


def _refused(method: str, path: str, status: int, text: str) -> ChildError:
    """Map an error answer: `{name, data: {message}}`, `{message}`, or a page."""
    detail = text
    try:
        parsed = read_leniently(text)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        data = parsed.get("data")
        inner = data.get("message") if isinstance(data, dict) else parsed.get("message")
        detail = " ".join(str(word) for word in (parsed.get("name"), inner) if word) or text
    return ChildError(
        f"opencode answered {status} to {method} {path}: {detail[:_BODY_EXCERPT]}",
        upstream_status=status,
    )


def as_object(answer: Any) -> dict[str, Any]:
    """Return the answer if it is an object. Raises ChildError."""
    if not isinstance(answer, dict):
        raise ChildError("unexpected response from opencode: not a JSON object")
    return answer


def as_objects(answer: Any) -> list[dict[str, Any]]:
    """Return the answer if it is a list of objects. Raises ChildError."""
    if not isinstance(answer, list):
        raise ChildError("unexpected response from opencode: not a JSON list")
    return [as_object(item) for item in answer]


def field_of(answer: Any, name: str) -> Any:
    """Return a field of the answer. Raises ChildError when there is none."""
    value = as_object(answer).get(name)
    if value is None:
        raise ChildError(f"opencode's answer lacks {name!r}")
    return value
