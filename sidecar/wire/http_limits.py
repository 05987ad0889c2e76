"""Bounds of HTTP that all our listeners and clients share."""

from __future__ import annotations

MAX_HEADER_BYTES = 64 * 1024
"""Of the request line and of one header line, in both directions. Proxies put whole tokens and cookies into
one, gateways the details of a call; aiohttp's own 8190 bytes are too few."""
