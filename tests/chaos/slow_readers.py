"""Clients that ask and do not read: `python -m tests.chaos.slow_readers URL --key KEY [--pid PID]`.

Thirty streams of a session with one large event, and ten lists of it, of which nothing is read. A server
that copies what it sends per reader grows by a multiple; this program says by how much it grew.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.hostile_bodies import new_session
from tests.chaos.target import Connection, Probe, Target

_MB = 1_000_000
_RECEIVE_BUFFER = 4096


@asynccontextmanager
async def unread(target: Target, path: str, count: int) -> AsyncIterator[list[Connection]]:
    """Hold `count` requests of which only the first byte of the answer is read."""
    connections: list[Connection] = []
    try:
        for _ in range(count):
            reader, writer = await target.connect(receive_buffer=_RECEIVE_BUFFER)
            connections.append((reader, writer))
            writer.write(target.head("GET", path))
            async with asyncio.timeout(60):
                await reader.readexactly(1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def large_session(target: Target, *, size: int, count: int = 1) -> str:
    """Return a session with `count` events of `size` bytes."""
    session = await new_session(target)
    for _ in range(count):
        content = [{"type": "text", "text": "x" * size}]
        body = {"events": [{"type": "user.message", "content": content}]}
        answer = await target.call("POST", f"/v1/sessions/{session}/events", body)
        assert answer.status == 200, answer.body[:500]
    return session


async def main(target: Target) -> int:
    """Print how the server's memory grew, as multiples of what is read."""
    size, failed = 20 * _MB, 0
    session = await large_session(target, size=size)
    await asyncio.sleep(5)
    for name, path, count in (
        ("streams", f"/v1/sessions/{session}/events/stream", 30),
        ("lists", f"/v1/sessions/{session}/events", 10),
    ):
        before = target.resident_bytes() if target.pid else 0
        async with Probe(target) as probe, unread(target, path, count):
            await asyncio.sleep(3)
            grown = (target.resident_bytes() - before) / size if target.pid else 0.0
        failed += len(probe.failures) + (grown > 3)
        print(  # a program
            f"{count} unread {name} of {size / _MB:.0f} MB: +{grown:.1f} times that; longest probe "
            f"{probe.longest_seconds * 1000:.0f} ms, {len(probe.failures)} failed"
        )
    return failed


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(main(Target.from_arguments(__doc__ or "")))))
