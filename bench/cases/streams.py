"""Many open streams: does each reader get everything, soon, and what does it cost in memory?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.clients import SidecarClient, frames, sidecar_client
from bench.processes import Program, gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio
from sidecar.aiokit import cancel_and_wait

TITLE = "500 open streams over 50 sessions, each session running turns"

_MOST_TIMES_MEMORY = 2.0
"""Of what the sidecar needed before the streams were opened."""
_MOST_LAG_SHARE = 0.1
"""Of the time that all turns took."""
_READERS = 10
_STALLED = 1
"""Of the readers of each session, those that read nothing until all is over."""
_TURN_SECONDS = 180.0
_WATCH_SECONDS = 0.05


@dataclass(slots=True)
class _Reader:
    """One stream and what came: event ids in order, and when the last idle was seen."""

    response: aiohttp.ClientResponse
    ids: list[str] = field(default_factory=list)
    idle_at: float = 0.0

    async def read(self, turns: int) -> None:
        """Read until that many turns have ended."""
        async for event in frames(self.response):
            self.ids.append(event["id"])
            if event["type"] == "session.status_idle":
                self.idle_at = time.perf_counter()
                turns -= 1
                if not turns:
                    return


async def measure(*, quick: bool) -> list[Row]:
    """Open all streams, run turns in all sessions at once, compare what each reader got."""
    count, turns = (5, 1) if quick else (50, 3)
    with scratch() as directory:
        async with AsyncExitStack() as stack:
            models = await stack.enter_async_context(gateway(directory))
            server = await stack.enter_async_context(sidecar(directory, models.url))
            client = await stack.enter_async_context(sidecar_client(server.url))
            agent = await client.new_agent()
            before = server.program.resident_bytes()
            sessions = [await client.new_session(agent) for _ in range(count)]
            readers = {
                session: [
                    _Reader(await stack.enter_async_context(client.stream(session)))
                    for _ in range(_READERS)
                ]
                for session in sessions
            }
            began = time.perf_counter()
            async with _peak_of(server.program) as peak:
                await asyncio.gather(
                    *(_run(client, session, readers[session], turns) for session in sessions)
                )
            took = time.perf_counter() - began
            whole = [await _count_whole(client, each, readers[each]) for each in sessions]
    lags = Samples(tuple(lag for each in sessions for lag in _lags(readers[each][_STALLED:])))
    streams = count * _READERS
    return [
        Row(
            f"readers that got every event, of {streams} ({count * _STALLED} read only at the end)",
            f"{sum(whole)} after {turns} turn{'s' if turns > 1 else ''} in each session",
            "the session's list of events",
            "all",
            sum(whole) == streams,
        ),
        Row(
            "the last event of a turn: how long after the first reader each other had it",
            f"{lags}, longest {format_seconds(lags.longest)}: {ratio(lags.longest, took):.2f}x",
            f"all turns: {format_seconds(took)}",
            f"at most {_MOST_LAG_SHARE:.2f}x",
            ratio(lags.longest, took) <= _MOST_LAG_SHARE,
        ),
        Row(
            "resident memory of the sidecar, its peak",
            f"{peak.resident_bytes / 2**20:.0f} MiB: {ratio(peak.resident_bytes, before):.2f}x",
            f"before the first stream: {before / 2**20:.0f} MiB",
            f"at most {_MOST_TIMES_MEMORY:.2f}x",
            ratio(peak.resident_bytes, before) <= _MOST_TIMES_MEMORY,
        ),
    ]


@dataclass(slots=True)
class _Peak:
    resident_bytes: int = 0


@asynccontextmanager
async def _peak_of(program: Program) -> AsyncIterator[_Peak]:
    """Watch a program's memory while the block runs."""
    peak = _Peak()

    async def watch() -> None:
        while True:
            peak.resident_bytes = max(peak.resident_bytes, program.resident_bytes())
            await asyncio.sleep(_WATCH_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        await cancel_and_wait(watching)


async def _run(client: SidecarClient, session: str, readers: list[_Reader], turns: int) -> None:
    """Queue all turns of a session and read to the end of the last, the stalled readers afterwards."""
    async with asyncio.timeout(_TURN_SECONDS):
        for number in range(turns):
            await client.send(session, f"[[say: turn {number} of {turns}]]")
        await asyncio.gather(*(reader.read(turns) for reader in readers[_STALLED:]))
        for reader in readers[:_STALLED]:
            await reader.read(turns)


async def _count_whole(client: SidecarClient, session: str, readers: list[_Reader]) -> int:
    """Return how many of the readers saw exactly the session's events, in order."""
    listed = await client.call("GET", f"/v1/sessions/{session}/events")
    ids = [event["id"] for event in listed["data"]]
    return sum(reader.ids == ids for reader in readers)


def _lags(readers: list[_Reader]) -> list[float]:
    first = min(reader.idle_at for reader in readers)
    return [reader.idle_at - first for reader in readers if reader.idle_at > first]
