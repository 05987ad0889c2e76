"""`/metrics` and `/admin/*`: for operators, on a listener of their own.

Loopback by default; any other address needs a key. Browsers are refused whatever they carry: a page that
a person opened on the same machine must not restart anything.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import structlog
from aiohttp import hdrs, web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from sidecar import __version__
from sidecar.config import AdminSettings
from sidecar.errors import NotFoundError
from sidecar.gateway.catalogue import CatalogueEntry, CatalogueSnapshot
from sidecar.http.agents_kept_out import refuse_agents
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies, read_optional_model
from sidecar.http.connections import ConnectionBounds
from sidecar.http.middleware import request_context, require_key
from sidecar.http.origin_check import check_origin
from sidecar.http.responses import json_response
from sidecar.http.runner import Runner
from sidecar.instruments import Sources
from sidecar.listening import cannot_listen, is_about_host, listen, url_of
from sidecar.managed.agents.model_registry import ModelRegistry
from sidecar.metrics import Metrics

METRICS_PATH = "/metrics"
_CONNECTION_BOUNDS = ConnectionBounds(
    most=64, header_seconds=10.0, stall_seconds=60.0, exempt={METRICS_PATH}
)
_BODY_BOUNDS = BodyBounds(
    plain_bytes=64 * 1024,
    content_bytes=64 * 1024,
    in_flight_bytes=1024 * 1024,
    values=1000,
    silence_seconds=10.0,
)

_log = structlog.get_logger(__name__)


class RestartRequest(BaseModel):
    """Body of `POST /admin/restart`."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("asked for by an operator", min_length=1, max_length=200)
    force: bool = False
    """Where opencode can only be ended before the next one starts (attach mode, `OPENCODE_PORT`): do that now
    and cut the running turns, instead of waiting until none runs. Elsewhere none is cut anyway."""


class AdminApi:
    """What operators see and do."""

    def __init__(self, *, metrics: Metrics, sources: Sources, registry: ModelRegistry) -> None:
        self._metrics = metrics
        self._sources = sources
        self._registry = registry
        self._started = time.monotonic()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(METRICS_PATH, self.metrics),
            web.get("/admin/state", self.state),
            web.get("/admin/catalogue", self.catalogue),
            web.post("/admin/refresh", self.refresh),
            web.post("/admin/reload", self.reload),
            web.post("/admin/restart", self.restart),
        ]

    async def metrics(self, _request: web.Request) -> web.Response:
        """`GET /metrics`: Prometheus's text format."""
        body = self._metrics.exposition()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_PLAIN_0_0_4})

    async def state(self, _request: web.Request) -> web.Response:
        """`GET /admin/state`: what is going on, in one object."""
        return json_response(self.describe())

    def describe(self) -> dict[str, Any]:
        """Return what `/admin/state` answers; the console shows the same."""
        sources = self._sources
        instances, engine = sources.instances, sources.engine
        return {
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "opencode": self._child(),
            "config": {
                "generation": sources.config_file.generation,
                "models": sorted(sources.config_file.entries()),
                "refused": dict(sources.config_file.refused),
            },
            "instances": {
                "loaded": instances.loaded(),
                "busy": instances.busy(),
                "loads": instances.loads,
                "unloads": instances.unloads,
            },
            "turns": {
                "running": engine.live.busy_count - engine.places.waiting,
                "in_line": engine.places.waiting,
                "waiting": engine.live.waiting_count,
                "queued_events": engine.live.queued_count,
            },
            "event_streams": sources.log.reader_count(),
            "store": {
                "queued_writes": sources.database.queued_writes,
                "size_bytes": sources.database.size_bytes(),
            },
            "gateway": {"demo": sources.is_demo_gateway, **self._catalogue_state()},
        }

    async def catalogue(self, request: web.Request) -> web.Response:
        """`GET /admin/catalogue[?model=]`: every model, who said what of it, why it is hidden.

        `skipped` has per source the number of items and fields that could not be read, and names the
        first of them.
        """
        snapshot = self._sources.catalogue.snapshot
        if snapshot is None:
            return json_response({**self._catalogue_state(), "models": []})
        wanted = request.query.get("model")
        entry = snapshot.find(wanted) if wanted else None
        if wanted and entry is None:
            raise NotFoundError(f"model {wanted[:200]!r} is not in the catalogue")
        entries = [entry] if entry is not None else list(snapshot.entries.values())
        return json_response(
            {
                **self._catalogue_state(),
                "aliases": dict(snapshot.aliases),
                "skipped": {
                    source: {
                        "count": count,
                        "first": [asdict(skip) for skip in snapshot.skipped.get(source, ())],
                    }
                    for source, count in snapshot.skipped_counts.items()
                },
                "models": [
                    _shown(item, self._sources.config_file.knows(item.id)) for item in entries
                ],
            }
        )

    async def refresh(self, _request: web.Request) -> web.Response:
        """`POST /admin/refresh`: read the gateway's lists now. Answers the gateway's error, if any."""
        before = self._sources.catalogue.snapshot
        after = await self._sources.catalogue.refresh()
        return json_response({**self._catalogue_state(), **_difference(before, after)})

    async def reload(self, _request: web.Request) -> web.Response:
        """`POST /admin/reload`: write opencode's config anew and unload its idle directories.

        No turn is touched: directories in use are loaded again when they are idle.
        """
        sources = self._sources
        await self._registry.update()
        generation = await sources.config_file.rewrite()
        unloaded, later = await sources.instances.unload_all()
        _log.info("reload asked for", generation=generation, unloaded=unloaded, later=later)
        return json_response({"generation": generation, "unloaded": unloaded, "later": later})

    async def restart(self, request: web.Request) -> web.Response:
        """`POST /admin/restart {"reason"?, "force"?}`: replace opencode; the old one finishes its turns."""
        wanted = await read_optional_model(request, RestartRequest)
        supervisor, engine = self._sources.supervisor, self._sources.engine
        boot, running = supervisor.boot, engine.live.busy_count
        supervisor.request_restart(wanted.reason, force=wanted.force)
        return json_response(
            {"boot": boot, "turns_running": running, **wanted.model_dump()}, status=202
        )

    def _child(self) -> dict[str, Any]:
        supervisor, pump = self._sources.supervisor, self._sources.pump
        return {
            "state": supervisor.state,
            "failure": supervisor.failure or None,
            "version": supervisor.version or None,
            "boot": supervisor.boot,
            "pid": supervisor.pid,
            "pid_unknown_because": supervisor.pid_unknown_because or None,
            "restart_pending": supervisor.restart_pending,
            "retiring": self._retiring(),
            "last_exit": asdict(supervisor.last_exit) if supervisor.last_exit else None,
            "vitals": asdict(supervisor.process_stats) if supervisor.process_stats else None,
            "events": {
                "is_connected": pump.is_connected(supervisor.current),
                "seen": pump.events_seen,
                "reconnects": pump.reconnects,
            },
        }

    def _retiring(self) -> dict[str, Any] | None:
        """Return the opencode that was replaced and finishes its turns."""
        boot = self._sources.supervisor.retiring
        if boot is None:
            return None
        return {
            "boot": boot.number,
            "pid": boot.pid,
            "busy_directories": self._sources.instances.busy(boot),
            "vitals": asdict(boot.process_stats) if boot.process_stats else None,
        }

    def _catalogue_state(self) -> dict[str, Any]:
        catalogue = self._sources.catalogue
        snapshot, error = catalogue.snapshot, catalogue.last_error
        return {
            "generation": snapshot.generation if snapshot else 0,
            "origin": snapshot.origin if snapshot else None,
            "age_seconds": round(snapshot.age_seconds, 1) if snapshot else None,
            "listed": len(snapshot.listed) if snapshot else 0,
            "known": len(snapshot.entries) if snapshot else 0,
            "failed_sources": dict(snapshot.failed_sources) if snapshot else {},
            "last_error": error.message if error else None,
        }


