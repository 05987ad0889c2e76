"""From the start of the process to its first answered list of models, and to all of its routes."""

from __future__ import annotations

import time
from pathlib import Path

from bench.processes import RUNTIME_KEY, gateway, scratch, sidecar, start_sidecar
from bench.report import Row
from bench.stats import Samples, format_seconds

TITLE = "Start: process start to the first answered GET /v1/models, catalogue on disk"

_MODELS = 300
_MOST_SECONDS = 0.7


async def measure(*, quick: bool) -> list[Row]:
    """Start once to fill the data directory, then again and again on it."""
    with scratch() as directory:
        async with gateway(directory, models=_MODELS) as models:
            async with sidecar(directory, models.url):
                pass  # the catalogue is on disk and the byte code is compiled
            starts = [await _start(directory, models.url) for _ in range(2 if quick else 10)]
    first, whole = (Samples(seconds) for seconds in zip(*starts, strict=True))
    return [
        Row(
            f"{_MODELS} models",
            str(first),
            "",
            f"p50 at most {format_seconds(_MOST_SECONDS)}",
            first.p50 <= _MOST_SECONDS,
        ),
        Row("every route is served", str(whole)),
    ]


async def _start(directory: Path, gateway_url: str) -> tuple[float, float]:
    began = time.perf_counter()
    server = await start_sidecar(directory, gateway_url)
    try:
        await server.program.answers(f"{server.url}/v1/models", {"x-api-key": RUNTIME_KEY})
        first = time.perf_counter() - began
        await server.program.answers(f"{server.url}/startupz")
        return first, time.perf_counter() - began
    finally:
        await server.program.end()
