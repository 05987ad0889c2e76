"""Cross-origin and DNS-rebinding protection for listeners without an API key.

A browser on the same machine reaches a loopback port for every page that it shows. It names the page's site
in `Origin` (on all writes) and in `sec-fetch-site`; a page cannot change either. A page can have its own name
resolve to 127.0.0.1, though, and is then the same site: only `Host` still reveals it, as it has that name.
Programs send neither, so their requests may have any content type, `curl -d` without a header included.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from sidecar.config.base import is_loopback
from sidecar.errors import PermissionDeniedError
from sidecar.http.routes import route_of

_SEC_FETCH_SITE = "sec-fetch-site"
_OWN_SITES = frozenset({"same-origin", "none"})
"""`none` is an address that a person typed. `same-site` is another port of this machine."""


def check_origin(
    *,
    is_own_refused: bool,
    is_host_checked: bool,
    remedy: str,
    public: Collection[str] = (),
) -> Middleware:
    """Return the middleware that refuses pages of other sites, with `is_own_refused` all pages.

    `is_host_checked` requires a name or address of this machine in `Host`. `remedy` ends the error
    message. Routes in `public` are for all.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if route_of(request) not in public:
            if _is_from_page(request) if is_own_refused else is_from_other_site(request):
                raise PermissionDeniedError(f"refused to a page in a browser: {remedy}")
            host = request.headers.get(hdrs.HOST)
            if is_host_checked and host is not None and not _is_this_machine(host):
                raise PermissionDeniedError(
                    f"refused under the name {host[:200]!r}, which is not of this machine: {remedy}"
                )
        return await handler(request)

    return check


def _is_from_page(request: web.Request) -> bool:
    return hdrs.ORIGIN in request.headers or _SEC_FETCH_SITE in request.headers


def is_from_other_site(request: web.Request) -> bool:
    """Whether a page of another site had its browser send this."""
    site = request.headers.get(_SEC_FETCH_SITE)
    if site is not None:
        return site.lower() not in _OWN_SITES
    origin = request.headers.get(hdrs.ORIGIN)
    host = request.headers.get(hdrs.HOST, "")
    return origin is not None and origin.lower().partition("://")[2] != host.lower()


def _is_this_machine(host: str) -> bool:
    try:
        name = URL.build(scheme="http", authority=host).host
    except ValueError:
        return False
    return name is not None and is_loopback(name)
