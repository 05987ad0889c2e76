"""A small client of a sidecar: enough of the Managed Agents API for one session from the terminal.

Not the official SDK, because the command line must work without it. Wire format: `docs` of the sidecar's
own `/v1/agents`, `/v1/environments`, `/v1/sessions` routes and of its event stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp

from sidecar.commands.output import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE, CommandError
from sidecar.proxies import Proxies
from sidecar.wire.http_limits import MAX_HEADER_BYTES

_REQUEST_TIMEOUT_SECONDS = 120.0
"""The first session of a cold sidecar waits for opencode to boot."""
_CONNECT_TIMEOUT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
"""The server sends a comment at least every 15 s; a stream that is silent for longer is dead."""
_CLEAN_UP_SECONDS = 5.0
_RECONNECTS = 5
_RECONNECT_PAUSE_SECONDS = 1.0
_PREVIEWS = "event_deltas%5B%5D=agent.message"
_MAX_FRAME_BYTES = 32 * 1024 * 1024
_REFUSED = frozenset({401, 403})

Event = dict[str, Any]


class SessionClient:
    """One agent, one environment and one session, made for one prompt and removed again.

    Raises SettingsError when made with a proxy in the environment that is not supported.
    """

    def __init__(self, url: str, *, api_key: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        headers = {"x-api-key": api_key} if api_key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            read_bufsize=_MAX_FRAME_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            middlewares=Proxies.from_environment().middlewares,
            timeout=aiohttp.ClientTimeout(
                total=_REQUEST_TIMEOUT_SECONDS, sock_connect=_CONNECT_TIMEOUT_SECONDS
            ),
        )
        self.agent_id = self.environment_id = self.session_id = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def first_model(self) -> str:
        """Return the first model of the list. Raises CommandError when there is none."""
        page = await self._call("GET", "/v1/models?limit=1")
        if not page["data"]:
            raise CommandError(
                "the gateway offers no models; `opencode-sidecar doctor` says why",
                exit_code=EXIT_UNAVAILABLE,
            )
        return str(page["data"][0]["id"])

    async def open(self, *, model: str, system: str | None, title: str) -> None:
        """Make the agent, the environment and the session. Raises CommandError."""
        agent = {
            "name": "opencode-sidecar run",
            "model": model,
            "tools": [{"type": "agent_toolset_20260401"}],
        }
        if system:
            agent["system"] = system
        self.agent_id = (await self._call("POST", "/v1/agents", agent))["id"]
        environment = {"name": "opencode-sidecar run"}
        self.environment_id = (await self._call("POST", "/v1/environments", environment))["id"]
        session = {"agent": self.agent_id, "environment_id": self.environment_id, "title": title}
        self.session_id = (await self._call("POST", "/v1/sessions", session))["id"]

    async def prompt(self, text: str) -> None:
        """Send the user's message."""
        content = [{"type": "text", "text": text}]
        await self._send({"type": "user.message", "content": content})

    async def interrupt(self) -> None:
        """Stop the turn; its end still comes as events."""
        await self._send({"type": "user.interrupt"})

    async def clean_up(self) -> None:
        """Remove what `open` made, as far as that is possible; bounded and silent."""
        steps = [
            ("DELETE", f"/v1/sessions/{self.session_id}", self.session_id),
            ("DELETE", f"/v1/environments/{self.environment_id}", self.environment_id),
            ("POST", f"/v1/agents/{self.agent_id}/archive", self.agent_id),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                for method, path, made in steps:
                    if made:
                        with contextlib.suppress(CommandError):
                            await self._call(method, path)

    @contextlib.asynccontextmanager
    async def stream(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the session's stream; the body iterates its events, previews included.

        A dropped connection is opened again and what was missed is read from the list, each event once.
        """
        response = await self._open_stream()
        opened = [response]
        try:
            async with contextlib.aclosing(self._events(opened)) as events:
                yield events
        finally:
            opened[-1].close()

    async def _events(self, opened: list[aiohttp.ClientResponse]) -> AsyncGenerator[Event]:
        seen: set[str] = set()
        for attempt in range(_RECONNECTS + 1):
            if attempt:
                await asyncio.sleep(_RECONNECT_PAUSE_SECONDS * attempt)
                try:
                    opened.append(await self._open_stream())
                    missed = (await self._call("GET", f"{self._path}/events?{_PREVIEWS}"))["data"]
                except CommandError:
                    continue
                for event in missed:
                    if event["id"] not in seen:
                        seen.add(event["id"])
                        yield event
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async for event in _frames(opened[-1]):
                    if "id" in event:
                        if event["id"] in seen:
                            continue
                        seen.add(event["id"])
                    yield event
            opened[-1].close()
        raise CommandError(
            f"the event stream of {self.session_id} broke off", exit_code=EXIT_UNAVAILABLE
        )

    @property
    def _path(self) -> str:
        return f"/v1/sessions/{self.session_id}"

    async def _open_stream(self) -> aiohttp.ClientResponse:
        bounds = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_SECONDS, sock_read=_SILENCE_SECONDS
        )
        url = f"{self._url}{self._path}/events/stream?{_PREVIEWS}"
        try:
            response = await self._session.get(url, timeout=bounds)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if response.status != 200:
            raise _refusal(response.status, await response.read())
        return response

    async def _send(self, event: Event) -> None:
        await self._call("POST", f"{self._path}/events", {"events": [event]})

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise _refusal(response.status, raw)
        try:
            return json.loads(raw)
        except ValueError as error:
            raise CommandError(
                f"{self._url} does not answer JSON: is it a sidecar?", exit_code=EXIT_UNAVAILABLE
            ) from error

    def _unreachable(self, error: Exception) -> CommandError:
        why = str(error) or type(error).__name__
        return CommandError(
            f"cannot reach the sidecar at {self._url}: {why}", exit_code=EXIT_UNAVAILABLE
        )


async def _frames(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Yield the objects of an event stream whose frames have one `data:` line, as the sidecar sends them."""
    async for line in response.content:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])


def _refusal(status: int, raw: bytes) -> CommandError:
    message = raw[:200].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        message = json.loads(raw)["error"]["message"]
    if status in _REFUSED:
        return CommandError(f"{message} (SIDECAR_API_KEY)", exit_code=EXIT_REFUSED)
    is_ours = 400 <= status < 500 and status != 429
    return CommandError(message, exit_code=EXIT_USAGE if is_ours else EXIT_UNAVAILABLE)
