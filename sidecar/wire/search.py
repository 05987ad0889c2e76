"""The answer of a web search, as LiteLLM 1.108 gives it for all of its providers: Perplexity's Search API.

`{"object": "search", "results": [{"title", "url", "snippet", "date"?}]}`. An odd result costs only itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page that was found."""

    url: str
    title: str
    snippet: str
    date: str


def read_results(body: Any) -> list[SearchResult] | None:
    """Return the readable results, in order; None when the body is not an answer to a search."""
    items = body.get("results") if isinstance(body, dict) else None
    if not isinstance(items, list):
        return None
    found = [item for item in items if isinstance(item, dict) and isinstance(item.get("url"), str)]
    return [
        SearchResult(
            url=item["url"],
            title=_text(item.get("title")),
            snippet=_text(item.get("snippet")),
            date=_text(item.get("date") or item.get("last_updated")),
        )
        for item in found
    ]


def _text(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
