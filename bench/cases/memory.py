"""Resident memory of the sidecar with idle sessions that each have had a turn."""

from __future__ import annotations

import asyncio

from bench.clients import sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row

TITLE = "Memory of the sidecar's own process"

_MODELS = 300
_SESSIONS = 200
_AT_ONCE = 4
_MOST_MIB = 120


async def measure(*, quick: bool) -> list[Row]:
    """Give each session one turn, so that everything a session ever needs was loaded."""
    sessions = 8 if quick else _SESSIONS
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
                for _ in left:
                    await client.turn(await client.new_session(agent), "[[say: done]]")

            await asyncio.gather(*(use_sessions() for _ in range(_AT_ONCE)))
            used = server.program.resident_bytes()
    return [
        Row(
            f"{sessions} idle sessions, {_MODELS} models in the catalogue",
            f"{used / 2**20:.0f} MiB",
            f"just started {fresh / 2**20:.0f} MiB",
            f"at most {_MOST_MIB} MiB with {_SESSIONS} sessions",
            used <= _MOST_MIB * 2**20,
        )
    ]
