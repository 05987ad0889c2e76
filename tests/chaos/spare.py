"""What a crash of opencode costs the next prompt: `python -m tests.chaos.spare --crashes 10`.

With a spare and without one: opencode is killed, a prompt is sent at once, and the time until its turn is
over is compared with that of the same turn before. Printed in seconds and as multiples of a plain start of
opencode in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.storm_site import KEY, site_in
from tests.harness import http_client, text_of
from tests.raw_client import RawClient

_TEXT = "[[say: done]]"


@dataclass
class Waits:
    """Seconds that prompts waited after a crash, beyond what their turn takes."""

    has_spare: bool
    start_seconds: float = 0.0
    """Of opencode, without a crash."""
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        half, most = ordered[len(ordered) // 2], ordered[-1]
        return (
            f"{'with' if self.has_spare else 'without'} a spare: the next prompt waits {half:.2f} s "
            f"({half / self.start_seconds:.2f} plain starts), at most {most:.2f} s "
            f"({most / self.start_seconds:.2f}), of {len(ordered)} crashes; a plain start takes "
            f"{self.start_seconds:.2f} s"
        )


async def crash(root: Path, *, crashes: int, has_spare: bool) -> Waits:
    """Run it in an empty directory."""
    result = Waits(has_spare)
    environment = {"SIDECAR_CHILD_SPARE": str(int(has_spare)), "SIDECAR_TURN_MAX_RUNNING": "8"}
    async with site_in(root, **environment) as site, http_client(site.url, KEY) as http:
        result.start_seconds = site.opencode_start_seconds()
        raw = RawClient(http)
        started = 1
        for _ in range(crashes):
            session, other = await raw.new_session(), await raw.new_session()
            started += has_spare
            await site.process.logged("child ready", count=started, seconds=180)
            before = await _turn_seconds(raw, session)
            ready = site.process.entries("child ready")
            started_pids = {e["boot"]: e["pid"] for e in site.process.entries("child started")}
            current = ready[-1 - has_spare]["boot"]
            site.send(started_pids[current], signal.SIGKILL)
            result.seconds.append(max(0.0, await _turn_seconds(raw, other) - before))
            started += not has_spare
            await site.process.logged("child ready", count=started, seconds=180)
    return result


async def _turn_seconds(raw: RawClient, session: str) -> float:
    began = time.perf_counter()
    assert text_of(await raw.turn(session, _TEXT, seconds=180)) == "done"
    return time.perf_counter() - began


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crashes", type=int, default=10)
    given = parser.parse_args()
    for has_spare in (True, False):
        with tempfile.TemporaryDirectory(prefix="spare-") as root:
            print(asyncio.run(crash(Path(root), crashes=given.crashes, has_spare=has_spare)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
