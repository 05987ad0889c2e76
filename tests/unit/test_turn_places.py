"""Places for turns: bounded, in order, given back."""

import asyncio

import pytest

from sidecar.errors import OverloadedError
from sidecar.managed.child.places import TurnPlaces


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_order() -> None:
    """As many as the bound says at once; one that leaves makes room for the one that waits longest."""
    places = TurnPlaces(max_running=2, max_waiting=10)
    turns = [places.place() for _ in range(4)]
    entering = [asyncio.create_task(turn.enter()) for turn in turns]
    await _settle()
    assert [turn.is_held for turn in turns] == [True, True, False, False]
    assert (places.taken, places.waiting) == (2, 2)
    turns[1].leave()
    await _settle()
    assert [turn.is_held for turn in turns] == [True, False, True, False]
    turns[0].leave()
    assert await asyncio.gather(*entering) == [False, False, True, True]
    turns[2].leave()
    turns[3].leave()
    turns[3].leave()
    assert (places.taken, places.waiting) == (0, 0)


async def test_a_newcomer_does_not_overtake() -> None:
    """A place that became free belongs to the line."""
    places = TurnPlaces(max_running=1, max_waiting=10)
    first, second, third = (places.place() for _ in range(3))
    await first.enter()
    waits = asyncio.create_task(second.enter())
    await _settle()
    first.leave()
    late = asyncio.create_task(third.enter())
    await _settle()
    assert (second.is_held, third.is_held) == (True, False)
    second.leave()
    await asyncio.gather(waits, late)


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    """Neither in the line, nor when the place comes in the same moment."""
    places = TurnPlaces(max_running=1, max_waiting=10)
    first, second, third = (places.place() for _ in range(3))
    await first.enter()
    waits = asyncio.create_task(second.enter())
    await _settle()
    waits.cancel()
    await _settle()
    assert places.waiting == 0
    again = asyncio.create_task(third.enter())
    await _settle()
    first.leave()
    again.cancel()
    await _settle()
    assert (places.taken, third.is_held) == (0, False)


async def test_a_turn_that_its_client_has_answered_goes_on_at_once() -> None:
    """Beyond the bound; the next place is free when as many have left."""
    places = TurnPlaces(max_running=1, max_waiting=10)
    first, second, third = (places.place() for _ in range(3))
    await first.enter()
    first.leave()
    await second.enter()
    first.enter_at_once()
    first.enter_at_once()
    assert places.taken == 2
    waits = asyncio.create_task(third.enter())
    await _settle()
    second.leave()
    await _settle()
    assert not third.is_held
    first.leave()
    await waits
    assert places.taken == 1


async def test_too_many_are_refused_before_anything_is_accepted() -> None:
    """Counted from when a turn begins, not from when it asks for its place."""
    places = TurnPlaces(max_running=1, max_waiting=1)
    running, waiting = places.place(), places.place()
    with pytest.raises(OverloadedError, match="was not accepted") as caught:
        places.check()
    assert caught.value.retry_after_seconds
    assert places.refused == 1
    await running.enter()
    with pytest.raises(OverloadedError):
        places.check()
    running.leave()
    places.check()
    waiting.leave()
