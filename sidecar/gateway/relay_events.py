"""What the relay tells its listeners about each model request of the child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted

_log = structlog.get_logger(__name__)


RelayEvent = ModelRequestStarted | ModelRequestEnded
Listener = Callable[[RelayEvent], None]


@dataclass(slots=True)
class Listeners:
    """Calls everyone in order; an exception of one is logged and harms neither stream nor others."""

    _all: list[Listener] = field(default_factory=list)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; the answer removes it and may be called twice."""
        self._all.append(listener)

        def remove() -> None:
            if listener in self._all:
                self._all.remove(listener)

        return remove

    def emit(self, event: RelayEvent) -> None:
        """Tell everyone soon, in order: the bytes that wait to be passed on go first."""
        asyncio.get_running_loop().call_soon(self._tell, event)

    def _tell(self, event: RelayEvent) -> None:
        for listener in tuple(self._all):
            try:
                listener(event)
            except Exception as error:  # a listener must not break the stream
                _log.error("relay listener failed", event_kind=type(event).__name__, exc_info=error)
