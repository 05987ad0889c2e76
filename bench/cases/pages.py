"""Reading a long history page by page."""

from __future__ import annotations

import time

from bench import stored
from bench.clients import SidecarClient, sidecar_client
from bench.processes import gateway, scratch, sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds, ratio
from sidecar.managed.events.log import EventLog, Head
from sidecar.store.sqlite import SqliteStore

TITLE = "GET /v1/sessions/{id}/events: a history of 10 000 events, read to its end"

_EVENTS = 10_000
_BATCH = 500
_PAGE = 1000
_LEAST_SHARE = 0.5
"""Of the speed of one page that holds everything."""


async def measure(*, quick: bool) -> list[Row]:
    """Read it as the SDKs do, following `next_page`, and as LAP does, all in one page."""
    runs = 2 if quick else 10
    with scratch() as directory:
        database = SqliteStore(directory / "data" / "sidecar.db")
        await database.open()
        session = await stored.new_session(database)
        log, head = EventLog(database=database), Head(0, 0)
        for _ in range(_EVENTS // _BATCH):
            await log.append(session, head, [stored.MESSAGE] * _BATCH)
        await database.close()
        async with (
            gateway(directory) as models,
            sidecar(directory, models.url) as server,
            sidecar_client(server.url) as client,
        ):
            paged = Samples(
                tuple([await _read(client, session, f"limit={_PAGE}") for _ in range(runs)])
            )
            whole = Samples(tuple([await _read(client, session, "") for _ in range(runs)]))
    per_second = _EVENTS / paged.p50
    share = ratio(whole.p50, paged.p50)
    return [
        Row(
            f"pages of {_PAGE}",
            f"{per_second:,.0f} events/s ({format_seconds(paged.p50)} p50, {runs} runs): {share:.2f}x",
            f"in one page: {_EVENTS / whole.p50:,.0f} events/s ({format_seconds(whole.p50)})",
            f"at least {_LEAST_SHARE:.2f}x",
            share >= _LEAST_SHARE,
        )
    ]


async def _read(client: SidecarClient, session: str, query: str) -> float:
    """Return how many seconds it took to have every event, parsed."""
    path = f"/v1/sessions/{session}/events?{query}"
    began, seen, page = time.perf_counter(), 0, ""
    while page is not None:
        answer = await client.call("GET", f"{path}&page={page}" if page else path)
        seen += len(answer["data"])
        page = answer["next_page"]
    seconds = time.perf_counter() - began
    if seen != _EVENTS:
        raise RuntimeError(f"{seen} events were listed, not {_EVENTS}")
    return seconds
