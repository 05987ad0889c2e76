"""opencode's events for readers of their own pace."""

import asyncio

from sidecar.opencode.frame_feed import FrameFeed

FRAME = b"data: {}\n\n"
HELLO = b"data: hello\n\n"


def ignore() -> None:
    """Called when a reader is cut."""


async def test_a_reader_gets_what_came_after_it_behind_a_greeting() -> None:
    """The greeting is that of the newest boot whose events are read; small pieces come together."""
    feed = FrameFeed()
    feed.greet(1, b"old")
    feed.greet(2, HELLO)
    feed.put(b"too early")
    with feed.open(on_cut=ignore) as reader, feed.open(on_cut=ignore) as other:
        assert feed.readers == 2
        feed.put(FRAME)
        feed.put(FRAME)
        assert await reader.wait(5)
        assert reader.take() == HELLO + FRAME + FRAME
        assert reader.take() == b""
        assert other.take() == HELLO + FRAME + FRAME
    assert feed.readers == 0


async def test_while_no_events_are_read_there_is_no_greeting() -> None:
    """It comes as the first frame, when they are read again."""
    feed = FrameFeed()
    feed.greet(1, HELLO)
    feed.forget(1)
    with feed.open(on_cut=ignore) as reader:
        assert not await reader.wait(0.001)
        feed.put(HELLO)
        assert await reader.wait(5)
        assert reader.take() == HELLO


async def test_waiting_ends_when_it_is_woken() -> None:
    """Though nothing came: there may be an end to see."""
    feed = FrameFeed()
    with feed.open(on_cut=ignore) as reader:
        waiting = asyncio.create_task(reader.wait(60))
        await asyncio.sleep(0)
        feed.wake()
        assert await waiting
        assert reader.take() == b""


async def test_a_reader_that_is_too_slow_is_cut() -> None:
    """It alone, once, and what waits for it is not counted for others."""
    feed = FrameFeed(most_held_bytes=3 * len(FRAME))
    cuts = []
    with (
        feed.open(on_cut=lambda: cuts.append("slow")) as slow,
        feed.open(on_cut=lambda: cuts.append("fast")) as fast,
    ):
        for _ in range(10):
            feed.put(FRAME)
            assert fast.take() == FRAME
        assert cuts == ["slow"]
        assert feed.cut_readers == 1
        assert slow.held_bytes == 4 * len(FRAME)
        assert feed.readers == 1
