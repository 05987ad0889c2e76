"""A soak: the same work again and again: `python -m tests.chaos.soak --rounds 20`.

In each round sessions are made, run turns, are read as lists and as streams, and are deleted. What a round
leaves behind shows after some rounds as growth: prints memory, descriptors and threads after each one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from tests.chaos.storm_site import KEY, site_in
from tests.chaos.tally import TURN, Tally
from tests.harness import http_client
from tests.raw_client import RawClient
from tests.waiting import until

_SESSIONS = 10
_LARGE = "x" * 1_000_000
_REST_SECONDS = 4.0
"""By then what is not used any more was given back to the system."""
_TURN_SECONDS = 600.0
_MB = 1_000_000
_SPARE_BYTES = 25 * _MB
"""What the memory may differ by between two rounds: caches, and how the allocator happens to lie."""
_SPARE_DESCRIPTORS = 8


@dataclass(frozen=True)
class Use:
    """What the sidecar's process has after a round."""

    resident_bytes: int
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.resident_bytes / _MB:.0f} MB, {self.descriptors} descriptors, "
            f"{self.threads} threads"
        )


def use_of(pid: int) -> Use:
    """Return what the process has now."""
    process = psutil.Process(pid)
    return Use(process.memory_info().rss, process.num_fds(), process.num_threads())


@dataclass
class Soak(Tally):
    """What came of it."""

    uses: list[Use] = field(default_factory=list)

    @property
    def growths(self) -> list[str]:
        """What grew between the middle and the end: by then everything was used several times."""
        half = len(self.uses) // 2
        before, after = self.uses[half : half + 1] + self.uses[-1:]
        found = []
        if after.resident_bytes > before.resident_bytes + _SPARE_BYTES:
            found.append("memory")
        if after.descriptors > before.descriptors + _SPARE_DESCRIPTORS:
            found.append("descriptors")
        if after.threads > before.threads + _SPARE_DESCRIPTORS:
            found.append("threads")
        return found

    def __str__(self) -> str:
        lines = [f"round {number}: {use}" for number, use in enumerate(self.uses, start=1)]
        return "\n".join(
            [*lines, f"{self.cut} of {self.turns} turns cut; grows: {self.growths or 'nothing'}"]
        )


async def soak(root: Path, *, rounds: int) -> Soak:
    """Run it in an empty directory."""
    result = Soak(rounds * _SESSIONS)
    async with site_in(root) as site, http_client(site.url, KEY) as http:
        raw = RawClient(http)

        async def live(number: int) -> None:
            session = await raw.new_session()
            await raw.turn(session, TURN, seconds=_TURN_SECONDS)
            await result.count(raw, session)
            if number == 0:
                await raw.send(session, _LARGE)
                await raw.events(session)
                await raw.interrupt(session)
            await until(partial(_is_idle, raw, session))
            await raw.call("DELETE", f"/v1/sessions/{session}")

        for _ in range(rounds):
            await asyncio.gather(*map(live, range(_SESSIONS)))
            await asyncio.sleep(_REST_SECONDS)
            result.uses.append(use_of(site.process.process.pid))
    return result


async def _is_idle(raw: RawClient, session: str) -> bool:
    return await raw.status(session) == "idle"


def main() -> int:
    """Run it from the command line; the exit code is 1 when something grew or a turn was cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        result = asyncio.run(soak(Path(root), rounds=given.rounds))
    print(result)  # a program
    return int(bool(result.growths or result.cut))


if __name__ == "__main__":
    sys.exit(main())
