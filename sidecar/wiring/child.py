"""The child side: the process, its config file, its loaded directories, its events."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sidecar.config import ChildSettings, Settings
from sidecar.errors import SettingsError
from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.relay import Relay
from sidecar.listening import cannot_listen
from sidecar.managed.agents.model_registry import ModelRegistry
from sidecar.managed.child.sessions import EndProcesses
from sidecar.opencode.attached import AttachedChild
from sidecar.opencode.boot import Boot
from sidecar.opencode.child import Child, IsBusy
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.confinement import Confinement, Surroundings, prepare
from sidecar.opencode.environment import PLUGIN_FILE, ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.executable import find_binary
from sidecar.opencode.frame_feed import FrameFeed
from sidecar.opencode.instances import Instances, OnMove
from sidecar.opencode.moved_data import follow_move
from sidecar.opencode.supervisor import Supervisor
from sidecar.processes.keepers import end_session
from sidecar.processes.orphans import marker_for
from sidecar.wire.external_directory import Rule, external_rules

_ENDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ChildParts:
    """The parts around the child. Nothing is started yet."""

    supervisor: Child
    config_file: ConfigFile
    registry: ModelRegistry
    pump: EventPump
    instances: Instances
    confinement: Confinement
    external: Sequence[Rule]
    """Which paths outside of its directory a session's tools may name."""
    end_processes: EndProcesses
    private_dir: Path
    keepers_dir: Path


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

    Raises SettingsError when its directories cannot be made, when there is no opencode to start, when its
    port is taken, or when it cannot be confined as required.
    """
    binary = None
    if settings.child.url is None:  # now, not when the first start fails
        binary = find_binary(settings.child.binary, search_path=os.environ.get("PATH"))
        await _refuse_taken(settings.child.port)
    plugin = await _lay_out(settings, files)
    around = Surroundings.of(settings, files, binary)
    confinement = await asyncio.to_thread(prepare, settings.confinement, around)
    if settings.child.url is not None:
        confinement = confinement.in_other_container()
    external = external_rules(files.private.resolve() if confinement.is_on else None)
    supervisor = _child(
        settings.child,
        files,
        session,
        relay=lambda: RelayAccess(relay.url, relay.token),
        is_busy=is_busy,
        confining=confinement.command,
        must_be_confined=settings.confinement.mode == "required",
    )
    config_file = ConfigFile(
        files.config_file,
        plugins=(plugin,),
        external=external,
    )
    registry = ModelRegistry(
        catalogue=catalogue,
        config_file=config_file,
        default_model=settings.gateway.default_model,
    )
    instances = Instances(
        config_file=config_file,
        # Not `wait_ready`: who comes to a directory has passed it, or belongs to a turn that runs.
        boot_provider=lambda: supervisor.wait_boot(settings.child.prompt_wait_seconds),
        settings=settings.child,
        on_move=_leaves_others(supervisor, around.files.keepers),
        on_broken_config=supervisor.report_broken_config,
    )
    return ChildParts(
        supervisor=supervisor,
        config_file=config_file,
        registry=registry,
        pump=EventPump(
            supervisor=supervisor,
            feed=FrameFeed(most_held_bytes=settings.http.native_backlog_bytes),
        ),
        instances=instances,
        confinement=confinement,
        external=external,
        end_processes=lambda directory: asyncio.to_thread(
            end_session, around.files.keepers, directory.name
        ),
        private_dir=around.files.private,
        keepers_dir=around.files.keepers,
    )


def _leaves_others(supervisor: Child, keepers: Path) -> OnMove:
    """Return what ends the keepers that another boot left in a directory: each serves its own boot only."""

    async def leave(directory: Path, boot: Boot) -> None:
        others = [other.pid for other in supervisor.boots if other is not boot and other.pid]
        if others:
            await asyncio.to_thread(end_session, keepers, directory.name, of=others)

    return leave


async def _lay_out(settings: Settings, files: ChildFiles) -> Path:
    """Make the child's directories and return where it finds our plug-in."""
    try:
        await asyncio.to_thread(files.prepare)
        await asyncio.to_thread(_make, settings.storage.workspaces_dir)
        if settings.child.url is not None:
            return await asyncio.to_thread(files.share_plugin)
        await asyncio.to_thread(follow_move, files, settings.storage.workspaces_dir)
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot make {error.filename or files.root}: {error.strerror}; free that path or set "
            "another DATA_DIR"
        ) from error
    return PLUGIN_FILE


async def _refuse_taken(port: int) -> None:
    """Raise SettingsError when a program listens on opencode's port, other than one that is just ending.

    After a SIGKILL the next sidecar may start before the end of what the last one left.
    """
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if time.monotonic() > deadline:
                    names = {"host_setting": "OPENCODE_PORT", "port_setting": "OPENCODE_PORT"}
                    raise cannot_listen(error, "127.0.0.1", port, **names) from error
            else:
                return
        await asyncio.sleep(_ENDING_SECONDS / 20)


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)


def _child(
    settings: ChildSettings,
    files: ChildFiles,
    session: aiohttp.ClientSession,
    *,
    relay: Callable[[], RelayAccess],
    is_busy: IsBusy,
    confining: Sequence[str],
    must_be_confined: bool,
) -> Child:
    """Return the opencode that we start, or the attached one."""
    if settings.url is not None:
        return AttachedChild(
            settings=settings,
            session=session,
            marker=marker_for(relay().token),
            is_busy=is_busy,
            must_be_confined=must_be_confined,
        )
    return Supervisor(
        settings=settings,
        files=files,
        session=session,
        relay=relay,
        inherited=os.environ,
        is_busy=is_busy,
        confining=confining,
    )
