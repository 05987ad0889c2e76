"""A burst: many sessions prompt at the same moment: `python -m tests.chaos.burst --sessions 200 --running 8`.

Each turn calls a tool and answers. Prints how many were cut, turns per minute, and how often opencode was
started; compare runs with other bounds (`--running`) on the same machine.
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

from sidecar.demo_gateway import DemoGateway
from tests.chaos.storm_clients import is_quiet
from tests.chaos.storm_site import KEY, Site
from tests.event_rules import check_events
from tests.harness import GATEWAY_KEY, http_client, text_of
from tests.raw_client import RawClient

_TEXT = "[[bash: echo hello]] [[then]] [[say: done]]"
_TURN_SECONDS = 900.0
_POLL_SECONDS = 1.0


@dataclass
class Burst:
    """What came of it."""

    sessions: int
    running: int
    seconds: float = 0.0
    good: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    boots: int = 0
    """How many opencodes there were; one, if none was given up."""

    def __str__(self) -> str:
        return (
            f"{self.sessions} at once, {self.running} running: {self.sessions - self.good} cut, "
            f"{60 * self.good / self.seconds:.0f} turns per minute, {self.boots} boots {dict(self.errors)}"
        )


async def burst(root: Path, *, sessions: int, running: int) -> Burst:
    """Run it in an empty directory."""
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    site = Site(root, gateway)
    site.environment["SIDECAR_TURN_MAX_RUNNING"] = str(running)
    result = Burst(sessions, running)
    try:
        await site.start()
        await site.ready()
        async with http_client(site.url, KEY) as http:
            raw = RawClient(http)
            ids = [await raw.new_session() for _ in range(sessions)]
            began = time.monotonic()
            await asyncio.gather(*(raw.send(id_, _TEXT) for id_ in ids))
            for id_ in ids:
                await _until_quiet(raw, id_)
            result.seconds = time.monotonic() - began
            for id_ in ids:
                events = await raw.events(id_)
                check_events(events)
                result.errors.update(
                    e["error"]["message"][:80] for e in events if e["type"] == "session.error"
                )
                result.good += text_of(events) == "done"
        result.boots = len(site.process.entries("child started"))
        left = await site.end()
        assert not left, left
    finally:
        await site.clear_away()
        await gateway.close()
    return result


async def _until_quiet(raw: RawClient, session_id: str) -> None:
    async with asyncio.timeout(_TURN_SECONDS):
        while not is_quiet(await raw.events(session_id)):
            await asyncio.sleep(_POLL_SECONDS)


def main() -> int:
    """Run it from the command line; the exit code is 1 when a turn was cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--running", type=int, nargs="+", default=[32])
    given = parser.parse_args()
    is_good = True
    for running in given.running:
        with tempfile.TemporaryDirectory(prefix="burst-") as root:
            result = asyncio.run(burst(Path(root), sessions=given.sessions, running=running))
        print(result, flush=True)  # a program
        is_good &= result.good == given.sessions
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
