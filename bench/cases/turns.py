"""A turn through the sidecar beside the same turn straight to opencode, alternating."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from bench.clients import TurnTimes, sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio
from bench.straight import straight_opencode

TITLE = "A turn: through the sidecar, against the same turn straight to opencode"

_MOST_LATER_SECONDS = 0.015
_MOST_TIMES = 1.10
_SESSIONS = (1, 8)
_ANSWERS = (
    ("an answer at once", "[[say: one two three four five six seven eight]]"),
    ("20 words, 20 ms apart", "[[slow: 20x0.02 word]]"),
)

Turn = Callable[[str, str], Awaitable[TurnTimes]]


async def measure(*, quick: bool) -> list[Row]:
    """Run rounds of second turns, sidecar and opencode in turn, so that noise meets both."""
    with scratch() as directory:
        async with AsyncExitStack() as stack:
            models = await stack.enter_async_context(gateway(directory))
            server = await stack.enter_async_context(sidecar(directory, models.url))
            ours = await stack.enter_async_context(sidecar_client(server.url))
            theirs = await stack.enter_async_context(
                straight_opencode(directory / "straight", models.url)
            )
            agent = await ours.new_agent()
            most = max(_SESSIONS)
            our_sessions = [await ours.new_session(agent) for _ in range(most)]
            their_sessions = [await theirs.new_session() for _ in range(most)]
            await _round(ours.turn, our_sessions, "first")
            await _round(theirs.turn, their_sessions, "first")
            rows = []
            for sessions in _SESSIONS:
                for name, prompt in _ANSWERS:
                    through: list[TurnTimes] = []
                    straight: list[TurnTimes] = []
                    for _ in range(2 if quick else (40 if sessions == 1 else 12)):
                        straight += await _round(theirs.turn, their_sessions[:sessions], prompt)
                        through += await _round(ours.turn, our_sessions[:sessions], prompt)
                    rows += _rows(f"{_count(sessions)}, {name}", through, straight)
            return rows


async def _round(turn: Turn, sessions: Sequence[str], prompt: str) -> list[TurnTimes]:
    """One turn in each session, all at once."""
    return list(await asyncio.gather(*(turn(session, prompt) for session in sessions)))


def _rows(what: str, through: list[TurnTimes], straight: list[TurnTimes]) -> list[Row]:
    first = Samples(tuple(times.first_text for times in through))
    their_first = Samples(tuple(times.first_text for times in straight))
    later = first.p50 - their_first.p50
    whole = Samples(tuple(times.whole for times in through))
    their_whole = Samples(tuple(times.whole for times in straight))
    times = ratio(whole.p50, their_whole.p50)
    return [
        Row(
            f"first text, {what}",
            f"{first}: {later * 1e3:+.1f} ms",
            f"{their_first}",
            f"at most +{format_seconds(_MOST_LATER_SECONDS)}",
            later <= _MOST_LATER_SECONDS,
        ),
        Row(
            f"whole turn, {what}",
            f"{whole}: {times:.2f}x",
            f"{their_whole}",
            f"at most {_MOST_TIMES:.2f}x",
            times <= _MOST_TIMES,
        ),
    ]


def _count(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions at once"
