"""Where one pod ends and how many a load needs: `python -m bench.scale [--quick]`.

Runs 1, 2 and 4 sidecars, each with an opencode of its own, on this machine, and asks of them as many turns
as they give, at a gateway that answers at once. What a step occupies opencode for, measured that way,
feeds the simulation. docs/scale.md explains the numbers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.clients import SidecarClient, sidecar_client
from bench.pods import Load, Outlook, pods_needed
from bench.processes import Server, gateway, scratch, sidecar
from bench.stats import Samples, format_seconds

_TEXT = "[[say: one two three four]]"
_TOOL = "[[bash: true]] [[then]] [[say: done]]"
_MOST_WAIT_P95_SECONDS = 0.5
_LOADS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True, slots=True)
class Pod:
    """One sidecar and a client of it."""

    server: Server
    client: SidecarClient
    sessions: Sequence[str]

    def opencode(self) -> psutil.Process:
        """Return its opencode: of all that the sidecar started, the largest."""
        children = psutil.Process(self.server.program.pid).children(recursive=True)
        return max(children, key=lambda process: process.memory_info().rss)


@dataclass(frozen=True, slots=True)
class Measured:
    """What so many pods did together."""

    pods: int
    sessions: int
    turns_per_second: float
    latency: Samples
    child_cpu_per_turn: float
    sidecar_cpu_per_turn: float
    child_bytes: int
    sidecar_bytes: int


@asynccontextmanager
async def open_pods(count: int, sessions: int) -> AsyncIterator[list[Pod]]:
    """Start `count` pods with that many warm sessions each."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(scratch())
        models = await stack.enter_async_context(gateway(directory))
        pods = []
        for number in range(count):
            home = directory / f"pod{number}"
            await asyncio.to_thread(Path.mkdir, home)
            server = await stack.enter_async_context(sidecar(home, models.url))
            client = await stack.enter_async_context(sidecar_client(server.url))
            agent = await client.new_agent()
            made = [await client.new_session(agent) for _ in range(sessions)]
            for session in made:
                await client.turn(session, _TEXT)
            pods.append(Pod(server, client, made))
        yield pods


async def load(pods: Sequence[Pod], *, sessions: int, seconds: float, prompt: str) -> Measured:
    """Keep `sessions` sessions per pod busy for that long; sessions that are loaded already."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    before = [_cpu(pod) for pod in pods]
    began = time.perf_counter()

    async def drive(pod: Pod, session: str) -> None:
        while time.perf_counter() < until:
            latencies.append((await pod.client.turn(session, prompt)).whole)

    await asyncio.gather(*(drive(pod, s) for pod in pods for s in pod.sessions[:sessions]))
    took = time.perf_counter() - began
    spent = [
        (child - old_child, ours - old_ours)
        for (child, ours), (old_child, old_ours) in zip(map(_cpu, pods), before, strict=True)
    ]
    return Measured(
        pods=len(pods),
        sessions=sessions,
        turns_per_second=len(latencies) / took,
        latency=Samples(tuple(latencies)),
        child_cpu_per_turn=sum(child for child, _ in spent) / len(latencies),
        sidecar_cpu_per_turn=sum(ours for _, ours in spent) / len(latencies),
        child_bytes=sum(pod.opencode().memory_info().rss for pod in pods) // len(pods),
        sidecar_bytes=sum(pod.server.program.resident_bytes() for pod in pods) // len(pods),
    )


def step_seconds(alone: Measured, full: Measured) -> list[float]:
    """Return samples of what a step occupies opencode for.

    On average that is its CPU time per turn when it is full, which unlike the throughput does not depend
    on who else uses the machine; the spread is that of single turns. A little too high, because the
    garbage collector has threads of its own.
    """
    mean = sum(alone.latency.seconds) / len(alone.latency)
    return [s / mean * full.child_cpu_per_turn for s in alone.latency.seconds]


def _cpu(pod: Pod) -> tuple[float, float]:
    """Return the CPU seconds of its opencode and of its sidecar so far."""
    child = pod.opencode().cpu_times()
    ours = psutil.Process(pod.server.program.pid).cpu_times()
    return child.user + child.system, ours.user + ours.system


async def measure(*, quick: bool) -> tuple[list[Measured], list[float]]:
    """Return what was measured, and the seconds of the thread that single steps needed."""
    seconds = 3.0 if quick else 15.0
    found = []
    steps: list[float] = []
    for count in (1, 2) if quick else (1, 2, 4):
        async with open_pods(count, 8) as pods:
            alone = await load(pods, sessions=1, seconds=seconds, prompt=_TEXT)
            full = await load(pods, sessions=8, seconds=seconds, prompt=_TEXT)
            found += [alone, full]
            if count == 1:
                found.append(await load(pods, sessions=8, seconds=seconds, prompt=_TOOL))
                steps = step_seconds(alone, full)
    return found, steps


def main(
    *, quick: Annotated[bool, typer.Option(help="Seconds instead of minutes.")] = False
) -> None:
    """Measure, simulate, print both tables."""
    console = Console(width=None if os.isatty(1) else 160)
    console.print(str(machine.describe()))
    found, steps = asyncio.run(measure(quick=quick))
    table = Table(
        *("Pods", "Sessions busy in each", "Turns/s", "Whole turn", "opencode CPU per turn"),
        *("sidecar CPU per turn", "opencode memory", "sidecar memory"),
        title="Measured: answers at once; the third row of one pod has a tool call in each turn",
    )
    for row in found:
        table.add_row(
            str(row.pods),
            str(row.sessions),
            f"{row.turns_per_second:.1f}",
            str(row.latency),
            format_seconds(row.child_cpu_per_turn),
            format_seconds(row.sidecar_cpu_per_turn),
            f"{row.child_bytes / 2**20:.0f} MiB",
            f"{row.sidecar_bytes / 2**20:.0f} MiB",
        )
    console.print(table)
    console.print(_needed_table(steps))


def _needed_table(steps: Sequence[float]) -> Table:
    table = Table(
        *("Turns/s in all", "Pods, 1 step per turn", "thread busy", "wait p95"),
        *("Pods, 5 steps per turn", "thread busy", "wait p95"),
        title=f"Simulated: at most {format_seconds(_MOST_WAIT_P95_SECONDS)} wait for 95 % of the turns",
    )
    for rate in _LOADS:
        cells = [f"{rate:g}"]
        for count in (1, 5):
            outlook = pods_needed(
                Load(rate, steps=count), steps, most_wait_p95=_MOST_WAIT_P95_SECONDS
            )
            cells += _cells(outlook)
        table.add_row(*cells)
    return table


def _cells(outlook: Outlook) -> list[str]:
    return [str(outlook.pods), f"{outlook.busy:.0%}", format_seconds(outlook.wait_p95)]


if __name__ == "__main__":
    typer.run(main)
