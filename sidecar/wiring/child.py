"""The child side: the process, its config file, its loaded directories, its events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sidecar.config import ChildSettings, Settings
from sidecar.errors import SettingsError
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.relay import Relay
from sidecar.managed.agents.model_registry import ModelRegistry
from sidecar.opencode.attached import AttachedChild
from sidecar.opencode.child import Child, IsBusy
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.environment import PLUGIN_FILE, ChildFiles, RelayAccess, find_binary
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.opencode.supervisor import Supervisor
from sidecar.processes.orphans import marker_for


@dataclass(frozen=True, slots=True)
class ChildParts:
    """Everything that knows the child. Nothing is started."""

    supervisor: Child
    config_file: ConfigFile
    registry: ModelRegistry
    pump: EventPump
    instances: Instances


async def make_child(
    settings: Settings,
    files: ChildFiles,
    session: aiohttp.ClientSession,
    *,
    relay: Relay,
    catalogue: Catalogue,
    is_busy: IsBusy,
) -> ChildParts:
    """Put the child's parts together.

    Raises SettingsError when its directories cannot be made, or when there is no opencode to start.
    """
    if settings.child.url is None:  # now, not when the first start fails
        find_binary(settings.child.binary, search_path=os.environ.get("PATH"))
    supervisor = _child(
        settings.child,
        files,
        session,
        relay=lambda: RelayAccess(relay.url, relay.token),
        is_busy=is_busy,
    )
    plugin = await _lay_out(settings.child, files)
    config_file = ConfigFile(files.config_file, plugins=(plugin,))
    registry = ModelRegistry(
        catalogue=catalogue,
        config_file=config_file,
        default_model=settings.gateway.default_model,
    )
    instances = Instances(
        config_file=config_file,
        # Not `wait_ready`: who comes to a directory has passed it, or belongs to a turn that runs.
        client_provider=lambda: supervisor.wait_serving(settings.child.prompt_wait_seconds),
        settings=settings.child,
        on_poison=supervisor.report_poison,
    )
    return ChildParts(
        supervisor, config_file, registry, EventPump(supervisor=supervisor), instances
    )


async def _lay_out(settings: ChildSettings, files: ChildFiles) -> Path:
    """Make the child's directories and return where it finds our plug-in."""
    try:
        await asyncio.to_thread(files.prepare)
        return PLUGIN_FILE if settings.url is None else await asyncio.to_thread(files.share_plugin)
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot make {error.filename or files.root}: {error.strerror}; free that path or set "
            "another DATA_DIR"
        ) from error


def _child(
    settings: ChildSettings,
    files: ChildFiles,
    session: aiohttp.ClientSession,
    *,
    relay: Callable[[], RelayAccess],
    is_busy: IsBusy,
) -> Child:
    """Return the opencode that we start, or the one that somebody else does."""
    if settings.url is not None:
        return AttachedChild(
            settings=settings, session=session, marker=marker_for(relay().token), is_busy=is_busy
        )
    return Supervisor(
        settings=settings,
        files=files,
        session=session,
        relay=relay,
        inherited=os.environ,
        is_busy=is_busy,
    )
