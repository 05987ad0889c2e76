"""Bodies that are small to send and large to take: `python -m tests.chaos.hostile_bodies URL --key KEY`.

Each is sent piece by piece, and sending ends when the server has answered. A server that bounds what a body
becomes answers long before all is sent; one that parses first takes seconds and gigabytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

from tests.chaos.target import Answer, Probe, Target, read_answer

_MB = 1_000_000
_PIECE = 64 * 1024

Pieces = Iterator[bytes]


@dataclass(frozen=True)
class Kind:
    """One kind of body. `pieces(size)` yields about `size` bytes."""

    name: str
    path: str
    pieces: Callable[[int], Pieces]
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What one body came to."""

    kind: str
    answer: Answer
    sent_bytes: int
    seconds: float


def _repeated(before: bytes, item: bytes, after: bytes, size: int) -> Pieces:
    per_piece = max(1, _PIECE // len(item))
    yield before
    yield from repeat(item * per_piece, size // (len(item) * per_piece))
    yield item.rstrip(b",") + after


def _many_keys(size: int) -> Pieces:
    yield b'{"name":"a","model":"m","metadata":{'
    for start in range(0, size // 12, 5000):
        yield b"".join(b'"k%07d":"",' % number for number in range(start, start + 5000))
    yield b'"z":""}}'


def _bomb(size: int) -> Pieces:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"x" * _MB
    yield packer.compress(b'{"name":"')
    for _ in range(10 * size // _MB):
        yield packer.compress(block)
    yield packer.compress(b'"}') + packer.flush()


def _items(path: str, name: str, before: bytes, item: bytes, after: bytes) -> Kind:
    return Kind(name, path, lambda size: _repeated(before, item, after, size))


KINDS = (
    Kind("millions of keys", "/v1/agents", _many_keys),
    _items("/v1/agents", "arrays of nothing", b'{"a":[', b"[],", b"]}"),
    _items("/v1/agents", "objects of nothing", b'{"tools":[', b"{},", b"]}"),
    _items("{session}/events", "millions of bad events", b'{"events":[', b'{"type":"x"},', b"]}"),
    _items("{session}/events", "millions of numbers", b'{"events":[', b"1,", b"]}"),
    _items("{session}/events", "millions of blocks",
           b'{"events":[{"type":"user.message","content":[', b'{"type":"text","text":""},', b"]}]}"),
    _items("{session}/events", "deep", b'{"events":', b"[", b""),
    _items("{session}/events", "closing brackets", b'{"events":', b"]", b""),
    _items("{session}/events", "quotes", b'{"events":[', b'"",', b"]}"),
    _items("/v1/agents", "a long string where none is due", b'{"name":"', b"x" * 64, b'"}'),
    Kind("a compressed bomb", "{session}/events", _bomb, ("content-encoding: gzip",)),
)  # fmt: skip
"""`{session}` is replaced by the path of a session."""


async def send(target: Target, kind: Kind, *, session: str, size: int = 30 * _MB) -> Result:
    """Send one body until the answer is there."""
    began, sent = time.perf_counter(), 0
    async with target.open() as (reader, writer):
        path = kind.path.format(session=f"/v1/sessions/{session}")
        chunked = ("transfer-encoding: chunked", "content-type: application/json")
        writer.write(target.head("POST", path, *chunked, *kind.headers))
        answered = asyncio.create_task(read_answer(reader), name="answer")
        try:
            for piece in kind.pieces(size):
                if answered.done():
                    break
                if piece:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                    sent += len(piece)
                await asyncio.sleep(0)
            else:
                writer.write(b"0\r\n\r\n")
        except ConnectionError:
            pass  # answered and closed; the answer says why
        answer = await answered
    return Result(kind.name, answer, sent, time.perf_counter() - began)


async def new_session(target: Target) -> str:
    """Create an agent, an environment and a session; return the session's id."""
    models = (await target.call("GET", "/v1/models")).json["data"]
    agent = await target.call("POST", "/v1/agents", {"name": "a", "model": models[0]["id"]})
    place = await target.call("POST", "/v1/environments", {"name": "e"})
    body = {"agent": agent.json["id"], "environment_id": place.json["id"]}
    return str((await target.call("POST", "/v1/sessions", body)).json["id"])


async def main(target: Target) -> int:
    """Send each kind; print what came of it. Return how many were not refused in the envelope."""
    session, bad = await new_session(target), 0
    for kind in KINDS:
        if target.pid is not None:
            target.forget_peak()
            before = target.resident_bytes()
        async with Probe(target) as probe:
            result = await send(target, kind, session=session)
        answer = result.answer
        is_bad = not (400 <= answer.status < 500 and answer.is_enveloped) or bool(probe.failures)
        bad += is_bad
        peak = f", +{(target.peak_bytes() - before) / _MB:.0f} MB at most" if target.pid else ""
        verdict = "BAD" if is_bad else "ok"
        print(  # a program
            f"{verdict:3} {kind.name:32} {answer.status} after {result.sent_bytes / _MB:4.1f} MB and "
            f"{result.seconds:5.2f} s; longest probe {probe.longest_seconds * 1000:4.0f} ms{peak}"
        )
    return bad


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Target.from_arguments(__doc__ or ""))))
