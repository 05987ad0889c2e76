"""How fast streams are: the same bytes read by one client and by many, one way and another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp

from bench.report import Row
from bench.stats import percentile, ratio

LEAST_SHARE = 0.85
"""Of the throughput without us."""
STREAM_BYTES = 50_000_000
CLIENTS = (1, 32)

OpenStream = Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Opens a stream that will have that many bytes."""
Begin = Callable[[int], Awaitable[None]]
"""Has that many bytes sent to each open stream, where opening one is not enough."""


async def compare(
    what: str,
    *,
    ours: OpenStream,
    theirs: OpenStream,
    begin_ours: Begin | None = None,
    begin_theirs: Begin | None = None,
    quick: bool,
) -> list[Row]:
    """Return a row for each number of clients, the two ways in turn."""
    rows = []
    for clients in CLIENTS:
        size = STREAM_BYTES // (20 if quick else 1)
        mine, others = [], []
        for _ in range(2 if quick else 6):
            others.append(await _rate(theirs, begin_theirs, size=size, clients=clients))
            mine.append(await _rate(ours, begin_ours, size=size, clients=clients))
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


async def _rate(
    open_stream: OpenStream,
    begin: Begin | None,
    *,
    size: int,
    clients: int,
) -> float:
    """Return bytes per second of `clients` streams that have `size` bytes together."""
    each = size // clients
    are_open = asyncio.Barrier(clients + 1)

    async def read() -> float:
        async with open_stream(each) as response:
            response.raise_for_status()
            if begin is not None:
                await response.content.readany()  # server.connected
                await are_open.wait()
            left = int(each * 0.99)  # an event that is cut differs by some bytes on the two ways
            while left > 0:
                data = await response.content.readany()
                if not data:
                    raise RuntimeError(f"the stream ended {left} bytes too early")
                left -= len(data)
            return time.perf_counter()

    began = time.perf_counter()
    reading = [asyncio.create_task(read()) for _ in range(clients)]
    if begin is not None:
        await are_open.wait()
        began = time.perf_counter()
        await begin(each)
    ended = max(await asyncio.gather(*reading))
    return size / (ended - began)


def _megabytes(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s"
