"""Pages of a session's events, with client events that still wait."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.errors import InvalidRequestError
from sidecar.managed.common.pagination import Order
from sidecar.managed.sessions.event_list import EventQuery
from sidecar.managed.sessions.event_list import list_events as read_pieces
from sidecar.store.interface import Store
from tests.event_lists import list_events
from tests.fakes.scripted_child import ScriptedChild, history, make_engine, new_session, send
from tests.harness import types_of, user_message
from tests.waiting import until


async def pages(database: Store, session_id: str, **query: Any) -> list[list[dict[str, Any]]]:
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
async def test_pages_hold_what_was_asked_for(database: Store, limit: int, order: Order) -> None:
    """Waiting events count as all others do; together the pages are the whole list, in order."""
    child = ScriptedChild("works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, *(user_message(f"{number}") for number in range(6)))
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
    await engine.drain(0.1)


async def test_what_is_processed_between_two_pages_is_not_missed(database: Store) -> None:
    """It moves from the queue to the log while a client reads: on a later page it is there."""
    child = ScriptedChild("works on", "works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, user_message("first"), user_message("second"))
    await send(engine, session_id, user_message("third"))
    first = await list_events(database, session_id, EventQuery(limit=4))
    assert [event["processed_at"] for event in first["data"]][-1] is None
    turn = (await engine.live.actor(session_id)).turn
    assert turn is not None
    await until(lambda: child.prompts)
    child.finish(child.prompts[0])
    await turn.done.wait()
    rest = await list_events(database, session_id, EventQuery(page=first["next_page"]))
    seen = {event["id"] for event in first["data"] + rest["data"]}
    assert {event["id"] for event in await history(database, session_id)} <= seen
    await engine.drain(0.1)


@pytest.mark.parametrize("page", ["x", "WyJhc2MiLCAiMSIsIDBd", "WyJhc2MiLCAxZTk5OSwgMF0", "W10"])
async def test_a_cursor_that_is_none_is_refused(database: Store, page: str) -> None:
    """Text, numbers that are none, too few of them."""
    session_id = await new_session(database)
    with pytest.raises(InvalidRequestError, match="page"):
        await list_events(database, session_id, EventQuery(page=page))


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("max_chars", [1, 300, 1000, 100_000])
async def test_a_page_ends_at_its_size(database: Store, max_chars: int, order: Order) -> None:
    """Without a limit, too; each page has an event at least, and together they are the whole list."""
    child = ScriptedChild("works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, *(user_message(f"{number}") for number in range(6)))
    whole = await history(database, session_id)
    found, query = [], EventQuery(order=order)
    while True:
        page = await list_events(database, session_id, query, max_chars=max_chars)
        size = sum(len(json.dumps(event)) for event in page["data"][:-1])
        assert size <= max_chars * 2 or len(page["data"]) == 1  # stored texts have fewer blanks
        found += page["data"]
        if page["next_page"] is None:
            break
        query.page = page["next_page"]
    assert found == (whole if order == "asc" else whole[::-1])
    await engine.drain(0.1)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_what_is_processed_while_a_list_is_read_is_in_it_once(
    database: Store, order: Order
) -> None:
    """A long list is read in several pieces; an event that leaves the queue meanwhile has one place."""
    child = ScriptedChild("works on", "works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    for number in range(4):  # more than one piece of the log
        text = user_message("x" * 200_000 + str(number))
        await send(engine, session_id, text)
    waiting = await history(database, session_id)
    pieces = read_pieces(
        database, session_id, EventQuery(order=order), share=lambda event: event, max_chars=1 << 40
    )
    read = [await anext(pieces)]
    turn = (await engine.live.actor(session_id)).turn
    assert turn is not None
    await until(lambda: child.prompts)
    child.finish(child.prompts[0])
    await turn.done.wait()
    read += [piece async for piece in pieces]
    listed = [event["id"] for event in json.loads(b"".join(read))["data"]]
    assert len(listed) == len(set(listed))
    assert {event["id"] for event in waiting} <= set(listed)
    await engine.drain(0.1)
