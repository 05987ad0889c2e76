"""How fast streams are: the same bytes read by one client and by many, one way and another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp

from bench.report import Row
from bench.stats import percentile, ratio
from sidecar.aiokit import END_OF_FRAME

LEAST_SHARE = 0.85
"""Of the throughput without us."""
STREAM_BYTES = 50_000_000
CLIENTS = (1, 32)

OpenStream = Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Opens a stream that will have that many events."""
Begin = Callable[[int], Awaitable[None]]
"""Has that many events sent to each open stream, where opening one is not enough."""
_PATIENCE_SECONDS = 300.0


async def compare(
    what: str,
    *,
    event_bytes: int,
    ours: OpenStream,
    theirs: OpenStream,
    begin_ours: Begin | None = None,
    begin_theirs: Begin | None = None,
    quick: bool,
) -> list[Row]:
    """Return a row for each number of clients, the two ways in turn. Events have that many bytes."""
    rows = []
    for clients in CLIENTS:
        size = STREAM_BYTES // (20 if quick else 1)
        mine: list[float] = []
        others: list[float] = []
        for _ in range(2 if quick else 6):
            each = size // clients // event_bytes
            for kept, open_stream, begin in (
                (others, theirs, begin_theirs),
                (mine, ours, begin_ours),
            ):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    seconds = await _seconds(open_stream, begin, events=each, clients=clients)
                kept.append(size / seconds)
        ours_rate, theirs_rate = percentile(mine[1:], 0.5), percentile(others[1:], 0.5)
        share = ratio(ours_rate, theirs_rate)
        rows.append(
            Row(
                f"{what}, {size // 10**6} MB, {clients} client{'s' if clients > 1 else ''}",
                f"{_megabytes(ours_rate)} (median of {len(mine) - 1}): {share:.2f}x",
                f"straight: {_megabytes(theirs_rate)}",
                f"at least {LEAST_SHARE:.2f}x",
                share >= LEAST_SHARE,
            )
        )
    return rows


async def _seconds(
    open_stream: OpenStream, begin: Begin | None, *, events: int, clients: int
) -> float:
    """Return how long `clients` streams take that have so many events each."""
    are_open = asyncio.Barrier(clients + 1)

    async def read() -> float:
        async with open_stream(events) as response:
            response.raise_for_status()
            if begin is not None:
                await response.content.readany()  # server.connected
                await are_open.wait()
            left = int(events * 0.99)  # an end that comes in two pieces is not counted
            while left > 0:
                data = await response.content.readany()
                if not data:
                    raise RuntimeError(f"the stream ended {left} events too early")
                left -= data.count(END_OF_FRAME)
            return time.perf_counter()

    began = time.perf_counter()
    reading = [asyncio.create_task(read()) for _ in range(clients)]
    if begin is not None:
        await are_open.wait()
        began = time.perf_counter()
        await begin(events)
    return max(await asyncio.gather(*reading)) - began


def _megabytes(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s"
