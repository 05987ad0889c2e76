"""What the relay reports to its listeners about each model request of the child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.aiokit import Callbacks
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted

RelayEvent = ModelRequestStarted | ModelRequestEnded
Listener = Callable[[RelayEvent], None]


class Listeners(Callbacks[[RelayEvent]]):
    """The listeners of a relay."""

    def __init__(self) -> None:
        super().__init__("model request")

    def emit(self, event: RelayEvent) -> None:
        """Notify listeners in order on the next loop iteration, so that pending bytes are forwarded first."""
        asyncio.get_running_loop().call_soon(self, event)