async def start_admin(
    settings: AdminSettings, api: AdminApi, *, runtime_key: SecretStr | None, is_walled: bool = True
) -> tuple[web.AppRunner, str]:
    """Listen; return the runner and the URL. Raises SettingsError when it cannot.

    Without a key of its own the listener, which is on loopback then, takes `runtime_key` for all but the
    metrics: the agents' shells run on this machine too. Without any key, and with `is_walled`, it refuses
    what they connect.
    """
    is_open = settings.anonymous_metrics or settings.key is None
    public = {METRICS_PATH} if is_open else frozenset[str]()
    variable = "SIDECAR_ADMIN_KEY" if settings.key else "RUNTIME_API_KEY"
    key = settings.key or runtime_key
    app = web.Application(
        middlewares=[
            request_context,
            check_origin(
                is_own_refused=True,
                is_host_checked=key is None,
                remedy="this listener is for programs, which call it localhost or have its key, "
                "SIDECAR_ADMIN_KEY",
            ),
            require_key(key, variable=variable, public=public),
            *([refuse_agents()] if key is None and is_walled else []),
            bounded_bodies(BodyBudget(_BODY_BOUNDS)),
        ]
    )
    app.add_routes(api.routes())
    runner = Runner(app, _CONNECTION_BOUNDS, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await listen(runner, settings.host, settings.port)
    except OSError as error:
        if "port" in settings.model_fields_set or is_about_host(error):
            await runner.cleanup()
            names = {"host_setting": "SIDECAR_ADMIN_HOST", "port_setting": "SIDECAR_ADMIN_PORT"}
            raise cannot_listen(error, settings.host, settings.port, **names) from error
        # A second sidecar on a developer's machine: it must start all the same.
        await listen(runner, settings.host, 0)
    host, port = runner.addresses[0][:2]
    return runner, url_of(host, port)


def _shown(entry: CatalogueEntry, is_in_config: bool) -> dict[str, Any]:
    return {**asdict(entry), "sources": dict(entry.sources), "in_opencode_config": is_in_config}


def _difference(before: CatalogueSnapshot | None, after: CatalogueSnapshot) -> dict[str, list[str]]:
    old = set(before.entries) if before else set()
    new = set(after.entries)
    return {"added": sorted(new - old), "removed": sorted(old - new)}
