"""Owned tasks, back-off, single flight, bounded silence, frames, work beside the loop."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import aiokit
from sidecar.aiokit import (
    END_OF_FRAME,
    SMALL_BYTES,
    Backoff,
    SilenceBound,
    SingleFlight,
    TaskOwner,
    WholeFrames,
    aside,
    cancel_and_wait,
    in_pieces,
)
from tests import virtual_time


async def test_a_dying_task_is_noticed() -> None:
    """An unexpected exception reaches `on_crash` with the task's name."""
    crashes: list[tuple[str, BaseException]] = []
    owner = TaskOwner("owner", on_crash=lambda name, error: crashes.append((name, error)))

    async def dies() -> None:
        raise ValueError("boom")

    await asyncio.gather(owner.start("dies", dies()), return_exceptions=True)
    assert [(name, str(error)) for name, error in crashes] == [("owner:dies", "boom")]
    assert len(owner) == 0


async def test_the_error_of_an_awaited_task_belongs_to_its_waiter() -> None:
    """With `is_awaited` the waiter gets it and `on_crash` hears nothing."""
    crashes: list[str] = []
    owner = TaskOwner("owner", on_crash=lambda name, _: crashes.append(name))

    async def dies() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await owner.start("dies", dies(), is_awaited=True)
    assert not crashes


async def test_close_cancels_and_waits() -> None:
    """After close every task has run its clean-up."""
    owner = TaskOwner("owner")
    cleaned = []
    started = asyncio.Event()

    async def waits() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    owner.start("waits", waits())
    await started.wait()
    await owner.close()
    assert cleaned == [True]
    assert len(owner) == 0


async def test_callers_at_the_same_time_share_one_run() -> None:
    """Five callers, one run, one result; the next call runs again."""
    runs = 0
    gate = asyncio.Event()

    async def run() -> int:
        nonlocal runs
        runs += 1
        await gate.wait()
        return runs

    flight = SingleFlight(TaskOwner("owner"), "flight", run)
    callers = [asyncio.create_task(flight()) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*callers) == [1] * 5
    assert await flight() == 2


async def test_a_caller_that_gives_up_does_not_stop_the_others() -> None:
    """The run belongs to no caller: cancelling the first one leaves it running."""
    gate = asyncio.Event()

    async def run() -> str:
        await gate.wait()
        return "done"

    flight = SingleFlight(TaskOwner("owner"), "flight", run)
    first, second = asyncio.create_task(flight()), asyncio.create_task(flight())
    await asyncio.sleep(0)
    await cancel_and_wait(first)
    gate.set()
    assert await second == "done"


async def test_all_sharers_get_the_error() -> None:
    """A failing run fails for each caller, and the next call tries again."""
    outcomes = iter([ValueError("first"), "second"])

    async def run() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    flight = SingleFlight(TaskOwner("owner"), "flight", run)
    results = await asyncio.gather(flight(), flight(), return_exceptions=True)
    assert [str(result) for result in results] == ["first", "first"]
    assert await flight() == "second"


def test_delays_grow_to_a_ceiling_with_jitter() -> None:
    """Each is between half and the whole of first * factor**n, never above the longest; reset begins anew."""
    backoff = Backoff(first=1.0, factor=2.0, longest=5.0)
    for ceiling in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert ceiling / 2 <= backoff.next_delay() <= ceiling
    backoff.reset()
    assert backoff.next_delay() <= 1.0


def test_silence_is_bounded_and_work_is_not() -> None:
    """Waits that end in time may be many, what happens between them may last; a long wait ends the block."""
    heard: list[int] = []

    async def listen() -> float:
        try:
            async with SilenceBound(10.0) as bound:
                await asyncio.sleep(25)
                heard.extend([await bound.wait(asyncio.sleep(9, number)) for number in range(5)])
                await bound.wait(asyncio.sleep(60))
        except TimeoutError:
            return asyncio.get_running_loop().time()
        return 0.0

    assert virtual_time.run(listen()) == 25 + 5 * 9 + 10
    assert heard == [0, 1, 2, 3, 4]


async def test_bounded_silence_leaves_cancellation_and_errors_alone() -> None:
    """Only its own expiry is a TimeoutError, and after the block nothing fires."""
    with pytest.raises(ValueError, match="mine"):
        async with SilenceBound(0.01):
            raise ValueError("mine")
    await asyncio.sleep(0.03)

    async def wait() -> None:
        async with SilenceBound(60) as bound:
            await bound.wait(asyncio.Event().wait())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert task.cancelled()


@given(st.lists(st.text("a\n", min_size=1, max_size=5).map(str.encode)))
def test_frames_are_cut_where_they_end(pieces: list[bytes]) -> None:
    """What comes out ends with a frame's end, and together with what is left is what went in."""
    whole, out = WholeFrames(), b""
    for piece in pieces:
        frames = whole.feed(piece)
        assert not frames or frames.endswith(END_OF_FRAME)
        out += frames
    all_of_it = b"".join(pieces)
    assert all_of_it.startswith(out)
    assert END_OF_FRAME not in all_of_it[len(out) :]


@given(
    st.lists(st.binary(max_size=3), min_size=1, max_size=6),
    st.integers(1, 9),
    st.integers(1, 7),
)
def test_large_frames_that_are_not_wanted_are_not_held(
    bodies: list[bytes], piece: int, small: int
) -> None:
    """Cut anywhere: the wanted ones come out whole, and of the others no more than the beginning is held."""
    marks = [b"u" if n % 2 else b"w" for n in range(len(bodies))]
    frames = [
        mark * (1 + 8 * (n // 2)) + body.replace(b"\n", b"-")
        for n, (mark, body) in enumerate(zip(marks, bodies, strict=True))
    ]
    data = b"".join(frame + END_OF_FRAME for frame in frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aiokit, "SMALL_BYTES", small)
        whole, out = WholeFrames(lambda beginning: beginning.startswith(b"w")), b""
        for start in range(0, len(data), piece):
            out += whole.feed(data[start : start + piece])
            is_unwanted = data[: start + piece].rpartition(END_OF_FRAME)[2].startswith(b"u")
            assert not is_unwanted or whole.held_bytes <= small + 2 * piece
    given = [frame for frame in out.split(END_OF_FRAME) if frame.startswith(b"w")]
    assert given == [frame for frame in frames if frame.startswith(b"w")]
    assert whole.held_bytes == 0


async def test_pieces_are_views() -> None:
    """Sent piece by piece, nothing is copied as a whole."""
    data = bytes(range(256)) * 1000
    pieces = [piece async for piece in in_pieces(data)]
    assert b"".join(pieces) == data
    assert {piece.obj is data for piece in pieces} == {True}
    assert max(map(len, pieces)) <= SMALL_BYTES


async def test_large_work_is_done_beside_the_loop() -> None:
    """Small work is done at once, large work in a thread."""
    here = threading.get_ident()
    assert await aside(SMALL_BYTES, threading.get_ident) == here
    assert await aside(SMALL_BYTES + 1, threading.get_ident) != here
