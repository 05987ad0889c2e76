"""HTTP clients of this process: through the company proxy where one is set, but for the child's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from sidecar.proxies import Proxies
from sidecar.wire.http_limits import MAX_HEADER_BYTES


@asynccontextmanager
async def client_session(*, is_direct: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client with a pool of its own. `is_direct` never uses a proxy: for the child.

    Raises SettingsError for a proxy that is not supported.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=jar,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        middlewares=() if is_direct else Proxies.from_environment().middlewares,
    ) as session:
        yield session
