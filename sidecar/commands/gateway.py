"""The gateway as the settings name it, for commands that look at it without a running sidecar."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sidecar.aiokit import TaskOwner
from sidecar.commands.output import (
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    CommandError,
)
from sidecar.config import GatewaySettings, Settings
from sidecar.demo_gateway import DemoGateway
from sidecar.errors import GatewayAuthenticationError, SettingsError, SidecarError
from sidecar.gateway.catalogue import Catalogue, CatalogueSnapshot
from sidecar.gateway.client import GatewayClient
from sidecar.gateway.http_session import client_session


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """An open way to the gateway; `is_demo` when none is configured."""

    url: str
    key: str | None
    is_demo: bool
    session: aiohttp.ClientSession

    def client(self, settings: GatewaySettings) -> GatewayClient:
        """Return a client for its lists."""
        return GatewayClient(
            settings=settings, base_url=self.url, api_key=self.key, session=self.session
        )


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[GatewayAccess]:
    """Open the configured gateway, or start the embedded demo gateway, as `serve` does."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client_session())
        if settings.base_url:
            key = settings.api_key.get_secret_value() if settings.api_key else None
            yield GatewayAccess(settings.base_url, key, is_demo=False, session=session)
            return
        demo = DemoGateway()
        await demo.start()
        stack.push_async_callback(demo.close)
        yield GatewayAccess(demo.url, None, is_demo=True, session=session)


async def read_catalogue(access: GatewayAccess, settings: GatewaySettings) -> CatalogueSnapshot:
    """Read the gateway's lists once and merge them as the server does.

    Nothing of a running server is touched. Raises GatewayError and SettingsError.
    """
    tasks = TaskOwner("command")
    with tempfile.TemporaryDirectory(prefix="opencode-sidecar-") as scratch:
        try:
            catalogue = Catalogue(
                client=access.client(settings),
                settings=settings,
                file=Path(scratch) / "catalogue.json",
                tasks=tasks,
            )
            return await catalogue.refresh()
        finally:
            await tasks.close()


def load_settings() -> Settings:
    """Return the settings. Raises CommandError that names the variable and the fix."""
    try:
        return Settings.load()
    except SettingsError as error:
        raise as_command_error(error) from error


def as_command_error(error: SidecarError) -> CommandError:
    """Return the command's error, with the exit code of its cause."""
    if isinstance(error, SettingsError):
        return CommandError(error.message, exit_code=EXIT_USAGE)
    if isinstance(error, GatewayAuthenticationError):
        return CommandError(error.message, exit_code=EXIT_REFUSED)
    return CommandError(error.message, exit_code=EXIT_UNAVAILABLE)
