"""Work under a memory ceiling: `python -m tests.chaos.ceiling --sessions 300 --megabytes 450`.

Sessions run one turn after the other, a few at a time, while every opencode that grows beyond the ceiling is
replaced. Prints how many turns were cut, how often opencode was replaced, and how large its processes were.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.storm_site import KEY, Site, site_in
from tests.chaos.tally import Tally
from tests.harness import http_client
from tests.raw_client import RawClient

_TEXT = "[[bash: sleep 1; echo hello]] [[then]] [[say: done]]"
_TURN_SECONDS = 600.0
_LOOK_SECONDS = 0.5
_MEGABYTE = 1_000_000


@dataclass
class Ceiling(Tally):
    """What came of it. Sizes are resident bytes of opencode's processes."""

    ceiling_bytes: int = 0
    largest_bytes: int = 0
    """Of one process."""
    all_bytes: int = 0
    """Of all of them at the same time."""

    def __str__(self) -> str:
        return (
            f"{self.turns} turns, ceiling {self.ceiling_bytes // _MEGABYTE} MB: {self.cut} cut, {self.boots} "
            f"boots, {self.per_minute:.0f} turns per minute, largest opencode "
            f"{self.largest_bytes // _MEGABYTE} MB, all at once {self.all_bytes // _MEGABYTE} MB "
            f"{dict(self.errors)}"
        )


async def work(
    root: Path, *, sessions: int, turns: int, running: int, ceiling_bytes: int
) -> Ceiling:
    """Run it in an empty directory."""
    result = Ceiling(sessions * turns, ceiling_bytes=ceiling_bytes)
    bounds = {
        "SIDECAR_TURN_MAX_RUNNING": str(running),
        "SIDECAR_CHILD_MAX_RSS_BYTES": str(ceiling_bytes),
    }
    async with site_in(root, **bounds) as site, http_client(site.url, KEY) as http:
        raw, room = RawClient(http), asyncio.Semaphore(running)
        looking = asyncio.create_task(_look(site, result))
        began = time.monotonic()

        async def live() -> None:
            async with room:
                id_ = await raw.new_session()
                for _ in range(turns):
                    await raw.turn(id_, _TEXT, seconds=_TURN_SECONDS)
                await result.count(raw, id_)

        await asyncio.gather(*(live() for _ in range(sessions)))
        result.seconds = time.monotonic() - began
        looking.cancel()
        result.boots = len(site.process.entries("child ready"))
    return result


async def _look(site: Site, result: Ceiling) -> None:
    """Note how large opencode is."""
    while True:
        sizes = []
        for entry in site.process.entries("child started"):
            try:
                sizes.append(psutil.Process(entry["pid"]).memory_info().rss)
            except psutil.Error:
                continue  # it has ended
        result.largest_bytes = max(result.largest_bytes, *sizes, 0)
        result.all_bytes = max(result.all_bytes, sum(sizes))
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> int:
    """Run it from the command line; the exit code is 1 when a turn was cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--running", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=450)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ceiling-") as root:
        result = asyncio.run(
            work(
                Path(root),
                sessions=given.sessions,
                turns=given.turns,
                running=given.running,
                ceiling_bytes=given.megabytes * _MEGABYTE,
            )
        )
    print(result)  # a program
    return min(1, result.cut)


if __name__ == "__main__":
    sys.exit(main())
