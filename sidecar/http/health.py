"""Probes. No key, no work, no dependence on the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from sidecar import __version__
from sidecar.http import declare
from sidecar.http.operations import Answer, Content
from sidecar.http.responses import json_response
from sidecar.opencode.environment import PINNED_VERSION
from sidecar.wire.objects.service import Health, Live, Ready, Started


class ChildStatus(Protocol):
    """What the probes report of opencode."""

    @property
    def state(self) -> str:
        """The state, in the supervisor's words."""

    @property
    def version(self) -> str:
        """Its version, empty while unknown."""

    @property
    def failure(self) -> str:
        """Why it is `failed`."""


class HealthApi:
    """`/health` is for people and for LAP's check; the other three are Kubernetes' probes."""

    def __init__(
        self,
        *,
        child: ChildStatus,
        is_draining: Callable[[], bool],
        store_failure: Callable[[], str],
        confinement: Mapping[str, Any],
        describe_gateway: Callable[[], dict[str, Any]],
    ) -> None:
        self._child = child
        self._is_draining = is_draining
        self._store_failure = store_failure
        self._confinement = confinement
        self._describe_gateway = describe_gateway

    @declare.get("/health", response=Health)
    async def health(self) -> Answer:
        """200 while the sidecar serves, with the truth about its neighbours in the body."""
        return {
            "ok": self._child.state in {"ready", "degraded"} and not self._store_failure(),
            "version": __version__,
            "opencode": {
                "state": self._child.state,
                "version": self._child.version,
                **self._other_version(),
                **({"failure": self._child.failure} if self._child.failure else {}),
            },
            "gateway": self._describe_gateway(),
            "confinement": self._confinement,
        }

    def _other_version(self) -> dict[str, str]:
        """Return the version that this release is tested with, where another one runs."""
        is_other = self._child.version not in {"", PINNED_VERSION}
        return {"tested_version": PINNED_VERSION} if is_other else {}

    @declare.get("/livez", response=Live)
    async def live(self) -> Answer:
        """200 while the process answers at all; restarting it heals nothing but a hang."""
        return {"live": True}

    @declare.get(
        "/readyz", response=Ready, others={503: Content("Prompts cannot be served.", Ready)}
    )
    async def ready(self) -> web.Response:
        """200 when prompts can be served: the child answers, the store takes writes, we are not stopping."""
        can_store = not self._store_failure()
        is_served = self._child.state in {"ready", "degraded"} and not self._is_draining()
        is_ready = is_served and can_store
        body = {"ready": is_ready, "opencode": self._child.state}
        if not can_store:
            body["store"] = "cannot be written"
        return json_response(body, status=200 if is_ready else 503)

    @declare.get("/startupz", response=Started)
    async def started(self) -> Answer:
        """200: once we listen every route is served. opencode's own start is not waited for."""
        return {"started": True}
