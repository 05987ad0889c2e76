"""`python -m sidecar.demo_gateway --port N [--key K] [--models file.json]`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from sidecar.demo_gateway.models import DEFAULT_MODELS, DemoModel
from sidecar.demo_gateway.server import DemoGateway


def main(
    port: Annotated[int, typer.Option(help="TCP port on loopback; 0 picks a free one.")] = 0,
    key: Annotated[str | None, typer.Option(help="Key that callers must send.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="JSON array of models that replaces the built-in ones.")
    ] = None,
) -> None:
    """Serve the demo gateway until SIGINT or SIGTERM."""
    known = list(DEFAULT_MODELS)
    if models is not None:
        known = TypeAdapter(list[DemoModel]).validate_json(models.read_bytes())
    asyncio.run(_serve(port=port, key=key, models=known))


async def _serve(*, port: int, key: str | None, models: list[DemoModel]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    gateway = DemoGateway(port=port, key=key, models=models)
    await gateway.start()
    typer.echo(f"demo gateway listening on {gateway.url}")
    try:
        await stop.wait()
    finally:
        await gateway.close()


if __name__ == "__main__":
    typer.run(main)
