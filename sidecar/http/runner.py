"""The runner of our listeners: `web.AppRunner` with bounded connections, and the envelope for everything."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sidecar.http.connections import BoundedServer, ConnectionBounds
from sidecar.wire.http_limits import MAX_HEADER_BYTES


class Runner(web.AppRunner):
    """An `AppRunner` whose server is a `BoundedServer`."""

    def __init__(self, app: web.Application, bounds: ConnectionBounds, **kwargs: Any) -> None:
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            **kwargs,
        )
        self._bounds = bounds

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return BoundedServer(made, self._bounds, **self._kwargs)

    @property
    def bounded_server(self) -> BoundedServer:
        """The server, once `setup` was called."""
        assert isinstance(self.server, BoundedServer)
        return self.server
