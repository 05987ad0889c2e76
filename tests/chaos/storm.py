"""A storm: `python -m tests.chaos.storm --seed 7 --minutes 20` (or `make chaos SEED=7 MINUTES=20`).

Twenty sessions run mixed turns on a demo gateway that lies, while a seeded schedule does what `storm_faults`
has: kills, a locked and a failing disk, a gateway that is away, careless and hostile clients. Afterwards
everything is settled, and the log is compared with what the clients saw. The seed fixes what is done, not how
the machine interleaves it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.lying_gateway import LyingGateway
from tests.chaos.storm_audit import Findings, audit
from tests.chaos.storm_clients import StormClient
from tests.chaos.storm_faults import RECOVERED_FROM, faults_of
from tests.chaos.storm_site import KEY, Site
from tests.fakes.mcp_process import mcp_server
from tests.harness import GATEWAY_KEY, http_client
from tests.raw_client import RawClient

SESSIONS = 20
_PAUSES = (2.0, 8.0)
_LAST_TURNS_SECONDS = 300.0


@dataclass
class Report:
    """What was done and what came of it."""

    seed: int
    boot_seconds: float = 0.0
    """Of opencode alone, from its start to ready, without faults."""
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)
    """Seconds from a fault to ready."""
    findings: Findings = field(default_factory=Findings)
    orphans: list[int] = field(default_factory=list)
    stalls: list[str] = field(default_factory=list)
    """What held the event loop for too long, as logged."""

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.orphans or self.findings.broken or self.stalls)

    def __str__(self) -> str:
        found = self.findings
        shares = sorted(seconds / self.boot_seconds for seconds in self.recoveries) or [0.0]
        p50, p95 = (shares[min(len(shares) - 1, int(len(shares) * p))] for p in (0.5, 0.95))
        lines = [
            f"seed {self.seed}; a plain start of opencode: {self.boot_seconds:.1f} s",
            "faults: " + ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items())),
            f"messages accepted {found.accepted}, turns ended {found.ended}: "
            + ", ".join(f"{name} {n}" for name, n in sorted(found.endings.items())),
            f"commands run {found.commands_run}, events streamed {found.streamed}",
            f"recovery p50 {p50:.1f}, p95 {p95:.1f} plain starts of opencode, of {len(self.recoveries)}",
            *(f"{name}: {len(cases)}" for name, cases in found.promises().items()),
            f"orphans: {len(self.orphans)}",
            f"loop stalls: {len(self.stalls)}",
            *(f"BROKEN: the loop was held: {stall}" for stall in self.stalls),
            *(f"BROKEN: {sentence}" for sentence in found.broken),
        ]
        return "\n".join(lines)


class Storm:
    """One storm over one site."""

    def __init__(self, site: Site, seed: int, mcp_url: str) -> None:
        self._site = site
        self._random = random.Random(seed)  # reproducible on purpose
        self._clients = [
            StormClient(site.url, KEY, number, seed, mcp_url) for number in range(SESSIONS)
        ]
        self.report = Report(seed)

    async def run(self, seconds: float) -> Report:
        """Let it blow for so long, settle everything, and look."""
        await self._site.start()
        await self._site.ready()
        self.report.boot_seconds = self._site.opencode_start_seconds()
        running = [
            asyncio.create_task(client.run(), name=f"client {number}")
            for number, client in enumerate(self._clients)
        ]
        try:
            async with asyncio.timeout(120):
                while not all(client.book.session_id for client in self._clients):
                    _raise_early(running)
                    await asyncio.sleep(0.1)
            await self._blow(time.monotonic() + seconds, running)
            for client in self._clients:
                client.is_stopped.set()
            async with asyncio.timeout(_LAST_TURNS_SECONDS):
                await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        await self._look()
        return self.report

    async def _blow(self, ends_at: float, running: list[asyncio.Task[None]]) -> None:
        """Do one thing after the other; each kind once before any comes again."""
        faults = faults_of(self._site, self._clients, self._random)
        bag: list[str] = []
        while time.monotonic() < ends_at:
            await asyncio.sleep(self._random.uniform(*_PAUSES))
            _raise_early(running)
            if not bag:
                bag = list(faults)
                self._random.shuffle(bag)
            name = bag.pop()
            self.report.faults[name] += 1
            began = time.monotonic()
            await faults[name]()
            await self._site.ready()
            if name in RECOVERED_FROM:
                self.report.recoveries.append(time.monotonic() - began)

    async def _look(self) -> None:
        """Read every session's log, end the sidecar, and compare."""
        await self._site.ready()
        async with http_client(self._site.url, KEY) as http:
            raw = RawClient(http)
            histories = {
                client.book.session_id: await raw.events(client.book.session_id)
                for client in self._clients
            }
        self.report.orphans = await self._site.end()
        self.report.stalls = self._site.stalls()
        books = [client.book for client in self._clients]
        self.report.findings = await asyncio.to_thread(
            audit,
            books,
            histories,
            data_dir=self._site.data_dir,
            secrets=(KEY, GATEWAY_KEY),
            output=self._site.output,
        )


def _raise_early(running: list[asyncio.Task[None]]) -> None:
    for task in running:
        if task.done():
            task.result()


async def blow(root: Path, *, seed: int, seconds: float) -> Report:
    """Run a storm in an empty directory."""
    gateway = LyingGateway(key=GATEWAY_KEY)
    await gateway.start()
    site = Site(root, gateway)
    site.environment["SIDECAR_TURN_MAX_RUNNING"] = "8"  # so that some of the sessions wait
    try:
        async with mcp_server() as mcp:
            return await Storm(site, seed, mcp.url).run(seconds)
    finally:
        await site.clear_away()
        await gateway.close()


def main() -> int:
    """Run it from the command line; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storm-") as root:
        report = asyncio.run(blow(Path(root), seed=given.seed, seconds=60 * given.minutes))
    print(report)  # a program
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
