"""Lists of events without HTTP: what the route answers, read as JSON."""

from __future__ import annotations

import json
from typing import Any

from sidecar.managed.sessions.event_list import EventQuery
from sidecar.managed.sessions.event_list import list_events as read_pieces
from sidecar.store.interface import Store

_MANY_CHARS = 1 << 40


async def list_events(
    store: Store, session_id: str, query: EventQuery, *, max_chars: int = _MANY_CHARS
) -> Any:
    """Return `{data, next_page}`."""
    pieces = read_pieces(store, session_id, query, share=lambda event: event, max_chars=max_chars)
    return json.loads(b"".join([piece async for piece in pieces]))
