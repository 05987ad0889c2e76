"""GET /v1/models from the catalogue, against asking the gateway for the same each time.

Compared with a real LiteLLM, which `make bench` sets up. Where there is none, a scripted gateway stands in
and nothing is judged: how fast our own stand-in is says nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.clients import sidecar_client
from bench.processes import BASIC_MODEL, GATEWAY_KEY, ROOT, gateway, model_names, scratch, sidecar
from bench.report import Row
from bench.stats import sample
from tests.e2e.litellm_config import openai, proxy_config
from tests.fakes.litellm_proxy import LiteLLMProxy

TITLE = "GET /v1/models, 300 models: from the catalogue, against asking the gateway each time"

_MODELS = 300
_LEAST_TIMES = 50
_SOURCES = ("/v1/models", "/model_group/info", "/v1/model/info")
"""What the catalogue is made from: ids, limits, prices and abilities are in no single answer."""
_VENV_VARIABLE = "BENCH_LITELLM_VENV"


@dataclass(frozen=True, slots=True)
class _Gateway:
    name: str
    url: str
    key: str
    is_real: bool


async def measure(*, quick: bool) -> list[Row]:
    """Ask both sides over kept-alive connections."""
    with scratch() as directory:
        async with (
            _gateway(directory) as asked,
            sidecar(directory, asked.url, gateway_key=asked.key, wait_for="/v1/models") as server,
            sidecar_client(server.url) as client,
            aiohttp.ClientSession(headers={"authorization": f"Bearer {asked.key}"}) as http,
        ):
            listed = await client.call("GET", "/v1/models")
            if len(listed["data"]) != _MODELS or listed["data"][0]["id"] != BASIC_MODEL:
                raise RuntimeError(f"{len(listed['data'])} models are listed, not {_MODELS}")

            async def get(url: str) -> bytes:
                async with http.get(url) as response:
                    response.raise_for_status()
                    return await response.read()

            async def ours() -> None:
                async with client.http.get("/v1/models") as response:
                    await response.read()

            async def ids_only() -> None:
                await get(asked.url + "/v1/models")

            async def the_same() -> None:
                await asyncio.gather(*(get(asked.url + path) for path in _SOURCES))

            plain = await sample(ids_only, runs=3 if quick else 20)
            same = await sample(the_same, runs=3 if quick else 20)
            served = await sample(ours, runs=50 if quick else 1000, warm_up=20)
    faster = served.times_faster_than(same)
    return [
        Row(
            "all of them, with limits and prices",
            f"{served}: {faster:.0f}x faster",
            f"{asked.name}, its three lists at once: {same}",
            f"at least {_LEAST_TIMES}x" if asked.is_real else "",
            faster >= _LEAST_TIMES if asked.is_real else None,
        ),
        Row(
            "the same against the gateway's bare list of ids",
            f"{served.times_faster_than(plain):.0f}x faster",
            f"{asked.name}, /v1/models alone: {plain}",
        ),
    ]


@asynccontextmanager
async def _gateway(directory: Path) -> AsyncIterator[_Gateway]:
    """The real LiteLLM where it is installed (`make bench` does it), else the scripted gateway."""
    venv = Path(os.environ.get(_VENV_VARIABLE) or ROOT / ".venv-litellm")
    if not (venv / "bin" / "litellm").exists():
        async with gateway(directory, models=_MODELS) as server:
            name = "scripted gateway (no LiteLLM installed, not judged)"
            yield _Gateway(name, server.url, GATEWAY_KEY, is_real=False)
        return
    deployments = [
        openai(name, max_input_tokens=128_000, max_output_tokens=16_384)
        for name in model_names(_MODELS)
    ]
    config = proxy_config(deployments, upstream="http://127.0.0.1:9")
    async with LiteLLMProxy(config, venv=venv) as proxy:
        yield _Gateway("LiteLLM", proxy.url, proxy.key, is_real=True)
