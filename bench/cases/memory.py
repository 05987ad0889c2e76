"""Resident memory of the sidecar with idle sessions, all of them loaded, some after turns."""

from __future__ import annotations

import asyncio

from bench.clients import sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import ratio

TITLE = "Memory of the sidecar's own process"

_MODELS = 300
_SESSIONS = 200
_TURNS = 40
_AT_ONCE = 4
_MOST_TIMES = 1.25
"""Of what it needs just after its start."""


async def measure(*, quick: bool) -> list[Row]:
    """Open each session's stream once, which loads it, and run turns in some of them."""
    sessions, turns = (8, 2) if quick else (_SESSIONS, _TURNS)
    with scratch() as directory:
        async with (
            gateway(directory, models=_MODELS) as models,
            sidecar(directory, models.url) as server,
            sidecar_client(server.url) as client,
        ):
            fresh = server.program.resident_bytes()
            agent = await client.new_agent()
            left = iter(range(sessions))

            async def use_sessions() -> None:
                for number in left:
                    session = await client.new_session(agent)
                    if number < turns:
                        await client.turn(session, "[[say: done]]")
                    async with client.stream(session):
                        pass

            await asyncio.gather(*(use_sessions() for _ in range(_AT_ONCE)))
            used = server.program.resident_bytes()
    times = ratio(used, fresh)
    return [
        Row(
            f"{sessions} idle sessions, {turns} of them after a turn, {_MODELS} models",
            f"{used / 2**20:.0f} MiB: {times:.2f}x",
            f"just started {fresh / 2**20:.0f} MiB",
            f"at most {_MOST_TIMES:.2f}x",
            times <= _MOST_TIMES,
        )
    ]
