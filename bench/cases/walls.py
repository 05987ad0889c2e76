"""What confinement costs: a turn with a command, and one without, in sidecars that differ in it alone.

Two opencodes that are started alike differ by some percent for as long as they live, and which was started
first may matter. So several pairs are measured; in every second one the other side is started first, the
turns are in random order, and the ratios of the pairs are averaged.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import mean

from bench.clients import SidecarClient, sidecar_client
from bench.processes import RUNTIME_KEY, Server, gateway, scratch, start_sidecar
from bench.report import Row
from bench.stats import Samples, ratio

TITLE = "Confinement: a turn in a session that is held to its directory, against one that is not"

_SIDES: Mapping[str, Mapping[str, str]] = {
    "confined": {"SIDECAR_CONFINEMENT": "required"},
    "open": {"SIDECAR_CONFINEMENT": "off"},
}
_PROMPTS = {
    "a turn with a command": "[[bash: true]] [[then]] [[say: done]]",
    "a turn without tools": "[[say: one two three four five six seven eight]]",
}
_MOST_TIMES = {"a turn with a command": 1.10, "a turn without tools": 1.03}
"""1.00 is what is meant; the rest is what this machine cannot tell apart."""
_PAIRS = 6
"""An even number: each side is started first as often as the other."""
_ROUNDS = 20
_WARM_UP_ROUNDS = 4

_Times = dict[str, dict[str, list[float]]]
"""Seconds of whole turns, by prompt and side."""


async def measure(*, quick: bool) -> list[Row]:
    """Run the same turns on both sides of each pair."""
    pairs = []
    for number in range(2 if quick else _PAIRS):
        order = list(_SIDES)[:: 1 if number % 2 == 0 else -1]
        pairs.append(await _pair(order, rounds=3 if quick else _ROUNDS))
    return [_row(what, pairs) for what in _PROMPTS]


def _row(what: str, pairs: list[_Times]) -> Row:
    medians = [{side: Samples(tuple(pair[what][side])).p50 for side in _SIDES} for pair in pairs]
    times = mean(ratio(pair["confined"], pair["open"]) for pair in medians)
    whole = {side: Samples(tuple(t for pair in pairs for t in pair[what][side])) for side in _SIDES}
    return Row(
        what,
        f"{times:.2f} times ({whole['confined']})",
        f"not confined: {whole['open']}",
        f"at most {_MOST_TIMES[what]:g} times",
        times <= _MOST_TIMES[what],
    )


async def _pair(order: list[str], *, rounds: int) -> _Times:
    times: _Times = {what: {side: [] for side in _SIDES} for what in _PROMPTS}
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(scratch())
        models = await stack.enter_async_context(gateway(directory))
        sessions: dict[str, tuple[SidecarClient, str]] = {}
        for side in order:
            server = await stack.enter_async_context(
                _sidecar(_made(directory / side), models.url, _SIDES[side])
            )
            client = await stack.enter_async_context(sidecar_client(server.url))
            sessions[side] = client, await client.new_session(await client.new_agent())
        for number in range(rounds + _WARM_UP_ROUNDS):
            for what, prompt in _PROMPTS.items():
                for side in random.sample(list(_SIDES), len(_SIDES)):
                    client, session_id = sessions[side]
                    turn = await client.turn(session_id, prompt)
                    if number >= _WARM_UP_ROUNDS:
                        times[what][side].append(turn.whole)
    return times


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@asynccontextmanager
async def _sidecar(
    directory: Path, gateway_url: str, settings: Mapping[str, str]
) -> AsyncIterator[Server]:
    server = await start_sidecar(directory, gateway_url, settings=settings)
    try:
        await server.program.answers(f"{server.url}/readyz", {"x-api-key": RUNTIME_KEY})
        yield server
    finally:
        await server.program.end()
