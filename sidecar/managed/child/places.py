"""How many turns opencode works on at once: it is one thread, and everybody's turns are cut when it drowns.

A turn takes a place before its session is opened in opencode; those without wait in order. While a turn waits
for its client it has none, and it goes on at once when the client has answered, beyond the bound if need be:
opencode has it in hand already.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sidecar.errors import OverloadedError

_RETRY_AFTER_SECONDS = 15.0


class TurnPlaces:
    """Hands out places, first come, first served."""

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._line: OrderedDict[TurnPlace, asyncio.Future[None]] = OrderedDict()
        self._coming: set[TurnPlace] = set()
        self._is_closed = False
        self.taken = 0
        """How many places are held."""
        self.refused = 0
        """How many messages were refused because too many turns waited."""

    @property
    def waiting(self) -> int:
        """How many turns wait for a place."""
        return len(self._line)

    def check(self) -> None:
        """Raise OverloadedError when too many turns wait for another one to be accepted."""
        if self.taken + len(self._coming) < self._max_running + self._max_waiting:
            return
        self.refused += 1
        raise OverloadedError(
            f"{self.waiting} turns wait for opencode already, and this one was not accepted; send it again "
            "later (SIDECAR_TURN_MAX_WAITING)",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )

    def close(self) -> None:
        """Let no one in any more; turns that wait are left to the next start of the sidecar."""
        self._is_closed = True

    def place(self) -> TurnPlace:
        """Return the place of a new turn. It holds none yet."""
        place = TurnPlace(self)
        self._coming.add(place)
        return place

    async def enter(self, place: TurnPlace) -> bool:
        """Wait for a place; return whether it was not there at once."""
        if self._has_room and not self._line:
            self.enter_at_once(place)
            return False
        turn = self._line[place] = asyncio.get_running_loop().create_future()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came in the same moment
                self.leave(place)
            raise
        finally:
            self._line.pop(place, None)
        return True

    @property
    def _has_room(self) -> bool:
        return self.taken < self._max_running and not self._is_closed

    def enter_at_once(self, place: TurnPlace) -> None:
        """Take a place, beyond the bound if there is none."""
        place.is_held = True
        self.taken += 1
        self._coming.discard(place)

    def leave(self, place: TurnPlace) -> None:
        """Give the place up, to the next in line. Without one nothing happens."""
        self._coming.discard(place)
        if not place.is_held:
            return
        place.is_held = False
        self.taken -= 1
        while self._line and self._has_room:
            follower, turn = self._line.popitem(last=False)
            if not turn.done():
                self.enter_at_once(follower)
                turn.set_result(None)


class TurnPlace:
    """The place of one turn, held or not. Entering and leaving again change nothing."""

    def __init__(self, places: TurnPlaces) -> None:
        self._places = places
        self.is_held = False

    async def enter(self) -> bool:
        """Wait until it is held; return whether there was a wait."""
        return not self.is_held and await self._places.enter(self)

    def enter_at_once(self) -> None:
        """Hold it, whatever the bound."""
        if not self.is_held:
            self._places.enter_at_once(self)

    def leave(self) -> None:
        """Give it up."""
        self._places.leave(self)
