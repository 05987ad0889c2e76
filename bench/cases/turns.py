"""A turn through the sidecar beside the same turn straight to opencode.

Two opencodes that are started alike differ by some percent for as long as they live, more than the sidecar
adds. So several groups of processes are measured, each of a sidecar and two plain opencodes, in random
order; a difference is taken within its group, against the mean of the two, and then averaged. How far the two
plain ones are apart shows what this machine can tell.

A fourth process is opencode as installed, with its defaults, which is what a user would run instead.

Wall clock on a small machine also shows who else used it; the processor time of each side hardly does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import mean
from typing import Protocol

from bench.clients import SidecarClient, TurnTimes, sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio
from bench.stock import StockOpencode
from bench.straight import straight_opencode
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.opencode.client import PermissionRule

TITLE = "A turn: through the sidecar, against the same turn straight to opencode"

_MOST_LATER_SHARE = 0.25
"""Of opencode's own time to its first text."""
_MOST_TIMES = 1.10
_MOST_TIMES_STOCK = 1.10
_MOST_CPU_SHARE = 0.15
_TRAILING_SECONDS = 0.15
"""What a turn leaves to be done after its end counts too."""
_GROUPS = 5
_WARM_UP_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """So many sessions at once that ask for such an answer; `rounds` of them are measured per group."""

    sessions: int
    answer: str
    prompt: str
    rounds: int

    @property
    def name(self) -> str:
        """What the rows call it."""
        count = "1 session" if self.sessions == 1 else f"{self.sessions} sessions at once"
        return f"{count}, {self.answer}"


_AT_ONCE = ("an answer at once", "[[say: one two three four five six seven eight]]")
_SLOW = ("20 words, 20 ms apart", "[[slow: 20x0.02 word]]")
_LOADS = (Load(1, *_AT_ONCE, 25), Load(1, *_SLOW, 12), Load(8, *_AT_ONCE, 10), Load(8, *_SLOW, 8))


class Client(Protocol):
    """What both sides can do."""

    async def turn(
        self, session_id: str, text: str, *, together: asyncio.Barrier | None
    ) -> TurnTimes:
        """Run one turn, at one moment with the others of the barrier."""


@dataclass
class Side:
    """The sidecar, or an opencode alone, and what was measured of it under one load."""

    client: Client
    sessions: Sequence[str]
    cpu_seconds: Callable[[], float]
    times: list[TurnTimes] = field(default_factory=list)
    cpu: float = 0.0

    async def round(self, load: Load) -> None:
        """One turn in each of the sessions, all at once."""
        together, before = asyncio.Barrier(load.sessions), self.cpu_seconds()
        sessions = self.sessions[: load.sessions]
        turns = (self.client.turn(s, load.prompt, together=together) for s in sessions)
        self.times += await asyncio.gather(*turns)
        await asyncio.sleep(_TRAILING_SECONDS)
        self.cpu += self.cpu_seconds() - before

    def taken(self) -> Measured:
        """Return what was measured since the last time."""
        telemetry = Measured(
            first_text=Samples(tuple(times.first_text for times in self.times)),
            whole=Samples(tuple(times.whole for times in self.times)),
            cpu=self.cpu / len(self.times),
        )
        self.times, self.cpu = [], 0.0
        return telemetry


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one group under one load; `cpu` is seconds per turn."""

    first_text: Samples
    whole: Samples
    cpu: float


@dataclass(frozen=True, slots=True)
class Group:
    """What was measured side by side: through the sidecar, two opencodes alone, and one with its defaults."""

    through: Measured
    alone: tuple[Measured, Measured]
    stock: Measured


async def measure(*, quick: bool) -> list[Row]:
    """Run second turns in each group."""
    telemetry: dict[Load, list[Group]] = {load: [] for load in _LOADS}
    for _ in range(1 if quick else _GROUPS):
        with scratch() as directory:
            async with AsyncExitStack() as stack:
                models = await stack.enter_async_context(gateway(directory))
                server = await stack.enter_async_context(sidecar(directory, models.url))
                ours = await stack.enter_async_context(sidecar_client(server.url))
                agent = await ours.new_agent()
                most = range(max(load.sessions for load in _LOADS))
                sessions = [await ours.new_session(agent) for _ in most]
                through = Side(ours, sessions, server.program.cpu_seconds)
                alone, rules = [], await _rules(ours, agent)
                for name in ("straight", "control"):
                    theirs = await stack.enter_async_context(
                        straight_opencode(directory / name, models.url)
                    )
                    sessions = [await theirs.new_session(rules) for _ in most]
                    alone.append(Side(theirs, sessions, theirs.cpu_seconds))
                stock = await stack.enter_async_context(
                    straight_opencode(directory / "stock", models.url, kind=StockOpencode)
                )
                sessions = [await stock.new_session() for _ in most]
                installed = Side(stock, sessions, stock.cpu_seconds)
                for load in _LOADS:
                    sides = (through, alone[0], alone[1], installed)
                    group = await _group(load, sides, quick=quick)
                    telemetry[load].append(group)
    return [row for load, groups in telemetry.items() for row in _rows(load.name, groups)]


async def _rules(client: SidecarClient, agent_id: str) -> list[PermissionRule]:
    """Return what the sidecar grants the agent's sessions: both sides must send the same tools."""
    agent = await client.call("GET", f"/v1/agents/{agent_id}")
    return list(ToolPlan(agent["tools"], agent["mcp_servers"]).rules())


