"""Pages of a session's events, with client events that still wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import InvalidRequestError
from sidecar.managed.common.pagination import Order
from sidecar.managed.sessions.event_list import EventQuery, list_events
from sidecar.store.sqlite import SqliteStore
from tests.fakes.fated_child import FatedChild, history, make_turns, send
from tests.harness import types_of, user_message
from tests.integration.test_turn_engine import new_session


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "db.sqlite", synchronous="NORMAL")
    await opened.open()
    yield opened
    await opened.close()


async def pages(database: SqliteStore, session_id: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Return all pages."""
    found, page = [], None
    while True:
        answer = await list_events(database, session_id, EventQuery(page=page, **query))
        found.append(answer["data"])
        page = answer["next_page"]
        if page is None:
            return found


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
async def test_pages_hold_what_was_asked_for(
    database: SqliteStore, limit: int, order: Order
) -> None:
    """Waiting events count as all others do; together the pages are the whole list, in order."""
    child = FatedChild("works on")
    turns, session_id = make_turns(database, child), await new_session(database)
    await send(turns, session_id, *(user_message(f"{number}") for number in range(6)))
    whole = await history(database, session_id)
    assert types_of(whole)[-5:] == ["user.message"] * 5
    assert [event["processed_at"] for event in whole[-5:]] == [None] * 5

    found = await pages(database, session_id, limit=limit, order=order)
    assert all(len(page) == limit for page in found[:-1])
    assert 0 < len(found[-1]) <= limit
    events = [event for page in found for event in page]
    assert events == (whole if order == "asc" else whole[::-1])
    messages = await pages(database, session_id, limit=limit, order=order, types=["user.message"])
    assert [e for page in messages for e in page] == [
        event for event in events if event["type"] == "user.message"
    ]
    await turns.drain(0.1)


async def test_what_is_processed_between_two_pages_is_not_missed(database: SqliteStore) -> None:
    """It moves from the queue to the log while somebody reads: on a later page it is there."""
    child = FatedChild("works on", "works on")
    turns, session_id = make_turns(database, child), await new_session(database)
    await send(turns, session_id, user_message("first"), user_message("second"))
    await send(turns, session_id, user_message("third"))
    first = await list_events(database, session_id, EventQuery(limit=4))
    assert [event["processed_at"] for event in first["data"]][-1] is None
    turn = (await turns.actor(session_id)).turn
    assert turn is not None
    while not child.prompts:
        await asyncio.sleep(0.005)
    child.finish(child.prompts[0])
    await turn.done.wait()
    rest = await list_events(database, session_id, EventQuery(page=first["next_page"]))
    seen = {event["id"] for event in first["data"] + rest["data"]}
    assert {event["id"] for event in await history(database, session_id)} <= seen
    await turns.drain(0.1)


@pytest.mark.parametrize("page", ["x", "WyJhc2MiLCAiMSIsIDBd", "WyJhc2MiLCAxZTk5OSwgMF0", "W10"])
async def test_a_cursor_that_is_none_is_refused(database: SqliteStore, page: str) -> None:
    """Text, numbers that are none, too few of them."""
    session_id = await new_session(database)
    with pytest.raises(InvalidRequestError, match="page"):
        await list_events(database, session_id, EventQuery(page=page))
