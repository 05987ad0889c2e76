"""Clients that connect and never ask: `python -m tests.chaos.half_headers URL --key KEY [--pid PID]`.

Each sends half a header and waits. A server without bounds runs out of descriptors and answers no one; this
program says how probes and ordinary requests fared meanwhile, and how long the server let the clients wait.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.target import Answer, Connection, Probe, Target, read_answer

HALF = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-ha"
_AT_ONCE = 100


@asynccontextmanager
async def silent_clients(
    target: Target, count: int, sent: bytes = HALF
) -> AsyncIterator[list[Connection]]:
    """Hold `count` connections on which only `sent` was sent."""
    connections: list[Connection] = []

    async def one() -> None:
        reader, writer = await target.connect()
        connections.append((reader, writer))
        writer.write(sent)

    try:
        for start in range(0, count, _AT_ONCE):
            await asyncio.gather(*(one() for _ in range(min(_AT_ONCE, count - start))))
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def end_of(connection: Connection, *, seconds: float = 60) -> Answer | None:
    """Wait for the server to end the connection; return its answer, None for none."""
    try:
        return await read_answer(connection[0], seconds=seconds)
    except (EOFError, ConnectionError):
        return None


async def main(target: Target) -> int:
    """Hold ten times as many connections as a process has descriptors by default, or as we may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 200)
    began = time.perf_counter()
    async with Probe(target) as probe, silent_clients(target, count) as connections:
        models = [await target.call("GET", "/v1/models") for _ in range(20)]
        served = sum(answer.status == 200 for answer in models)
        held = f", {target.descriptors()} descriptors" if target.pid else ""
        print(f"{count} silent clients{held}; {served} of 20 requests served")  # a program
        await asyncio.gather(*map(end_of, connections), return_exceptions=True)
    print(  # a program
        f"all ended after {time.perf_counter() - began:.1f} s; probes: {probe.asked} asked, "
        f"{len(probe.failures)} failed, longest {probe.longest_seconds * 1000:.0f} ms"
    )
    return len(probe.failures) + 20 - served


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(main(Target.from_arguments(__doc__ or "")))))
