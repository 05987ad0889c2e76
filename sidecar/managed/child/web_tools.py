"""`web_fetch` and `web_search` of a session: what opencode is offered, and how a call is executed."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_args

from yarl import URL

from sidecar.errors import SidecarError
from sidecar.gateway.search import GatewaySearch
from sidecar.managed.turns.tool_plan import WEB_FETCH, WEB_SEARCH
from sidecar.opencode.custom_tools import ToolResult
from sidecar.web.convert import PageFormat
from sidecar.web.domains import DomainRules
from sidecar.web.fetch import WebFetcher
from sidecar.wire.search import SearchResult

OptionsOf = Callable[[str], Awaitable[Mapping[str, Mapping[str, Any]]]]
"""Returns the options of a session's web tools, by tool; a tool that is missing is not enabled."""

_FETCH: Mapping[str, Any] = {
    "name": "fetch",
    "description": (
        "Fetch the page at a URL and return its content, as Markdown unless another format is asked for. "
        "Images are returned as images. Long pages are cut. Read-only."
    ),
    "input_schema": {
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "The http:// or https:// URL to fetch"},
            "format": {
                "type": "string",
                "enum": ["markdown", "text", "html"],
                "description": "The form in which to return the content; markdown by default",
            },
            "timeout": {"type": "number", "description": "How long to wait at most, in seconds"},
        },
        "required": ["url"],
    },
}
_SEARCH: Mapping[str, Any] = {
    "name": "search",
    "description": (
        "Search the web. Returns titles, URLs and excerpts of the pages found. Fetch a page to read all "
        "of it."
    ),
    "input_schema": {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to search for"}},
        "required": ["query"],
    },
}
_FORMATS: Mapping[str, PageFormat] = {kind: kind for kind in get_args(PageFormat)}
_MAX_QUERY_CHARS = 2000
_MAX_SNIPPET_CHARS = 2000


class WebTools:
    """A source of tools for opencode (`sidecar.opencode.tool_server`).

    `search` is None without a search tool.
    """

    def __init__(
        self, *, fetcher: WebFetcher, search: GatewaySearch | None, options_of: OptionsOf
    ) -> None:
        self._fetcher = fetcher
        self._search = search
        self._options_of = options_of

    async def tools(self, session_id: str) -> Sequence[Mapping[str, Any]]:
        """Return those that the session's agent has enabled."""
        options = await self._options_of(session_id)
        tools = [_FETCH] if WEB_FETCH in options else []
        return [*tools, _SEARCH] if WEB_SEARCH in options and self._search is not None else tools

    async def call(self, session_id: str, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Execute a call. What goes wrong is a result that says so."""
        options = await self._options_of(session_id)
        try:
            if name == "fetch" and WEB_FETCH in options:
                return await self._fetch(arguments, DomainRules.of(options[WEB_FETCH]))
            if name == "search" and WEB_SEARCH in options:
                return await self._find(arguments, options[WEB_SEARCH])
        except SidecarError as error:
            return _failed(error.message)
        return _failed(f"this agent has no tool {name[:80]!r}")

    async def _fetch(self, arguments: Mapping[str, Any], rules: DomainRules) -> ToolResult:
        url, kind = arguments.get("url"), _FORMATS.get(str(arguments.get("format") or "markdown"))
        seconds = arguments.get("timeout")
        if not isinstance(url, str):
            return _failed("url: must be a string")
        if kind is None:
            return _failed("format: must be markdown, text or html")
        if seconds is not None and not (_is_number(seconds) and seconds > 0):
            return _failed("timeout: must be a number of seconds above 0")
        page = await self._fetcher.fetch(url, rules=rules, kind=kind, timeout_seconds=seconds)
        if page.image is None:
            return ToolResult([{"type": "text", "text": page.text}], is_error=False)
        data = base64.b64encode(page.image).decode()
        source = {"type": "base64", "media_type": page.media_type, "data": data}
        fetched = {"type": "text", "text": f"fetched an image of {len(page.image)} bytes"}
        return ToolResult([fetched, {"type": "image", "source": source}], is_error=False)

    async def _find(self, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> ToolResult:
        query, rules = arguments.get("query"), DomainRules.of(options)
        if self._search is None:
            return _failed("no web search is configured here any more")
        if not isinstance(query, str) or not 0 < len(query.strip()) <= _MAX_QUERY_CHARS:
            return _failed(f"query: must be a text of 1 to {_MAX_QUERY_CHARS} characters")
        found = await self._search.search(
            query,
            domains=[entry.partition("/")[0] for entry in rules.allowed],
            country=(options.get("user_location") or {}).get("country"),
        )
        permitted = [result for result in found if _is_permitted(result, rules)]
        texts = [_shown(number, result) for number, result in enumerate(permitted, start=1)]
        text = "\n\n".join(texts) or "nothing was found"
        return ToolResult([{"type": "text", "text": text}], is_error=False)


def _is_permitted(result: SearchResult, rules: DomainRules) -> bool:
    try:
        return rules.permits(URL(result.url))
    except ValueError:
        return False


def _shown(number: int, result: SearchResult) -> str:
    date = f" ({result.date})" if result.date else ""
    lines = [f"{number}. {result.title or result.url}{date}", result.url]
    return "\n".join([*lines, result.snippet[:_MAX_SNIPPET_CHARS]]).rstrip()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _failed(why: str) -> ToolResult:
    return ToolResult([{"type": "text", "text": why}], is_error=True)
