"""What the agents' web tools stand on: the fetcher of pages, and the gateway's search where one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp

from sidecar.config import WebSettings
from sidecar.gateway.search import GatewaySearch
from sidecar.instruments import Reading
from sidecar.managed.workspaces.packages import Packages
from sidecar.proxies import Proxies
from sidecar.web.fetch import WebFetcher
from sidecar.wiring.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Web:
    """`search` is None without `SIDECAR_WEB_SEARCH_TOOL`."""

    fetcher: WebFetcher
    search: GatewaySearch | None

    def readings(self) -> Iterator[Reading]:
        """Yield what the metrics show."""
        counts = self.fetcher.counts
        yield Reading("web_fetches", "Pages that agents fetched.", counts.fetched)
        yield Reading("web_fetch_failures", "Fetches that failed.", counts.failed)
        yield Reading(
            "web_fetches_refused",
            "Fetches refused: for a domain list, or an address that is not public.",
            counts.refused,
        )
        asked, failed = (self.search.searches, self.search.failures) if self.search else (0, 0)
        yield Reading("web_searches", "Searches through the gateway.", asked)
        yield Reading("web_search_failures", "Searches that failed.", failed)


def tool_readings(web: Web, packages: Packages) -> Iterator[Reading]:
    """Yield what the metrics show of the web tools, and of the packages installed for agents."""
    yield from web.readings()
    yield Reading("package_installs", "Sessions whose packages were installed.", packages.installs)
    yield Reading("package_install_failures", "Installations that failed.", packages.failures)


async def open_web(
    settings: WebSettings, gateway: Gateway, session: aiohttp.ClientSession, stack: AsyncExitStack
) -> Web:
    """Open the fetcher. `session` reaches the gateway."""
    fetcher = await stack.enter_async_context(WebFetcher.open(settings, Proxies.from_environment()))
    search = None
    if settings.search_tool is not None:
        search = GatewaySearch(
            tool=settings.search_tool,
            base_url=gateway.url,
            api_key=gateway.key,
            session=session,
            timeout_seconds=settings.search_timeout_seconds,
        )
    return Web(fetcher, search)
