"""A turn through the sidecar beside the same turn straight to opencode, alternating.

Wall clock on a small machine also shows who else used it; the processor time of each side hardly does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from bench.clients import SidecarClient, TurnTimes, sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio
from bench.straight import straight_opencode
from sidecar.managed.tools import ToolPlan
from sidecar.opencode.client import PermissionRule

TITLE = "A turn: through the sidecar, against the same turn straight to opencode"

_MOST_LATER_SECONDS = 0.015
_MOST_TIMES = 1.10
_MOST_CPU_SHARE = 0.15
_TRAILING_SECONDS = 0.15
"""What a turn leaves to be done after its end counts too."""
_SESSIONS = (1, 8)
_ANSWERS = (
    ("an answer at once", "[[say: one two three four five six seven eight]]"),
    ("20 words, 20 ms apart", "[[slow: 20x0.02 word]]"),
)


class Client(Protocol):
    """What both sides can do."""

    async def turn(
        self, session_id: str, text: str, *, together: asyncio.Barrier | None
    ) -> TurnTimes:
        """Run one turn, at one moment with the others of the barrier."""


@dataclass
class Side:
    """The sidecar, or opencode alone, and what was measured of it."""

    client: Client
    sessions: Sequence[str]
    cpu_seconds: Callable[[], float]
    times: list[TurnTimes] = field(default_factory=list)
    cpu: float = 0.0

    async def round(self, sessions: int, prompt: str) -> None:
        """One turn in each of so many sessions, all at once."""
        together = asyncio.Barrier(sessions)
        before = self.cpu_seconds()
        self.times += await asyncio.gather(
            *(self.client.turn(s, prompt, together=together) for s in self.sessions[:sessions])
        )
        await asyncio.sleep(_TRAILING_SECONDS)
        self.cpu += self.cpu_seconds() - before

    def forget(self) -> None:
        """Begin anew."""
        self.times, self.cpu = [], 0.0


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
            rules = await _rules(ours, agent)
            most = max(_SESSIONS)
            through = Side(
                ours,
                [await ours.new_session(agent) for _ in range(most)],
                server.program.cpu_seconds,
            )
            straight = Side(
                theirs,
                [await theirs.new_session(rules) for _ in range(most)],
                theirs.cpu_seconds,
            )
            for side in (through, straight):
                await side.round(most, "first")
            rows = []
            for sessions in _SESSIONS:
                for name, prompt in _ANSWERS:
                    through.forget()
                    straight.forget()
                    for _ in range(2 if quick else (40 if sessions == 1 else 12)):
                        await straight.round(sessions, prompt)
                        await through.round(sessions, prompt)
                    rows += _rows(f"{_count(sessions)}, {name}", through, straight)
            return rows


async def _rules(client: SidecarClient, agent_id: str) -> list[PermissionRule]:
    """Return what the sidecar grants the agent's sessions: both sides must send the same tools."""
    agent = await client.call("GET", f"/v1/agents/{agent_id}")
    return list(ToolPlan(agent["tools"], agent["mcp_servers"]).rules())


def _rows(what: str, through: Side, straight: Side) -> list[Row]:
    first = Samples(tuple(times.first_text for times in through.times))
    their_first = Samples(tuple(times.first_text for times in straight.times))
    later = first.p50 - their_first.p50
    whole = Samples(tuple(times.whole for times in through.times))
    their_whole = Samples(tuple(times.whole for times in straight.times))
    times = ratio(whole.p50, their_whole.p50)
    share = ratio(through.cpu, straight.cpu)
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
        Row(
            f"processor time per turn, {what}",
            f"the sidecar's own {_per_turn(through)}: {share:.0%}",
            f"opencode's, straight {_per_turn(straight)}",
            f"at most {_MOST_CPU_SHARE:.0%}",
            share <= _MOST_CPU_SHARE,
        ),
    ]


def _per_turn(side: Side) -> str:
    return format_seconds(side.cpu / len(side.times))


def _count(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions} sessions at once"
