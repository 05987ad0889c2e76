"""The child side: the process, its config file, its loaded directories, its events."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from sidecar.config import ChildSettings, Settings
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.relay import Relay
from sidecar.managed.model_registry import ModelRegistry
from sidecar.opencode.attached import AttachedChild
from sidecar.opencode.child import Child, IsBusy
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.environment import PLUGIN_FILE, ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.opencode.orphans import marker_for
from sidecar.opencode.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class ChildParts:
    """Everything that knows the child. Nothing is started."""

    supervisor: Child
    config_file: ConfigFile
    registry: ModelRegistry
    pump: EventPump
    instances: Instances


def make_child(
    settings: Settings,
    files: ChildFiles,
    session: aiohttp.ClientSession,
    *,
    relay: Relay,
    catalogue: Catalogue,
    is_busy: IsBusy,
) -> ChildParts:
    """Put the child's parts together."""
    supervisor = _child(
        settings.child,
        files,
        session,
        relay=lambda: RelayAccess(relay.url, relay.token),
        is_busy=is_busy,
    )
    plugin = PLUGIN_FILE if settings.child.url is None else files.share_plugin()
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
