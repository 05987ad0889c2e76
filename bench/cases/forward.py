"""opencode's own API through the sidecar, against the same requests straight to it, in turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp

from bench import throughput
from bench.added import added_row
from bench.flood import word_event
from bench.processes import (
    RUNTIME_KEY,
    Program,
    Server,
    flood,
    free_port,
    gateway,
    patient_client,
    scratch,
    start_sidecar,
)
from bench.report import Row
from bench.stats import Samples, sample
from sidecar.opencode.environment import (
    USERNAME,
    ChildFiles,
    RelayAccess,
    attached_environment,
)
from sidecar.opencode.executable import find_binary

TITLE = "opencode's own API: through the sidecar, against straight to it"

_PASSWORD = "password-of-the-benchmarks"
_RELAY_TOKEN = "relay-token-of-the-benchmarks"
_CLIENTS = (1, 32)
_ROUNDS = 5


async def measure(*, quick: bool) -> list[Row]:
    """Small requests to the real opencode, and streams of a program in its place."""
    return [*await _small_requests(quick=quick), *await _streams(quick=quick)]


# -- small requests -------------------------------------------------------------------------------


async def _small_requests(*, quick: bool) -> list[Row]:
    rows = []
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(scratch())
        models = await stack.enter_async_context(gateway(directory))
        relay_port = free_port()
        child = await stack.enter_async_context(_opencode(directory, relay_port))
        ours = await stack.enter_async_context(
            _attached(directory, models.url, child.url, relay_port=relay_port)
        )
        theirs = await stack.enter_async_context(patient_client(_basic(_PASSWORD), child.url))
        async with ours.post("/session", json={"title": "bench"}) as response:
            response.raise_for_status()
            session = (await response.json())["id"]
        for what, method, body in (
            ("GET /session/{id}", "GET", None),
            ("PATCH /session/{id}", "PATCH", {"title": "renamed"}),
        ):
            ask = partial(_ask, method=method, path=f"/session/{session}", body=body)
            for clients in _CLIENTS:
                runs = (20 if quick else 200) * (1 if clients == 1 else 5)
                mine, others = await _in_turn(
                    partial(ask, ours), partial(ask, theirs), runs=runs, clients=clients
                )
                rows.append(added_row(_of(what, clients), mine, others, is_target=clients == 1))
    return rows


async def _ask(http: aiohttp.ClientSession, *, method: str, path: str, body: object) -> None:
    async with http.request(method, path, json=body) as response:
        response.raise_for_status()
        await response.read()


async def _in_turn(
    ours: Callable[[], Awaitable[object]],
    theirs: Callable[[], Awaitable[object]],
    *,
    runs: int,
    clients: int,
) -> tuple[Samples, Samples]:
    """Measure both in several rounds, so that a slow moment of the machine meets both."""
    mine: list[float] = []
    others: list[float] = []
    for _ in range(_ROUNDS):
        for call, kept in ((theirs, others), (ours, mine)):
            measured = await sample(call, runs=runs // _ROUNDS, clients=clients)
            kept.extend(measured.seconds)
    return Samples(tuple(mine)), Samples(tuple(others))


@asynccontextmanager
async def _opencode(directory: Path, relay_port: int) -> AsyncIterator[Server]:
    """The real one with a password that is known, as a platform starts it for attach mode."""
    files = ChildFiles(directory / "data" / "opencode")
    await asyncio.to_thread(files.prepare)
    relay = RelayAccess(f"http://127.0.0.1:{relay_port}/v1", _RELAY_TOKEN)
    port = free_port()
    program = await Program.start(
        *("serve", "--hostname", "127.0.0.1", "--port", str(port)),
        executable=str(find_binary(None, search_path=os.environ.get("PATH"))),
        log=directory / "opencode.log",
        environment=attached_environment(files, password=_PASSWORD, relay=relay, confining=()),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await program.answers(f"{url}/global/health", _basic(_PASSWORD))
        yield Server(url, program)
    finally:
        await program.end()


# -- streams --------------------------------------------------------------------------------------


async def _streams(*, quick: bool) -> list[Row]:
    rows = []
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(scratch())
        alone = await stack.enter_async_context(flood(directory, "alone"))
        behind = await stack.enter_async_context(flood(directory, "behind"))
        ours = await stack.enter_async_context(_attached(directory, behind.url, behind.url))
        theirs = await stack.enter_async_context(patient_client({}, alone.url))
        source = await stack.enter_async_context(patient_client({}, behind.url))
        events_of = str(directory / "data" / "workspaces" / "native")
        for path in ("/global/event", "/event"):
            rows += await throughput.compare(
                f"GET {path}",
                event_bytes=len(word_event(events_of if path == "/global/event" else None)),
                ours=partial(_open, ours, path),
                theirs=partial(_open, theirs, path),
                begin_ours=partial(_begin, source, events_of),
                begin_theirs=partial(_begin, theirs, events_of),
                quick=quick,
            )
    return rows


def _open(
    http: aiohttp.ClientSession, path: str, _events: int
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return http.get(path)


async def _begin(source: aiohttp.ClientSession, directory: str, events: int) -> None:
    async with source.post("/flood", json={"events": events, "directory": directory}) as response:
        response.raise_for_status()


# -- both -----------------------------------------------------------------------------------------


@asynccontextmanager
async def _attached(
    directory: Path, gateway_url: str, child_url: str, *, relay_port: int | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A sidecar that uses the opencode at that address; yields a client of it."""
    server = await start_sidecar(
        directory,
        gateway_url,
        settings={
            "OPENCODE_URL": child_url,
            "OPENCODE_SERVER_PASSWORD": _PASSWORD,
            "SIDECAR_RELAY_TOKEN": _RELAY_TOKEN,
            "SIDECAR_RELAY_PORT": str(relay_port or free_port()),
            "SIDECAR_CONFINEMENT": "off",
        },
    )
    try:
        await server.program.answers(f"{server.url}/readyz")
        async with patient_client(_basic(RUNTIME_KEY), server.url) as client:
            yield client
    finally:
        await server.program.end()


def _basic(password: str) -> dict[str, str]:
    return {"authorization": aiohttp.encode_basic_auth(USERNAME, password)}


def _of(what: str, clients: int) -> str:
    return f"{what}, {clients} client{'s' if clients > 1 else ''}"
