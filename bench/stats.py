"""Samples and what is said of them: p50, p95, how many times faster. Durations are seconds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Samples:
    """Durations of one thing done many times, in seconds; never empty."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise ValueError("no samples: nothing was measured")

    def __len__(self) -> int:
        return len(self.seconds)

    def __str__(self) -> str:
        return f"{format_seconds(self.p50)} p50, {format_seconds(self.p95)} p95 ({len(self)} runs)"

    @property
    def p50(self) -> float:
        """The median."""
        return percentile(self.seconds, 0.50)

    @property
    def p95(self) -> float:
        """The value that 95 % of the samples do not exceed."""
        return percentile(self.seconds, 0.95)

    @property
    def longest(self) -> float:
        """The worst case."""
        return max(self.seconds)

    def times_faster_than(self, other: Samples) -> float:
        """Return the other's median divided by this one's."""
        return ratio(other.p50, self.p50)


def percentile(values: Iterable[float], fraction: float) -> float:
    """Return the `fraction` (0 to 1) quantile, interpolated between neighbours."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * fraction
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratio(part: float, whole: float) -> float:
    """Return part / whole, and infinity for a whole too small to have been measured."""
    return part / whole if whole > 0 else math.inf


def format_seconds(seconds: float) -> str:
    """Return three significant digits in the unit a reader expects: us, ms or s."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


async def sample(
    call: Callable[[], Awaitable[object]], *, runs: int, clients: int = 1, warm_up: int = 1
) -> Samples:
    """Time `call`: `runs` times in all, by `clients` at once, after `warm_up` calls that do not count."""
    for _ in range(warm_up):
        await call()
    left = iter(range(runs))
    seconds: list[float] = []

    async def client() -> None:
        for _ in left:
            started = time.perf_counter()
            await call()
            seconds.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return Samples(tuple(seconds))
