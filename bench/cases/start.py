"""From the start of the process to its first answered list of models, and to all of its routes.

Targets are ratios within the run: how long a start takes says mostly how fast the machine is.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench.processes import (
    RUNTIME_KEY,
    Program,
    gateway,
    model_names,
    scratch,
    sidecar,
    start_sidecar,
)
from bench.report import Row
from bench.stats import Samples, ratio
from bench.stock import configure, seconds_to_its_models

TITLE = "Start: process start to the first answered GET /v1/models, catalogue on disk"

_MODELS = 300
_MOST_TIMES_IMPORT = 3.0
"""Of importing aiohttp's server alone, which nothing that serves with it can be quicker than."""
_MOST_TIMES_STOCK = 1.0
_IMPORT = "import aiohttp.web"


async def measure(*, quick: bool) -> list[Row]:
    """Start once to fill the data directories, then again and again on them, all sides in turn."""
    starts, imports, stock = [], [], []
    with scratch() as directory:
        home = directory / "home"
        async with gateway(directory, models=_MODELS) as models:
            configure(home, gateway_url=models.url, models=list(model_names(_MODELS)))
            async with sidecar(directory, models.url):
                pass  # the catalogue is on disk and the byte code is compiled
            await seconds_to_its_models(home)
            await _import(directory)
            for _ in range(2 if quick else 10):
                starts.append(await _start(directory, models.url))
                imports.append(await _import(directory))
                stock.append(await seconds_to_its_models(home))
    first, whole = (Samples(seconds) for seconds in zip(*starts, strict=True))
    alone, installed = Samples(tuple(imports)), Samples(tuple(stock))
    times, times_stock = ratio(first.p50, alone.p50), ratio(first.p50, installed.p50)
    return [
        Row(
            f"{_MODELS} models",
            f"{first}: {times:.2f}x",
            f"a Python that only imports aiohttp's server: {alone}",
            f"at most {_MOST_TIMES_IMPORT:.2f}x",
            times <= _MOST_TIMES_IMPORT,
        ),
        Row(
            f"{_MODELS} models, against opencode as installed",
            f"{first}: {times_stock:.2f}x",
            f"`opencode serve` with its defaults, to its list of models: {installed}",
            f"at most {_MOST_TIMES_STOCK:.2f}x",
            times_stock <= _MOST_TIMES_STOCK,
        ),
        Row("every route is served", str(whole)),
    ]


async def _import(directory: Path) -> float:
    """Return the seconds that a Python needs to import aiohttp's server and end."""
    began = time.perf_counter()
    program = await Program.start("-c", _IMPORT, log=directory / "import.log")
    if await program.exit_status():
        raise RuntimeError(f"{_IMPORT} failed")
    return time.perf_counter() - began


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
