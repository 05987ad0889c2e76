"""Probes. No key, no work, no dependence on the gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from sidecar import __version__
from sidecar.http.answers import json_response
from sidecar.opencode.child import Child


class HealthApi:
    """`/health` is for people and for LAP's check; the other three are Kubernetes' probes."""

    def __init__(
        self,
        *,
        child: Child,
        describe_gateway: Callable[[], dict[str, Any]],
        is_draining: Callable[[], bool],
    ) -> None:
        self._child = child
        self._describe_gateway = describe_gateway
        self._is_draining = is_draining

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health", self.health),
            web.get("/livez", self.live),
            web.get("/readyz", self.ready),
            web.get("/startupz", self.started),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        """200 while the sidecar serves, with the truth about its neighbours in the body."""
        return json_response(
            {
                "ok": self._child.state in {"ready", "degraded"},
                "version": __version__,
                "opencode": {
                    "state": self._child.state,
                    "version": self._child.version,
                    **({"failure": self._child.failure} if self._child.failure else {}),
                },
                "gateway": self._describe_gateway(),
            }
        )

    async def live(self, _request: web.Request) -> web.Response:
        """200 while the process answers at all; restarting it heals nothing but a hang."""
        return json_response({"live": True})

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when prompts can be served: the child answers and we are not stopping."""
        is_ready = self._child.state in {"ready", "degraded"} and not self._is_draining()
        return json_response(
            {"ready": is_ready, "opencode": self._child.state}, status=200 if is_ready else 503
        )

    async def started(self, _request: web.Request) -> web.Response:
        """200 once the HTTP face is up, which is when this can answer."""
        return json_response({"started": True})
