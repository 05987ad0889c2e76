"""The one request function: time-outs, retries, `Retry-After`, translation of faults."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from sidecar.sdk.endpoints import Connection, Endpoint
from sidecar.sdk.errors import BadAnswerError, ModelsError, TimedOutError, UnavailableError
from sidecar.sdk.policy import RequestPolicy
from sidecar.sdk.responses import read_answer

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest answer that is read; LiteLLM's longest list of 367 models is 2.6 MB."""

_USER_AGENT = "opencode-sidecar-sdk"

_log = logging.getLogger(__name__)


class Upstream:
    """What an adapter talks to: one connection, with the client's policy. It never shows the key."""

    def __init__(
        self,
        *,
        runtime: str,
        connection: Connection,
        session: aiohttp.ClientSession,
        policy: RequestPolicy,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.runtime = runtime
        self.policy = policy
        self._connection = connection
        self._session = session
        self._sleep = sleep
        self._host = urlsplit(connection.base_url).netloc

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint in use, for adapters that declare several."""
        return self._connection.endpoint

    async def get_json(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """GET `path` (already percent-encoded, from `/`) and return the JSON. Raises ModelsError.

        Retries as the policy says; redirects are not followed.
        """
        url = f"{self._connection.base_url}{path}"
        if query:
            url = f"{url}?{urlencode(query)}"
        attempt = 0
        while True:
            try:
                return await self._attempt(url, headers or {})
            except ModelsError as error:
                delay = self.policy.delay_before_retry(error, attempt)
                if delay is None:
                    raise
                _log.info("retrying in %.2f s after: %s", delay, error)
            attempt += 1
            await self._sleep(delay)

    async def _attempt(self, url: str, headers: Mapping[str, str]) -> Any:
        bounds = aiohttp.ClientTimeout(
            total=self.policy.request_timeout_seconds,
            sock_connect=self.policy.connect_timeout_seconds,
        )
        sent = {
            "accept": "application/json",
            "user-agent": _USER_AGENT,
            **headers,
            **self._connection.headers(),
        }
        try:
            async with self._session.get(
                url, headers=sent, timeout=bounds, allow_redirects=False
            ) as response:
                body = await self._read(response)
                return read_answer(
                    runtime=self.runtime,
                    connection=self._connection,
                    status=response.status,
                    headers=response.headers,
                    body=body,
                )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            failure = self._translate(error)
        # Raised here, not in the handler: some of aiohttp's errors hold the request's headers, and a
        # chained one would carry the key into whatever prints the chain.
        raise failure

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                response.close()
                raise BadAnswerError(
                    f"the answer is larger than {MAX_ANSWER_BYTES} bytes",
                    runtime=self.runtime,
                    status=response.status,
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _translate(self, error: Exception) -> ModelsError:
        failure: ModelsError
        if isinstance(error, TimeoutError):
            failure = TimedOutError(
                f"no complete answer from {self._host} within "
                f"{self.policy.request_timeout_seconds:g} s (connecting: "
                f"{self.policy.connect_timeout_seconds:g} s)",
                runtime=self.runtime,
            )
        else:
            failure = UnavailableError(
                f"cannot reach {self._host}: {type(error).__name__}", runtime=self.runtime
            )
        if not isinstance(error, aiohttp.ClientResponseError):
            failure.__cause__ = error
        return failure
