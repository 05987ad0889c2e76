"""What one large message costs: `python -m tests.chaos.large_messages --megabytes 20`.

A sidecar and an opencode of their own take one message of each kind. Prints how far the sidecar's memory
grew until the message was answered, until its turn was over, and what of it was left some seconds later, as
multiples of the message's size in UTF-8; and what held the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.hostile_bodies import new_session
from tests.chaos.slow_readers import unread
from tests.chaos.storm_clients import is_quiet
from tests.chaos.storm_site import Site, site_in
from tests.chaos.target import Answer, Target, read_answer
from tests.harness import user_message

_MB = 1_000_000
_REST_SECONDS = 6.0
"""By then what is not used any more was given back to the system."""
_POLL_SECONDS = 0.5
_TURN_SECONDS = 300.0

TEXTS: Mapping[str, Callable[[int], str]] = {
    "ASCII": lambda size: "x" * size,
    "Latin letters, two bytes each": lambda size: "é" * (size // 2),
    "Chinese, three bytes each": lambda size: "漢" * (size // 3),
    "emoji, four bytes each": lambda size: "😀" * (size // 4),
    "ASCII and one emoji": lambda size: "x" * (size - 4) + "😀",
    "quotes and newlines": lambda size: '"\n' * (size // 2),
}
"""A text of about so many bytes in UTF-8."""


@dataclass(frozen=True)
class Cost:
    """Growth of the resident size as multiples of the message, and stalls of the loop."""

    kind: str
    answered: float
    over: float
    left: float
    stalls: int

    def __str__(self) -> str:
        return (
            f"{self.kind:30} {self.answered:5.1f}x until answered, {self.over:5.1f}x until it was over, "
            f"{self.left:5.1f}x left, {self.stalls} stalls"
        )


async def send(target: Target, session: str, text: str, *, is_ascii: bool = False) -> Answer:
    """Send the message; its JSON has escapes where `is_ascii`."""
    events = {"events": [user_message(text)]}
    body = json.dumps(events, ensure_ascii=is_ascii).encode()
    async with target.open() as (reader, writer):
        path = f"/v1/sessions/{session}/events"
        head = target.head("POST", path, f"content-length: {len(body)}", "connection: close")
        writer.write(head + body)
        return await read_answer(reader, seconds=_TURN_SECONDS)


async def cost_of(site: Site, target: Target, kind: str, size: int) -> Cost:
    """Send one message and wait for the end of its turn."""
    session, text = await new_session(target), TEXTS[kind](size)
    before, stalls = target.resident_bytes(), len(site.stalls())
    target.forget_peak()
    answer = await send(target, session, "[[say: done]] " + text)
    assert answer.status == 200, answer.body[:500]
    answered = target.peak_bytes() - before
    async with asyncio.timeout(_TURN_SECONDS):
        while not is_quiet(await _events(target, session)):
            await asyncio.sleep(_POLL_SECONDS)
    over = target.peak_bytes() - before
    await asyncio.sleep(_REST_SECONDS)
    left = target.resident_bytes() - before
    return Cost(kind, answered / size, over / size, left / size, len(site.stalls()) - stalls)


async def _events(target: Target, session: str) -> list[dict[str, object]]:
    """Return the events but the large one."""
    query = "&".join(
        f"types[]={type_}" for type_ in ("session.status_running", "session.status_idle")
    )
    answer = await target.call("GET", f"/v1/sessions/{session}/events?{query}")
    found: list[dict[str, object]] = answer.json["data"]
    return found


async def readers(target: Target, size: int) -> list[str]:
    """Return how the memory grows with readers of a large event that do not read."""
    session = await new_session(target)
    answer = await send(target, session, TEXTS["ASCII"](size))
    assert answer.status == 200, answer.body[:500]
    await asyncio.sleep(_REST_SECONDS)
    lines = []
    for name, path, count in (
        ("streams", f"/v1/sessions/{session}/events/stream", 30),
        ("lists", f"/v1/sessions/{session}/events", 1),
        ("lists", f"/v1/sessions/{session}/events", 30),
    ):
        before = target.resident_bytes()
        target.forget_peak()
        async with unread(target, path, count):
            await asyncio.sleep(3)
            grown = (target.resident_bytes() - before) / size
            peak = (target.peak_bytes() - before) / size
        lines.append(f"{count} unread {name}: +{grown:.1f}x, at most +{peak:.1f}x")
        await asyncio.sleep(_REST_SECONDS)
    return lines


async def run(root: Path, *, size: int) -> int:
    """Print what each kind costs; return how many stalls there were."""
    async with site_in(root) as site:
        target = replace(site.target, pid=site.process.process.pid)
        await cost_of(site, target, "ASCII", 100_000)  # what is loaded with the first turn
        for kind in TEXTS:
            print(await cost_of(site, target, kind, size), flush=True)  # a program
        print(*await readers(target, size), sep="\n", flush=True)  # a program
        stalls = site.stalls()
        print(*stalls, sep="\n")  # a program
    return len(stalls)


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-") as root:
        return min(1, asyncio.run(run(Path(root), size=given.megabytes * _MB)))


if __name__ == "__main__":
    sys.exit(main())
