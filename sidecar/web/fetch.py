"""Fetches pages for agents: every hop within the domain lists, every connection to a permitted address.

What users of opencode's `webfetch` expect: Markdown, text or HTML of a page, 5 MB and 30 seconds, images as
images. Through a company proxy the proxy makes the connection; then what the name leads to here is checked,
where it leads to anything.
"""

from __future__ import annotations

import asyncio
import codecs
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp import hdrs
from yarl import URL

from sidecar import __version__
from sidecar.config import WebSettings
from sidecar.errors import WebError
from sidecar.proxies import Proxies
from sidecar.web.addresses import AddressGuard, RefusedAddressError
from sidecar.web.convert import PageFormat, page_text
from sidecar.web.domains import DomainRules

MAX_REDIRECTS = 10

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT_SUFFIXES = (
    "+json",
    "+xml",
    "/json",
    "/xml",
    "/javascript",
    "/ecmascript",
    "/yaml",
    "/x-yaml",
)
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_ACCEPT = {
    "markdown": "text/markdown;q=1.0, text/x-markdown;q=0.9, text/html;q=0.8, text/plain;q=0.7, */*;q=0.1",
    "text": "text/plain;q=1.0, text/markdown;q=0.9, text/html;q=0.8, */*;q=0.1",
    "html": "text/html;q=1.0, application/xhtml+xml;q=0.9, text/plain;q=0.8, */*;q=0.1",
}
_USER_AGENT = f"opencode-sidecar/{__version__} (web_fetch)"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What was fetched: `text`, or the bytes of an image. `url` is where the last redirect led."""

    url: str
    media_type: str
    text: str = ""
    image: bytes | None = None


@dataclass(slots=True)
class FetchCounts:
    """For the metrics."""

    fetched: int = 0
    refused: int = 0
    failed: int = 0


class _NotPermittedError(WebError):
    """It must not be fetched."""

    def __init__(self, why: str) -> None:
        super().__init__(f"not fetched: {why}")


class WebFetcher:
    """Fetches pages of the web for agents, within the bounds of the settings; made by `open`."""

    def __init__(
        self,
        *,
        settings: WebSettings,
        proxies: Proxies,
        direct: aiohttp.ClientSession,
        proxied: aiohttp.ClientSession,
        guard: AddressGuard,
    ) -> None:
        self._settings = settings
        self._proxies = proxies
        self._direct = direct
        self._proxied = proxied
        self._guard = guard
        self._places = asyncio.Semaphore(settings.max_parallel)
        self.counts = FetchCounts()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: WebSettings, proxies: Proxies) -> AsyncIterator[WebFetcher]:
        """Make its HTTP clients. Connections are not kept: each is checked anew, and no cookie is."""
        guard = AddressGuard(settings.networks())
        checked = aiohttp.TCPConnector(
            limit=0, force_close=True, use_dns_cache=False, socket_factory=guard.socket_for
        )
        jar = aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(connector=checked, cookie_jar=jar) as direct,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=jar,
                middlewares=proxies.middlewares,
            ) as proxied,
        ):
            yield cls(
                settings=settings, proxies=proxies, direct=direct, proxied=proxied, guard=guard
            )

    async def fetch(
        self,
        url: str,
        *,
        rules: DomainRules,
        kind: PageFormat = "markdown",
        timeout_seconds: float | None = None,
    ) -> Page:
        """Fetch a page. Raises WebError with what the agent may know: what is wrong, and where."""
        seconds = min(
            timeout_seconds or self._settings.timeout_seconds, self._settings.timeout_seconds
        )
        try:
            async with asyncio.timeout(seconds), self._places:
                page = await self._translated(url, rules, kind)
        except _NotPermittedError as error:
            self.counts.refused += 1
            _log.info("web request of an agent refused", reason=error.message)
            raise
        except WebError:
            self.counts.failed += 1
            raise
        except TimeoutError as error:
            self.counts.failed += 1
            raise WebError(f"no answer within {seconds:g} seconds") from error
        self.counts.fetched += 1
        return page

    async def _translated(self, url: str, rules: DomainRules, kind: PageFormat) -> Page:
        """Fetch, with a WebError for every failure but a time-out."""
        try:
            return await self._follow(_parsed(url), rules, kind)
        except TimeoutError:
            raise
        except RefusedAddressError as error:
            raise _NotPermittedError(f"{url[:200]}: {error}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, RefusedAddressError):
                raise _NotPermittedError(f"{error.host}: {error.os_error}") from error
            raise WebError(f"cannot connect to {error.host}: {error.os_error}") from error
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise WebError(
                f"cannot be fetched: {str(error)[:300] or type(error).__name__}"
            ) from error

    async def _follow(self, url: URL, rules: DomainRules, kind: PageFormat) -> Page:
        for _ in range(MAX_REDIRECTS + 1):
            _check(url, rules)
            session = self._direct
            if self._proxies.proxy_for(url) is not None:
                await self._check_named(url)
                session = self._proxied
            headers = {
                hdrs.ACCEPT: _ACCEPT[kind],
                hdrs.ACCEPT_LANGUAGE: "en-US,en;q=0.9",
                hdrs.ACCEPT_ENCODING: "gzip, deflate",
                hdrs.USER_AGENT: _USER_AGENT,
            }
            unbounded = aiohttp.ClientTimeout(total=None)  # the whole fetch has a bound
            async with session.get(
                url, headers=headers, allow_redirects=False, timeout=unbounded
            ) as response:
                location = response.headers.get(hdrs.LOCATION)
                if response.status not in _REDIRECTS or not location:
                    return await self._page(response, kind)
                url = url.join(URL(location)).with_fragment(None)
        raise WebError(f"redirected more than {MAX_REDIRECTS} times")

    async def _check_named(self, url: URL) -> None:
        """Raise RefusedAddressError when the name leads to a refused address from here."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except OSError:
            return  # a name that only the proxy knows
        for info in found:
            self._guard.check(str(info[4][0]))

    async def _page(self, response: aiohttp.ClientResponse, kind: PageFormat) -> Page:
        url, media_type = str(response.url), response.content_type.lower()
        if not 200 <= response.status < 300:
            raise WebError(
                f"{url[:500]} answered {response.status} {response.reason or ''}".rstrip()
            )
        body = await self._read(response)
        if media_type in _IMAGES:
            return Page(url, media_type, image=body)
        if media_type in _HTML and kind != "html":
            text = await page_text(body, kind=kind, url=url, charset=response.charset)
        elif _is_text(media_type, body):
            text = _decoded(body, response.charset)
        else:
            raise WebError(f"{url[:500]} is {media_type}, which cannot be shown as text")
        most = self._settings.max_text_chars
        if len(text) > most:
            text = f"{text[:most]}\n\n[cut here: the page has {len(text)} characters]"
        return Page(url, media_type, text)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_chunked(64 * 1024):
            body += piece
            if len(body) > self._settings.max_bytes:
                raise WebError(f"the answer is larger than {self._settings.max_bytes} bytes")
        return bytes(body)


def _check(url: URL, rules: DomainRules) -> None:
    """Raise WebError unless the agent may fetch this URL."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise _NotPermittedError(f"{str(url)[:200]}: only http:// and https:// URLs are fetched")
    if url.user is not None or url.password is not None:
        raise _NotPermittedError("URLs with a user or password are not fetched")
    if not rules.permits(url):
        raise _NotPermittedError(f"the domain {url.host} is not one that this agent may fetch")


def _parsed(text: str) -> URL:
    try:
        return URL(text.strip()).with_fragment(None)
    except ValueError as error:
        raise WebError(f"{text[:200]!r} is not a URL") from error


def _is_text(media_type: str, body: bytes) -> bool:
    if media_type.startswith("text/") or media_type.endswith(_TEXT_SUFFIXES):
        return True
    is_unknown = media_type in {"application/octet-stream", "binary/octet-stream"}
    return is_unknown and b"\0" not in body[:4096]


def _decoded(body: bytes, charset: str | None) -> str:
    try:
        codecs.lookup(charset or "utf-8")
    except LookupError:
        charset = None
    return body.decode(charset or "utf-8", "replace")
