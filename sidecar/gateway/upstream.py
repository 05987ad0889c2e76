"""Facts shared by everything that talks to the gateway: its root, its key, what may be logged. Pure."""

from __future__ import annotations

import re

from sidecar.masking import masked, masked_urls

EXCERPT_CHARS = 256

_MAX_READ = 64 * 1024
"""Of a body; an event of a stream may have megabytes."""

_KEY_LIKE = re.compile(r"\b(sk|pk|key|Bearer)([-_ ])[A-Za-z0-9_\-.]{6,}")


def api_root(base_url: str) -> str:
    """Return the gateway's URL without `/v1`: some of LiteLLM's routes stand beside it."""
    return base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def key_headers(api_key: str | None, *, is_messages: bool = False) -> dict[str, str]:
    """Return the headers that carry the gateway's key; the Messages route also wants `x-api-key`."""
    if not api_key:
        return {}
    headers = {"authorization": f"Bearer {api_key}"}
    return headers | {"x-api-key": api_key} if is_messages else headers


def excerpt(body: bytes | str, api_key: str | None, *, chars: int = EXCERPT_CHARS) -> str:
    """Return the beginning of a foreign body, on one line, with keys masked."""
    body = body[:_MAX_READ]
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    if api_key:
        text = masked(text, api_key)
    text = _KEY_LIKE.sub(r"\1\2***", masked_urls(" ".join(text.split())))
    return text if len(text) <= chars else f"{text[:chars]}..."
