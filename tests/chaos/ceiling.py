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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from sidecar.demo_gateway import DemoGateway
from tests.chaos.storm_site import KEY, Site
from tests.event_rules import check_events
from tests.harness import GATEWAY_KEY, http_client, text_of
from tests.raw_client import RawClient

_TEXT = "[[bash: sleep 1; echo hello]] [[then]] [[say: done]]"
_TURN_SECONDS = 600.0
_LOOK_SECONDS = 0.5
_MEGABYTE = 1_000_000


@dataclass
class Ceiling:
    """What came of it. Sizes are resident bytes of opencode's processes."""

    sessions: int
    turns: int
    ceiling_bytes: int
    good: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    boots: int = 0
    largest_bytes: int = 0
    """Of one process."""
    all_bytes: int = 0
    """Of all of them at the same time."""

    @property
    def is_good(self) -> bool:
        """Whether no turn was cut."""
        return self.good == self.sessions * self.turns

    def __str__(self) -> str:
        return (
            f"{self.sessions} sessions of {self.turns} turns, ceiling {self.ceiling_bytes // _MEGABYTE} MB: "
            f"{self.sessions * self.turns - self.good} cut, {self.boots} boots, "
            f"{60 * self.good / self.seconds:.0f} turns per minute, largest opencode "
            f"{self.largest_bytes // _MEGABYTE} MB, all at once {self.all_bytes // _MEGABYTE} MB "
            f"{dict(self.errors)}"
        )


async def work(
    root: Path, *, sessions: int, turns: int, running: int, ceiling_bytes: int
) -> Ceiling:
    """Run it in an empty directory."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    site = Site(root, gateway)
    site.environment["SIDECAR_TURN_MAX_RUNNING"] = str(running)
    site.environment["SIDECAR_CHILD_MAX_RSS_BYTES"] = str(ceiling_bytes)
    result = Ceiling(sessions, turns, ceiling_bytes)
    try:
        await site.start()
        await site.ready()
        looking = asyncio.create_task(_look(site, result))
        began = time.monotonic()
        async with http_client(site.url, KEY) as http:
            raw, room = RawClient(http), asyncio.Semaphore(running)

            async def live() -> None:
                async with room:
                    id_ = await raw.new_session()
                    for _ in range(turns):
                        turn = await raw.turn(id_, _TEXT, seconds=_TURN_SECONDS)
                        result.good += text_of(turn) == "done"
                    events = await raw.events(id_)
                    check_events(events)
                    result.errors.update(
                        e["error"]["message"][:80] for e in events if e["type"] == "session.error"
                    )

            await asyncio.gather(*(live() for _ in range(sessions)))
        result.seconds = time.monotonic() - began
        looking.cancel()
        result.boots = len(site.process.entries("child ready"))
        left = await site.end()
        assert not left, left
    finally:
        await site.clear_away()
        await gateway.close()
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
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
