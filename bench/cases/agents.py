"""Creating agents with models new to opencode while a turn streams, against restarting opencode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bench.clients import SidecarClient, frames, sidecar_client
from bench.processes import gateway, model_names, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, sample
from bench.straight import straight_opencode

TITLE = "POST /v1/agents, each with a model new to opencode, beside a streaming turn"

_LEAST_TIMES = {1: 100, 10: 30}
"""Faster than a restart of opencode, by how many clients create agents at once."""
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Streamed:
    """What a reader saw of one turn: its text, every event type, and the longest wait for more text."""

    text: str
    types: list[str]
    longest_gap: float

    def was_undisturbed(self, words: int) -> bool:
        """Whether it is one whole turn."""
        return (
            self.text.split() == [f"word{n + 1}" for n in range(words)]
            and self.types.count("session.status_running") == 1
            and "session.error" not in self.types
        )


async def measure(*, quick: bool) -> list[Row]:
    """Create agents from 1 and from 10 clients; then time restarts of an opencode of its own."""
    runs = 20 if quick else 100
    words = 100 if quick else 400
    names = iter(model_names(2 * runs + 3)[1:])
    with scratch() as directory:
        async with AsyncExitStack() as stack:
            models = await stack.enter_async_context(gateway(directory, models=2 * runs + 3))
            server = await stack.enter_async_context(sidecar(directory, models.url))
            client = await stack.enter_async_context(sidecar_client(server.url))
            session = await client.new_session(await client.new_agent())
            await client.turn(session, "[[say: warm]]")
            alone = await _streamed_turn(client, session, 20, started=asyncio.Event())
            started = asyncio.Event()
            turn = asyncio.create_task(_streamed_turn(client, session, words, started=started))
            await started.wait()
            created = {clients: await _create(client, names, runs, clients) for clients in (1, 10)}
            overlapped = not turn.done()
            streamed = await turn
        async with straight_opencode(directory / "straight", "http://127.0.0.1:9") as opencode:
            restarts = await sample(opencode.restart, runs=1 if quick else 5, warm_up=0)
    rows = [
        Row(
            f"{clients} client{'s' if clients > 1 else ''} at once",
            f"{seconds}: {seconds.times_faster_than(restarts):.0f}x faster",
            f"restart of opencode: {restarts}",
            f"at least {_LEAST_TIMES[clients]}x faster",
            seconds.times_faster_than(restarts) >= _LEAST_TIMES[clients],
        )
        for clients, seconds in created.items()
    ]
    undisturbed = overlapped and streamed.was_undisturbed(words)
    rows.append(
        Row(
            f"the turn that streamed meanwhile, {words} words",
            f"{'whole' if undisturbed else 'disturbed'}; longest wait for a word "
            f"{format_seconds(streamed.longest_gap)}",
            f"longest wait alone {format_seconds(alone.longest_gap)}",
            "undisturbed",
            undisturbed,
        )
    )
    return rows


async def _create(client: SidecarClient, names: Iterator[str], runs: int, clients: int) -> Samples:
    return await sample(lambda: client.new_agent(next(names)), runs=runs, clients=clients)


async def _streamed_turn(
    client: SidecarClient, session: str, words: int, *, started: asyncio.Event
) -> _Streamed:
    """Run a slow turn and read it as it comes; sets `started` at its first text."""
    types: list[str] = []
    text, gap, last = "", 0.0, 0.0
    async with client.stream(session, previews=True) as response:
        await client.send(session, f"[[slow: {words}x{_PAUSE_SECONDS} word]]")
        async for event in frames(response):
            types.append(event["type"])
            if event["type"] == "event_delta":
                now = time.perf_counter()
                gap, last = max(gap, now - last) if last else 0.0, now
                started.set()
            elif event["type"] == "agent.message":
                text += "".join(block["text"] for block in event["content"])
            elif event["type"] == "session.status_idle":
                break
    return _Streamed(text, types, gap)
