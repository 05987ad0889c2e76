"""The gateway side: where models come from, the catalogue of them, the relay to them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from sidecar.aiokit import TaskOwner
from sidecar.config import RelaySettings, Settings
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.client import GatewayClient
from sidecar.gateway.relay import Relay
from sidecar.gateway.request_guard import RequestGuard
from sidecar.listening import cannot_listen
from sidecar.tracing import Tracer

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where models come from. `is_demo` is announced wherever people look."""

    url: str
    key: str | None
    is_demo: bool


async def find_gateway(settings: Settings, stack: AsyncExitStack) -> Gateway:
    """Return the configured gateway, or start the demo one."""
    if settings.gateway.base_url:
        key = settings.gateway.api_key
        shown = key.get_secret_value() if key else None
        return Gateway(settings.gateway.base_url, shown, is_demo=False)
    from sidecar.demo_gateway import DemoGateway  # noqa: PLC0415  # starts without it are faster

    demo = DemoGateway()
    await demo.start()
    stack.push_async_callback(demo.close)
    _log.warning("demo gateway: no LITELLM_BASE_URL is set, answers are scripted", url=demo.url)
    return Gateway(demo.url, None, is_demo=True)


def make_catalogue(
    settings: Settings, gateway: Gateway, session: aiohttp.ClientSession, tasks: TaskOwner
) -> Catalogue:
    """Return the catalogue, not started."""
    client = GatewayClient(
        settings=settings.gateway, base_url=gateway.url, api_key=gateway.key, session=session
    )
    return Catalogue(
        client=client,
        settings=settings.gateway,
        file=settings.storage.data_dir / "catalogue.json",
        tasks=tasks,
    )


async def start_relay(
    settings: Settings,
    gateway: Gateway,
    stack: AsyncExitStack,
    *,
    tracer: Tracer,
    traceparent_of: Callable[[str], str | None],
    on_release: Callable[[int], None],
) -> Relay:
    """Return the relay, listening. Raises SettingsError when it cannot."""
    given: RelaySettings = settings.relay
    relay = Relay(
        settings=settings.gateway,
        base_url=gateway.url,
        api_key=gateway.key,
        host=given.host,
        port=given.port,
        token=given.token.get_secret_value() if given.token else None,
        tracer=tracer,
        traceparent_of=traceparent_of,
        on_release=on_release,
        guard=RequestGuard(
            max_without_progress=settings.turn.max_requests_without_progress,
            max_per_turn=settings.turn.max_model_requests,
        ),
    )
    try:
        await relay.start()
    except OSError as error:
        names = {"host_setting": "SIDECAR_RELAY_HOST", "port_setting": "SIDECAR_RELAY_PORT"}
        raise cannot_listen(error, given.host, given.port, **names) from error
    stack.push_async_callback(relay.close)
    return relay


def describe(gateway: Gateway, catalogue: Catalogue) -> dict[str, Any]:
    """Return what `/health` shows of the gateway."""
    snapshot = catalogue.snapshot
    return {
        "demo": gateway.is_demo,
        "models": len(snapshot.listed) if snapshot else 0,
        "age_seconds": round(snapshot.age_seconds, 1) if snapshot else None,
    }
