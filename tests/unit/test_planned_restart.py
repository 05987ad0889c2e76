"""When a requested restart may happen."""

import pytest
from structlog.testing import capture_logs

from sidecar.opencode.planned_restart import PlannedRestart


class World:
    """A restart, with a clock and turns that the tests move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_busy = True
        self.asked = 0
        self.restart = PlannedRestart(
            is_busy=self._is_asked,
            patience_seconds=300,
            hold_seconds=45,
            clock=lambda: self.now,
        )

    async def after(self, seconds: float) -> tuple[bool, bool]:
        """Let time pass; return whether the restart is due and whether turns are held."""
        self.now += seconds
        return await self.restart.is_due(), self.restart.is_holding

    async def _is_asked(self) -> bool:
        self.asked += 1
        return self.is_busy


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_is_due_that_nobody_asked_for(world: World) -> None:
    """Without a reason neither idleness nor time matters."""
    world.is_busy = False
    assert await world.after(10_000) == (False, False)
    assert world.asked == 0


async def test_it_happens_at_once_when_nobody_is_busy(world: World) -> None:
    """An idle child is replaced; a busy one is not touched."""
    world.restart.request("memory", is_forced=False)
    assert await world.after(1) == (False, False)
    world.is_busy = False
    assert await world.after(1) == (True, False)


async def test_force_waits_for_nothing(world: World) -> None:
    """A forced request overrides one that waits."""
    world.restart.request("memory", is_forced=False)
    world.restart.request("operator", is_forced=True)
    assert await world.after(0) == (True, False)
    assert world.restart.reason == "operator"


async def test_new_turns_are_held_when_patience_ends(world: World) -> None:
    """Asking again meanwhile does not prolong the patience."""
    world.restart.request("memory", is_forced=False)
    assert await world.after(299) == (False, False)
    world.restart.request("memory", is_forced=False)
    assert await world.after(1) == (False, True)
    world.is_busy = False
    assert await world.after(1) == (True, True)
    world.restart.clear()
    assert not world.restart.is_holding


async def test_a_long_turn_ends_the_holding_until_patience_ends_again(world: World) -> None:
    """Held for 45 s, let go, and held again 300 s later."""
    world.restart.request("memory", is_forced=False)
    assert await world.after(300) == (False, True)
    assert await world.after(44) == (False, True)
    assert await world.after(1) == (False, False)
    assert await world.after(299) == (False, False)
    assert await world.after(1) == (False, True)


def test_a_forced_wish_behind_a_pending_one_is_logged(world: World) -> None:
    """It changes what happens; a third that changes nothing is not."""
    with capture_logs() as logs:
        for reason, is_forced in (("memory", False), ("maps", False), ("me", True), ("me", True)):
            world.restart.request(reason, is_forced=is_forced)
    assert [(line["reason"], line["force"]) for line in logs] == [("memory", False), ("me", True)]
