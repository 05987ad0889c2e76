"""A model request through the relay, against the same request straight to the gateway, alternating."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp

from bench import throughput
from bench.added import added_row
from bench.flood import CHAT_WORD
from bench.processes import (
    BASIC_MODEL,
    GATEWAY_KEY,
    Program,
    flood,
    gateway,
    patient_client,
    scratch,
)
from bench.report import Row
from bench.stats import Samples

TITLE = "The relay: a streamed model request through it, against straight to the gateway"

_WORDS = 200
_SMALL = "a prompt of 1 kB"


async def measure(*, quick: bool) -> list[Row]:
    """Time first byte and whole answer of a small prompt and of one as large as a long session's."""
    with scratch() as directory:
        async with (
            gateway(directory) as models,
            _relay(directory, models.url) as (relay_url, token),
            _relay(directory, models.url, "plain") as (plain_url, plain_token),
            aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as through,
            aiohttp.ClientSession(headers={"authorization": f"Bearer {plain_token}"}) as plain,
            aiohttp.ClientSession(headers={"authorization": f"Bearer {GATEWAY_KEY}"}) as straight,
        ):
            rows = []
            for name, padding in ((_SMALL, 1_000), ("a prompt of 1 MB", 1_000_000)):
                ours: list[tuple[float, float]] = []
                theirs: list[tuple[float, float]] = []
                unrepaired: list[tuple[float, float]] = []
                body = _body(padding)
                for _ in range(5 if quick else 100):
                    theirs.append(await _request(straight, f"{models.url}/v1", body))
                    ours.append(await _request(through, relay_url, body))
                    unrepaired.append(await _request(plain, plain_url, body))
                rows += _rows(name, ours[1:], theirs[1:])
                rows.append(_repair(name, ours[1:], unrepaired[1:]))
    return rows + await _streams(quick=quick)


async def _streams(*, quick: bool) -> list[Row]:
    """A long answer of a program that streams faster than any gateway."""

    def stream(
        http: aiohttp.ClientSession, url: str, events: int
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        body = {"model": BASIC_MODEL, "stream": True, "events": events}
        return http.post(f"{url}/chat/completions", json=body)

    with scratch() as directory:
        async with (
            flood(directory) as models,
            _relay(directory, models.url) as (relay_url, token),
            patient_client({"authorization": f"Bearer {token}"}) as through,
            patient_client({}) as straight,
        ):
            return await throughput.compare(
                "an answer in chunks of a word",
                event_bytes=len(CHAT_WORD),
                ours=partial(stream, through, relay_url),
                theirs=partial(stream, straight, f"{models.url}/v1"),
                quick=quick,
            )


def _rows(
    name: str, ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> list[Row]:
    return [
        added_row(
            f"{what}, {name}",
            Samples(tuple(times[place] for times in ours)),
            Samples(tuple(times[place] for times in theirs)),
            is_target=name == _SMALL,
        )
        for place, what in enumerate(("first byte", f"{_WORDS} chunks"))
    ]


def _repair(
    name: str, ours: list[tuple[float, float]], unrepaired: list[tuple[float, float]]
) -> Row:
    """What looking for chunks to repair costs, with none to repair."""
    mine, other = (Samples(tuple(whole for _, whole in times)) for times in (ours, unrepaired))
    ratio = mine.p50 / other.p50
    return Row(
        f"{_WORDS} chunks, {name}, repair on against off", f"{mine}: x{ratio:.2f}", str(other)
    )


def _body(padding: int) -> bytes:
    prompt = f"[[slow: {_WORDS}x0 word]]"
    messages = [
        {"role": "system", "content": "x" * padding},
        {"role": "user", "content": prompt},
    ]
    return json.dumps({"model": BASIC_MODEL, "stream": True, "messages": messages}).encode()


async def _request(http: aiohttp.ClientSession, url: str, body: bytes) -> tuple[float, float]:
    """Return seconds to the first byte and to the last."""
    began = time.perf_counter()
    headers = {"content-type": "application/json"}
    async with http.post(f"{url}/chat/completions", data=body, headers=headers) as response:
        response.raise_for_status()
        await response.content.readany()
        first = time.perf_counter() - began
        await response.read()
    return first, time.perf_counter() - began


@asynccontextmanager
async def _relay(
    directory: Path, gateway_url: str, *options: str
) -> AsyncIterator[tuple[str, str]]:
    """A relay in its own process; yields its URL and token."""
    log = directory / "-".join(("relay", *options))
    program = await Program.start(
        "-m", "bench.relay_server", gateway_url, GATEWAY_KEY, *options, log=log
    )
    try:
        told = json.loads(await program.first_line())
        yield told["url"], told["token"]
    finally:
        await program.end()