async def _group(load: Load, all_sides: tuple[Side, Side, Side, Side], *, quick: bool) -> Group:
    sides = list(all_sides)
    for _ in range(1 if quick else max(2, _WARM_UP_ROUNDS // load.sessions)):
        for side in sides:
            await side.round(load)
    for side in sides:
        side.taken()
    for _ in range(2 if quick else load.rounds):
        random.shuffle(sides)
        for side in sides:
            await side.round(load)
    through, one, other, stock = (side.taken() for side in all_sides)
    return Group(through, (one, other), stock)


def _rows(what: str, groups: Sequence[Group]) -> list[Row]:
    first = [_compared(group, lambda side: side.first_text.p50) for group in groups]
    whole = [_compared(group, lambda side: side.whole.p50) for group in groups]
    later = mean(ours - theirs for ours, theirs, _ in first)
    share_later = mean(ratio(ours - theirs, theirs) for ours, theirs, _ in first)
    stock = mean(ratio(g.through.first_text.p50, g.stock.first_text.p50) for g in groups)
    times = mean(ratio(ours, theirs) for ours, theirs, _ in whole)
    share = mean(ratio(g.through.cpu, mean(side.cpu for side in g.alone)) for g in groups)
    our_cpu = format_seconds(mean(group.through.cpu for group in groups))
    their_cpu = format_seconds(mean(side.cpu for group in groups for side in group.alone))
    return [
        Row(
            f"first text, {what}",
            f"{_pooled(g.through.first_text for g in groups)}: {later * 1e3:+.1f} ms, {share_later:+.0%}",
            f"{_pooled(side.first_text for g in groups for side in g.alone)}; {_apart(first)}",
            f"at most {_MOST_LATER_SHARE:+.0%}",
            share_later <= _MOST_LATER_SHARE,
        ),
        Row(
            f"first text, {what}, against opencode as installed",
            f"{stock:.2f}x",
            f"with its defaults: {_pooled(g.stock.first_text for g in groups)}",
            f"at most {_MOST_TIMES_STOCK:.2f}x",
            stock <= _MOST_TIMES_STOCK,
        ),
        Row(
            f"whole turn, {what}",
            f"{_pooled(g.through.whole for g in groups)}: {times:.2f}x",
            f"{_pooled(side.whole for g in groups for side in g.alone)}; {_apart(whole)}",
            f"at most {_MOST_TIMES:.2f}x",
            times <= _MOST_TIMES,
        ),
        Row(
            f"processor time per turn, {what}",
            f"the sidecar's own {our_cpu}: {share:.0%}",
            f"opencode's, straight {their_cpu}",
            f"at most {_MOST_CPU_SHARE:.0%}",
            share <= _MOST_CPU_SHARE,
        ),
    ]


def _compared(group: Group, value: Callable[[Measured], float]) -> tuple[float, float, float]:
    """Return ours, theirs, and how far the two opencodes are apart."""
    one, other = map(value, group.alone)
    return value(group.through), (one + other) / 2, abs(one - other)


def _pooled(samples: Iterable[Samples]) -> Samples:
    return Samples(tuple(seconds for sample in samples for seconds in sample.seconds))


def _apart(compared: Sequence[tuple[float, float, float]]) -> str:
    return f"two alike are {format_seconds(mean(apart for _, _, apart in compared))} apart"
