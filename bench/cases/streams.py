"""Many open streams: does each reader get everything, soon, and what does it cost in memory?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from bench.clients import SidecarClient, frames, sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds

TITLE = "500 open streams over 50 sessions, each session running turns"

_MOST_MIB = 150
_MOST_LAG_SECONDS = 1.0
_READERS = 10
_STALLED = 1
"""Of the readers of each session, those that read nothing until all is over."""
_TURN_SECONDS = 180.0


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
            sessions = [await client.new_session(agent) for _ in range(count)]
            readers = {
                session: [
                    _Reader(await stack.enter_async_context(client.stream(session)))
                    for _ in range(_READERS)
                ]
                for session in sessions
            }
            peaks = await asyncio.gather(
                *(_run(client, session, readers[session], turns, server.program.resident_bytes)
                  for session in sessions)
            )
            complete = [
                await _is_complete(client, session, readers[session]) for session in sessions
            ]
    lags = Samples(tuple(lag for session in sessions for lag in _lags(readers[session][_STALLED:])))
    peak = max(peaks)
    streams = count * _READERS
    return [
        Row(
            f"readers that got every event, of {streams} ({count * _STALLED} read only at the end)",
            f"{sum(complete)} after {turns} turn{'s' if turns > 1 else ''} in each session",
            "the session's list of events",
            "all",
            sum(complete) == streams,
        ),
        Row(
            "the last event of a turn: how long after the first reader each other had it",
            f"{lags}, longest {format_seconds(lags.longest)}",
            "",
            f"none later than {format_seconds(_MOST_LAG_SECONDS)}",
            lags.longest <= _MOST_LAG_SECONDS,
        ),
        Row(
            "resident memory of the sidecar, its peak",
            f"{peak / 2**20:.0f} MiB",
            "",
            f"at most {_MOST_MIB} MiB",
            peak <= _MOST_MIB * 2**20,
        ),
    ]
