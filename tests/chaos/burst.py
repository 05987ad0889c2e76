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

    def __str__(self) -> str:
        half, nearly_all = (sorted(self.ended)[int(len(self.ended) * p)] for p in (0.5, 0.95))
        return (
            f"{self.turns} at once, {self.running} running: {self.cut} cut, {self.per_minute:.0f} turns per "
            f"minute, half over after {half:.0f} s, 95 % after {nearly_all:.0f} s, largest opencode "
            f"{self.largest_bytes // _MEGABYTE} MB, {self.boots} boots {dict(self.errors)}"
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
        for id_ in ids:
            await result.count(raw, id_)
        result.boots = len(site.process.entries("child started"))
    return result


async def _look(site: Site, result: Burst) -> None:
    """Note how large opencode is."""
    while True:
        try:
            size = psutil.Process(site.child_pid()).memory_info().rss
        except psutil.Error:
            size = 0  # it has ended
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
