"""How many pods a load needs, by simulation from measured service times. Pure but for its random numbers.

A pod's bottleneck is opencode's one thread: a queue with one server. Turns arrive at random (Poisson),
sessions are spread evenly over the pods and stay where they are. While the model works the thread is
free, so a turn is a number of steps, each of which needs the thread for a measured time; what a step
waits for the thread is what the user notices.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.stats import percentile

_MOST_PODS = 200


@dataclass(frozen=True, slots=True)
class Load:
    """Turns per second over all pods; steps per turn (a tool call adds one); model seconds per step."""

    turns_per_second: float
    steps: int = 1
    model_seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one pod of so many would do: how busy its thread is, and the wait that a turn adds up, seconds."""

    pods: int
    busy: float
    wait_p50: float
    wait_p95: float


def simulate(
    load: Load, pods: int, step_seconds: Sequence[float], *, turns: int = 5000, seed: int = 1
) -> Outlook:
    """Simulate one of `pods` equal pods for that many turns. Reproducible by `seed`."""
    dice = random.Random(seed)
    rate = load.turns_per_second / pods
    order = itertools.count()
    # (time, tie-breaker, turn, steps left)
    due: list[tuple[float, int, int, int]] = []
    clock = 0.0
    for turn in range(turns):
        clock += dice.expovariate(rate)
        heapq.heappush(due, (clock, next(order), turn, load.steps))
    waits = [0.0] * turns
    free_at = used = 0.0
    while due:
        arrives, _, turn, left = heapq.heappop(due)
        begins = max(arrives, free_at)
        waits[turn] += begins - arrives
        needed = dice.choice(step_seconds)
        used += needed
        free_at = begins + needed
        if left > 1:
            again = free_at + load.model_seconds
            heapq.heappush(due, (again, next(order), turn, left - 1))
    return Outlook(pods, used / free_at, percentile(waits, 0.5), percentile(waits, 0.95))


def pods_needed(load: Load, step_seconds: Sequence[float], *, most_wait_p95: float) -> Outlook:
    """Return the fewest pods with which 95 % of the turns wait at most that long, seconds.

    Raises ValueError when no number up to 200 will do.
    """
    for pods in range(1, _MOST_PODS + 1):
        mean = sum(step_seconds) / len(step_seconds)
        if load.turns_per_second / pods * load.steps * mean >= 1:
            continue  # the queue would grow without end
        outlook = simulate(load, pods, step_seconds)
        if outlook.wait_p95 <= most_wait_p95:
            return outlook
    raise ValueError(f"{load} needs more than {_MOST_PODS} pods")
