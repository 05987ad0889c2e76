"""A relay in a process of its own: `python -m bench.relay_server GATEWAY_URL KEY [plain]`.

`plain` switches the repair of streams off.

Prints its URL and token as JSON on one line and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from sidecar.config import GatewaySettings
from sidecar.gateway.relay import Relay


async def main(gateway_url: str, key: str, repair: str = "") -> None:
    """Serve."""
    settings = GatewaySettings(repair_streams=repair != "plain")
    relay = Relay(settings=settings, base_url=gateway_url, api_key=key)
    await relay.start()
    print(json.dumps({"url": relay.url, "token": relay.token}), flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await relay.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
