"""Searches the web through the gateway: `POST /v1/search/{tool}` of LiteLLM.

Source of the wire format: LiteLLM 1.108 (`search_endpoints`), which follows Perplexity's Search API. Not all
of its providers apply `search_domain_filter`, so the caller checks every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import aiohttp
from yarl import URL

from sidecar.errors import GatewayError, GatewayUnavailableError
from sidecar.gateway.redirects import RedirectError, following
from sidecar.gateway.upstream import api_root, excerpt, key_headers
from sidecar.wire.json_text import read_leniently
from sidecar.wire.search import SearchResult, read_results

_MAX_BODY_BYTES = 4_000_000
_MAX_DOMAINS = 20
"""Of the filter; further ones are applied to the results only."""


class GatewaySearch:
    """One search tool of the gateway. `searches` and `failures` are for the metrics."""

    def __init__(
        self,
        *,
        tool: str,
        base_url: str,
        api_key: str | None,
        session: aiohttp.ClientSession,
        timeout_seconds: float,
    ) -> None:
        self._tool = tool
        self._api_key = api_key
        self._session = session
        self._timeout_seconds = timeout_seconds
        self._url = URL(f"{api_root(base_url)}/v1/search/{quote(tool, safe='')}", encoded=True)
        self.searches = 0
        self.failures = 0

    async def search(
        self, query: str, *, domains: Sequence[str] = (), country: str | None = None
    ) -> list[SearchResult]:
        """Return what the tool finds. `domains` are asked for, and not guaranteed.

        Raises GatewayUnavailableError without a usable answer, GatewayError for a refusal.
        """
        body: dict[str, object] = {"query": query}
        if domains:
            body["search_domain_filter"] = list(domains[:_MAX_DOMAINS])
        if country is not None:
            body["country"] = country
        self.searches += 1
        try:
            return await self._ask(body)
        except GatewayError:
            self.failures += 1
            raise

    async def _ask(self, body: dict[str, object]) -> list[SearchResult]:
        asking = following(
            self._session,
            "POST",
            self._url,
            json=body,
            headers=key_headers(self._api_key),
            timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
        )
        try:
            async with asking as response:
                text = await response.content.read(_MAX_BODY_BYTES)
                while not response.content.at_eof() and len(text) < _MAX_BODY_BYTES:
                    text += await response.content.read(_MAX_BODY_BYTES - len(text))
                status = response.status
        except TimeoutError as error:
            raise GatewayUnavailableError(
                f"the gateway did not answer the search within {self._timeout_seconds:g} seconds"
            ) from error
        except (RedirectError, aiohttp.ClientError) as error:
            raise GatewayUnavailableError(
                f"the gateway cannot be searched: {excerpt(str(error), self._api_key)}"
            ) from error
        shown = excerpt(text, self._api_key)
        if status != 200:
            raise GatewayError(
                f"the gateway's search tool {self._tool!r} (SIDECAR_WEB_SEARCH_TOOL) answered {status}: "
                f"{shown}"
            )
        try:
            results = read_results(read_leniently(text))
        except ValueError:
            results = None
        if results is None:
            raise GatewayUnavailableError(
                f"the answer of the gateway's search tool {self._tool!r} has no results: {shown}"
            )
        return results
