"""A crowd: many event streams at once, and clients that come and go: `python -m tests.chaos.crowd`.

Streams are opened until no more are served. Then others come, read one frame and leave, wave after wave;
opencode is killed, and every client hangs up and comes back at the same moment; at last each session runs a
turn, whose end every stream must show. Prints the memory of a stream, descriptors, stalls of the loop, and
how long a probe waited at most.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.soak import Use, use_of
from tests.chaos.storm_site import KEY, Site, site_in
from tests.chaos.target import Answer, Connection, Probe, Target
from tests.harness import http_client
from tests.raw_client import RawClient
from tests.waiting import until

_STREAMS_OF_A_SESSION = 50
_AT_ONCE = 100
_TOO_MANY = 5
_TEXT = "[[say: done]]"
_GREETING = b": stream open\n\n"
_END = b"event: session.status_idle\n"
_SECONDS = 600.0
_SPARE_DESCRIPTORS = 20
_DESCRIPTORS_OF_A_SESSION = 4
"""Connections that are kept for the next request: the one that sent its message, those to opencode."""
_KB = 1000


@dataclass
class Crowd:
    """What came of it."""

    streams: int
    refusals: list[Answer] = field(default_factory=list)
    """What clients beyond the bound were answered."""
    passers_by: int = 0
    """Clients that read one frame and left."""
    complete: int = 0
    """Streams that showed the end of their session's turn."""
    stalls: list[str] = field(default_factory=list)
    """No faults: a hundred clients that come at the same moment are one turn of the loop."""
    failed_probes: list[str] = field(default_factory=list)
    longest_probe_seconds: float = 0.0
    before: Use = field(default_factory=lambda: Use(0, 0, 0))
    full: Use = field(default_factory=lambda: Use(0, 0, 0))
    after: Use = field(default_factory=lambda: Use(0, 0, 0))

    @property
    def stream_bytes(self) -> float:
        """Resident bytes for each open stream."""
        return (self.full.resident_bytes - self.before.resident_bytes) / self.streams

    @property
    def most_descriptors(self) -> int:
        """How many may be left when all streams are closed: far fewer than there were streams."""
        sessions = -(-self.streams // _STREAMS_OF_A_SESSION)
        return self.before.descriptors + _SPARE_DESCRIPTORS + _DESCRIPTORS_OF_A_SESSION * sessions

    @property
    def faults(self) -> list[str]:
        """What should not be."""
        found = list(self.failed_probes)
        if self.complete != self.streams:
            found.append(f"{self.streams - self.complete} streams did not show the end of the turn")
        if any(not is_proper_refusal(answer) for answer in self.refusals):
            found.append(f"refused with {[answer.status for answer in self.refusals]}")
        return found

    def __str__(self) -> str:
        return (
            f"{self.streams} streams, {self.stream_bytes / _KB:.0f} kB each, {self.complete} complete; "
            f"{len(self.refusals)} more refused; {self.passers_by} came and went; before: {self.before}, "
            f"all open: {self.full}, afterwards: {self.after}; longest probe "
            f"{self.longest_probe_seconds * 1000:.0f} ms; stalls: {self.stalls or 'none'}; "
            f"faults: {self.faults or 'none'}"
        )


def is_proper_refusal(answer: Answer) -> bool:
    """Return whether it is a 429 in the envelope that says when to come back."""
    return answer.status == 429 and answer.is_enveloped and int(answer.headers["retry-after"]) >= 1


async def crowd(root: Path, *, streams: int, passers_by: int) -> Crowd:
    """Run it in an empty directory."""
    result = Crowd(streams)
    bound = {"SIDECAR_HTTP_MAX_STREAMS": str(streams)}
    async with site_in(root, **bound) as site, http_client(site.url, KEY) as http:
        raw, pid = RawClient(http), site.process.process.pid
        target = replace(site.target, pid=pid)
        sessions = [await raw.new_session() for _ in range(-(-streams // _STREAMS_OF_A_SESSION))]
        paths = [_path(sessions[number // _STREAMS_OF_A_SESSION]) for number in range(streams)]
        await raw.turn(await raw.new_session(), _TEXT, seconds=_SECONDS)  # loads what turns need
        result.before = use_of(pid)
        async with Probe(target) as probe:
            clients = await _open_all(target, paths)
            result.full = use_of(pid)
            result.refusals = [await target.call("GET", paths[0]) for _ in range(_TOO_MANY)]
            _leave(clients)
            await _pass_by(target, paths, passers_by)
            result.passers_by = passers_by
            clients = await _open_all(target, paths)
            await _crash(site)
            _leave(clients)
            clients = await _open_all(target, paths)
            reading = [asyncio.create_task(_reads_the_end(client)) for client in clients]
            await asyncio.gather(*(raw.send(id_, _TEXT) for id_ in sessions))
            result.complete = sum(await asyncio.gather(*reading))
            _leave(clients)
        result.failed_probes, result.longest_probe_seconds = probe.failures, probe.longest_seconds
        await until(lambda: use_of(pid).descriptors <= result.most_descriptors)
        result.after, result.stalls = use_of(pid), site.stalls()
    return result


def _path(session: str) -> str:
    return f"/v1/sessions/{session}/events/stream"


async def _open_all(target: Target, paths: list[str]) -> list[Connection]:
    """Open a stream of each path, as many at a time as the system lets wait for their accept."""
    found: list[Connection] = []
    for start in range(0, len(paths), _AT_ONCE):
        found += await asyncio.gather(
            *(_open(target, path) for path in paths[start : start + _AT_ONCE])
        )
    return found


async def _open(target: Target, path: str) -> Connection:
    """Open a stream and read its first frame. One that is refused tries again: places become free late."""
    async with asyncio.timeout(_SECONDS):
        while True:
            reader, writer = await target.connect()
            writer.write(target.head("GET", path, "x-stainless-lang: python"))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " in head.splitlines()[0]:
                await reader.readuntil(_GREETING)
                return reader, writer
            writer.transport.abort()
            await asyncio.sleep(0.1)


async def _pass_by(target: Target, paths: list[str], count: int) -> None:
    for start in range(0, count, _AT_ONCE):
        wave = [paths[number % len(paths)] for number in range(start, min(count, start + _AT_ONCE))]
        _leave(await asyncio.gather(*(_open(target, path) for path in wave)))


async def _crash(site: Site) -> None:
    site.send_child(signal.SIGKILL)
    await site.process.logged("child ready", count=2, seconds=_SECONDS)


def _leave(clients: list[Connection]) -> None:
    for _, writer in clients:
        writer.transport.abort()


async def _reads_the_end(client: Connection) -> bool:
    """Return whether the stream shows the end of a turn."""
    try:
        async with asyncio.timeout(_SECONDS):
            await client[0].readuntil(_END)
    except (EOFError, OSError, TimeoutError):
        return False
    return True


def main() -> int:
    """Run it from the command line; the exit code is 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--passers-by", type=int, default=3000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as root:
        result = asyncio.run(crowd(Path(root), streams=given.streams, passers_by=given.passers_by))
    print(result)  # a program
    return int(bool(result.faults))


if __name__ == "__main__":
    sys.exit(main())
