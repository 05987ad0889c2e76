"""Redirects of the gateway: followed here on the same host, and never handed to the child.

opencode would send the whole prompt to the target itself, past the relay and without the key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

MAX_REDIRECTS = 5
_FOLLOWED = frozenset({301, 302, 307, 308})
"""With the same method and body. 303 means that the answer is elsewhere, under GET: no model request."""


class RedirectError(Exception):
    """A redirect that is not followed; the message names the target without user, password and query."""


@asynccontextmanager
async def following(
    session: aiohttp.ClientSession, method: str, url: URL, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a request of our own, and again where the same host redirects it; `options` are aiohttp's.

    Raises RedirectError for a target that must not get our key, and what aiohttp raises.
    """
    redirects = 0
    while True:
        async with session.request(method, url, allow_redirects=False, **options) as response:
            if not 300 <= response.status < 400:
                yield response
                return
            url = next_url(url, response.status, response.headers.get("location"), redirects)
            redirects += 1


def next_url(current: URL, status: int, location: str | None, redirects: int) -> URL:
    """Return where the request goes next. Raises RedirectError when it must not go there with our key.

    The same host may also ask for `https` in place of `http`. `redirects` is how many were followed.
    """
    if redirects >= MAX_REDIRECTS:
        raise RedirectError(f"the gateway redirected more than {MAX_REDIRECTS} times")
    if not location:
        raise RedirectError(f"the gateway answered {status} without a target")
    try:
        target = current.join(URL(location)).with_fragment(None)
    except ValueError:
        raise RedirectError(
            f"the gateway redirects ({status}) to something that is not a URL"
        ) from None
    is_upgrade = target.scheme == "https" and current.is_default_port() and target.is_default_port()
    is_same = target.host == current.host and (
        (target.scheme, target.port) == (current.scheme, current.port) or is_upgrade
    )
    if is_same and status in _FOLLOWED:
        return target
    shown = target.with_user(None).with_query(None)
    why = "" if is_same else ", which is another host and must not get the gateway's key"
    raise RedirectError(
        f"the gateway redirects ({status}) to {shown}{why}; set LITELLM_BASE_URL to where it really is"
    )
