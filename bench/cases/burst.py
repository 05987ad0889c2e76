"""Many sessions prompt at the same moment: what the bound on turns that run at once does for them.

One opencode has one thread, so that more turns at once do not make it faster: they share it, keep their state
in its memory, and each waits for all. Bounds are compared in one run, each with a sidecar of its own, in turn
and then in the opposite order, because a shared machine is faster at one time than at another. Processor
time per turn depends least on what else the machine does.
"""

from __future__ import annotations

from statistics import mean

from bench.processes import scratch
from bench.report import Row
from bench.stats import ratio
from sidecar.config import TurnSettings
from tests.chaos.burst import Burst, burst

TITLE = "A burst of prompts: bounds on the turns that run at once"

_SESSIONS = 100
_BOUNDS = (16, 32, 60, _SESSIONS)
"""As many as there are sessions is no bound."""
_DEFAULT: int = TurnSettings.model_fields["max_running"].default
_LEAST_TIMES = 1.0
"""Turns per minute of the default, against no bound."""


async def measure(*, quick: bool) -> list[Row]:
    """Run the burst with each bound."""
    sessions, bounds = (6, (2, 6)) if quick else (_SESSIONS, _BOUNDS)
    found: dict[int, list[Burst]] = {bound: [] for bound in bounds}
    for order in (bounds, bounds[::-1]):
        for bound in order:
            with scratch() as directory:
                found[bound].append(await burst(directory, sessions=sessions, running=bound))
    free = found[sessions]
    return [_row(runs, free) for runs in found.values()]


def _row(runs: list[Burst], free: list[Burst]) -> Row:
    """Return what a bound did, against no bound."""
    first, is_free, is_default = runs[0], runs is free, runs[0].running == _DEFAULT
    times = ratio(mean(run.per_minute for run in runs), mean(run.per_minute for run in free))
    return Row(
        f"{first.turns} at once, {'no bound' if is_free else f'{first.running} run'}",
        _said_of(runs) + ("" if is_free else f": {times:.2f}x turns per minute"),
        "" if is_free else f"no bound: {_said_of(free)}",
        f"0 cut, at least {_LEAST_TIMES:.2f}x" if is_default else "",
        (times >= _LEAST_TIMES and not any(run.cut for run in runs)) if is_default else None,
    )


def _said_of(runs: list[Burst]) -> str:
    return (
        f"{sum(run.cut for run in runs)} cut, {mean(run.per_minute for run in runs):.0f} turns per minute, "
        f"half over after {mean(run.over_after(0.5) for run in runs):.0f} s, "
        f"95 % after {mean(run.over_after(0.95) for run in runs):.0f} s, "
        f"{mean(run.processor_per_turn for run in runs):.2f} processor seconds of opencode per turn, "
        f"largest {max(run.largest_bytes for run in runs) // 2**20} MiB"
    )
