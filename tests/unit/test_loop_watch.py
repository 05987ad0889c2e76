"""A held event loop is counted and logged; a slow machine is not taken for one."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from structlog.testing import capture_logs

from sidecar.loop_watch import StallWatch, WatchedLoop, running_watch

_THRESHOLD = 0.05


def run(program: Callable[[], Awaitable[None]]) -> StallWatch:
    """Run it on a watched loop."""

    async def main() -> StallWatch:
        await program()
        await asyncio.sleep(0)  # the loop looks at its sockets once more
        return running_watch()

    with asyncio.Runner(loop_factory=lambda: WatchedLoop(_THRESHOLD)) as runner:
        return runner.run(main())


def burn(seconds: float) -> None:
    """Use so much processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_work_that_holds_the_loop_is_counted_and_logged() -> None:
    """Each hold beyond the threshold counts, with its time."""

    async def program() -> None:
        burn(0.06)
        await asyncio.sleep(0)
        burn(0.08)

    with capture_logs() as logs:
        watch = run(program)
    assert watch.stalls == 2
    assert 0.08 <= watch.longest_seconds < watch.stalled_seconds
    assert [entry["event"] for entry in logs] == ["event loop held"]


def test_short_work_and_waiting_do_not_count() -> None:
    """Many short pieces hold nothing, and neither does a thread that has no processor: here, that sleeps."""

    async def program() -> None:
        for _ in range(10):
            burn(0.01)
            await asyncio.sleep(0)
        time.sleep(0.1)  # as a machine without a free processor does

    assert run(program).stalls == 0


def test_the_second_stall_is_logged_with_its_place() -> None:
    """After a first stall a thread looks what the loop runs."""

    async def program() -> None:
        burn(0.06)
        await asyncio.sleep(0)
        while not running_watch().places:
            burn(0.2)
            await asyncio.sleep(0)

    assert any("test_loop_watch" in place and "burn" in place for place in run(program).places)


def test_another_loop_is_not_watched() -> None:
    """A program that embeds the parts in a loop of its own gets a watch that counts nothing."""

    async def watch() -> StallWatch:
        burn(0.06)
        await asyncio.sleep(0)
        return running_watch()

    assert asyncio.run(watch()).stalls == 0
