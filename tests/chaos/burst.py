"""A burst: many sessions prompt at the same moment: `python -m tests.chaos.burst --running 8 32 200`.

Each turn calls a tool and answers. Prints how many were cut, turns per minute, when half of them and nearly
all were over, and how often opencode was started. Compare runs with other bounds (`--running`) on the same
machine; as many as there are sessions is no bound.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos.storm_clients import is_quiet
from tests.chaos.storm_site import KEY, Site, site_in
from tests.chaos.tally import TURN, Tally
from tests.harness import http_client
from tests.raw_client import RawClient

_TURN_SECONDS = 1800.0
_POLL_SECONDS = 1.0
_MEGABYTE = 1_000_000


@dataclass
class Burst(Tally):
    """What came of it."""

    running: int = 0
    ended: list[float] = field(default_factory=list)
    """When each turn was seen to be over, seconds from the start."""
    largest_bytes: int = 0
    """Of opencode, resident."""
    processor_seconds: dict[int, float] = field(default_factory=dict)
    """What each opencode used, by process id; the last second of one that has ended is missing."""

    def over_after(self, share: float) -> float:
        """Return the seconds after which that share of the turns was over."""
        return sorted(self.ended)[int((len(self.ended) - 1) * share)]

    @property
    def processor_per_turn(self) -> float:
        """Processor seconds of opencode per turn, its start included."""
        return sum(self.processor_seconds.values()) / self.turns

    def __str__(self) -> str:
        return (
            f"{self.turns} at once, {self.running} running: {self.cut} cut, {self.per_minute:.0f} turns per "
            f"minute, half over after {self.over_after(0.5):.0f} s, 95 % after "
            f"{self.over_after(0.95):.0f} s, {self.processor_per_turn:.2f} processor seconds of "
            f"opencode per turn, largest opencode {self.largest_bytes // _MEGABYTE} MB, "
            f"{self.boots} boots {dict(self.errors)}"
        )


async def burst(root: Path, *, sessions: int, running: int | None = None) -> Burst:
    """Run it in an empty directory, with that bound or the default one."""
    bound = {} if running is None else {"SIDECAR_TURN_MAX_RUNNING": str(running)}
    result = Burst(sessions, running=running or 0)
    async with site_in(root, **bound) as site, http_client(site.url, KEY) as http:
        raw = RawClient(http)
        ids = [await raw.new_session() for _ in range(sessions)]
        looking = asyncio.create_task(_look(site, result))
        began = time.monotonic()
        await asyncio.gather(*(raw.send(id_, TURN) for id_ in ids))
        waiting = list(ids)
        async with asyncio.timeout(_TURN_SECONDS):
            while waiting:
                quiet = [id_ for id_ in waiting if is_quiet(await raw.events(id_))]
                result.ended += [time.monotonic() - began] * len(quiet)
                waiting = [id_ for id_ in waiting if id_ not in quiet]
                await asyncio.sleep(_POLL_SECONDS if waiting else 0)
        result.seconds = time.monotonic() - began
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        for id_ in ids:
            await result.count(raw, id_)
        result.boots = len(site.process.entries("child started"))
    return result


async def _look(site: Site, result: Burst) -> None:
    """Note how large every opencode is, and what it has used."""
    while True:
        for entry in site.process.entries("child started"):
            try:
                opencode = psutil.Process(entry["pid"])
                used = opencode.cpu_times()
                size = opencode.memory_info().rss
            except psutil.Error:
                continue  # it has ended
            result.processor_seconds[entry["pid"]] = used.user + used.system
            result.largest_bytes = max(result.largest_bytes, size)
        await asyncio.sleep(_POLL_SECONDS)


def main() -> int:
    """Run it from the command line; the exit code is 1 when a turn was cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--running", type=int, nargs="+", default=[16])
    given = parser.parse_args()
    cut = 0
    for running in given.running:
        with tempfile.TemporaryDirectory(prefix="burst-") as root:
            result = asyncio.run(burst(Path(root), sessions=given.sessions, running=running))
        print(result, flush=True)  # a program
        cut += result.cut
    return min(1, cut)


if __name__ == "__main__":
    sys.exit(main())
