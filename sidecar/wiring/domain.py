"""Puts the domain together (agents, environments, sessions, turns, vaults) and subscribes its parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from sidecar.aiokit import TaskOwner
from sidecar.cluster.ownership import Ownership, SharedOwnership
from sidecar.config import Settings
from sidecar.errors import SettingsError, SidecarError
from sidecar.gateway.relay import Relay
from sidecar.managed.agents.agents import Agents
from sidecar.managed.agents.environments import Environments
from sidecar.managed.child.mcp_servers import McpServers
from sidecar.managed.child.mirror import Mirror
from sidecar.managed.child.permission_watch import PermissionWatch
from sidecar.managed.child.sessions import ChildSessions
from sidecar.managed.child.web_tools import WebTools
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.resources import Resources
from sidecar.managed.sessions.retention import Retention
from sidecar.managed.sessions.service import Sessions, typed_name
from sidecar.managed.sessions.shell_variables import ShellVariables
from sidecar.managed.sessions.space import SpaceWatch
from sidecar.managed.turns.state import SessionRecord
from sidecar.managed.turns.tool_plan import CUSTOM_SERVER, WEB_SERVER
from sidecar.managed.vaults.credentials import Credentials
from sidecar.managed.vaults.encryption import open_secret_box, open_shared_secret_box
from sidecar.managed.vaults.vaults import Vaults
from sidecar.managed.workspaces.git import Git
from sidecar.managed.workspaces.packages import Packages, has_manager
from sidecar.managed.workspaces.repositories import Repositories
from sidecar.opencode.custom_tools import CustomTools
from sidecar.opencode.environment import ChildFiles
from sidecar.opencode.shell_environment import ShellEnvironment
from sidecar.opencode.tool_server import ClientTools, ToolServer
from sidecar.store.interface import Store
from sidecar.tracing import Tracer
from sidecar.wiring.child import ChildParts
from sidecar.wiring.web import Web

if TYPE_CHECKING:
    from sidecar.managed.workspaces.archives import SessionArchives

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What stores secrets and hands them out."""

    vaults: Vaults
    credentials: Credentials
    repositories: Repositories


@dataclass(frozen=True, slots=True)
class Domain:
    """The resources of the API and what runs behind them."""

    log: EventLog
    engine: SessionEngine
    agents: Agents
    environments: Environments
    sessions: Sessions
    resources: Resources
    packages: Packages
    mirror: Mirror | None
    archives: SessionArchives | None
    permission_watch: PermissionWatch
    space: SpaceWatch
    retention: Retention


async def open_secrets(
    settings: Settings,
    database: Store,
    files: ChildFiles,
    stack: AsyncExitStack,
    tasks: TaskOwner,
    *,
    limits: StoredLimits,
    child_pids: Callable[[], Collection[int]],
) -> Secrets:
    """Find the key, and let the child ask for the variables of its shells."""
    key = settings.vault.key
    if settings.storage.database_url is not None and key is not None:
        secret_box = await open_shared_secret_box(database=database, key=key.get_secret_value())
    else:
        secret_box = await open_secret_box(
            database=database,
            key=key.get_secret_value() if key else None,
            data_dir=settings.storage.data_dir,
        )
    vaults = Vaults(database=database, secret_box=secret_box, limits=limits)
    variables = ShellVariables(
        database=database,
        vaults=vaults,
        workspaces_dir=settings.storage.workspaces_dir.resolve(),
    )
    shells = ShellEnvironment(
        path=files.shell_socket, child_pids=child_pids, variables_of=variables.of_directory
    )
    try:
        await shells.start()
    except OSError as error:
        raise SettingsError(
            f"DATA_DIR: cannot make a socket at {files.shell_socket}: {error.strerror}; "
            "use a directory on a local file system"
        ) from error
    stack.push_async_callback(shells.close)
    git = Git(settings=settings.repository, inherited=os.environ, tasks=tasks)
    return Secrets(
        vaults,
        Credentials(database=database, secret_box=secret_box, limits=limits),
        Repositories(database=database, secret_box=secret_box, git=git),
    )


async def make_domain(
    settings: Settings,
    database: Store,
    stack: AsyncExitStack,
    *,
    child: ChildParts,
    secrets: Secrets,
    limits: StoredLimits,
    web: Web,
    tracer: Tracer,
    ownership: Ownership,
    archives: SessionArchives | None = None,
) -> Domain:
    """Put the domain together. Its tool server listens; nothing else is started."""
    custom_tools = CustomTools()

    async def tools_of(session_id: str) -> list[dict[str, object]]:
        return await sessions.custom_tools(session_id)

    async def web_options_of(session_id: str) -> Mapping[str, Mapping[str, object]]:
        return await sessions.web_options(session_id)

    tool_server = ToolServer(
        is_token=custom_tools.is_token,
        sources={
            CUSTOM_SERVER: ClientTools(custom_tools, tools_of),
            WEB_SERVER: WebTools(fetcher=web.fetcher, search=web.search, options_of=web_options_of),
        },
        host=settings.relay.host,
        reached_at=settings.relay.reached_at(),
    )
    await tool_server.start()
    stack.push_async_callback(tool_server.close)
    mirror = None
    if isinstance(ownership, SharedOwnership):
        mirror = Mirror(
            database=database,
            ownership=ownership,
            workspaces_dir=settings.storage.workspaces_dir.resolve(),
        )
        child.pump.on_sync(mirror.note)
    packages = Packages(settings=settings.packages, end_processes=child.end_processes)
    child_sessions = ChildSessions(
        supervisor=child.supervisor,
        instances=child.instances,
        pump=child.pump,
        mcp_servers=McpServers(
            custom_tools=custom_tools,
            tool_server_url=tool_server.url,
            bearers_for=secrets.vaults.bearers_for,
        ),
        repositories=secrets.repositories,
        workspaces_dir=settings.storage.workspaces_dir.resolve(),
        prompt_wait_seconds=settings.child.prompt_wait_seconds,
        mirror=mirror,
        archives=archives,
        packages=packages,
        external=child.external,
        end_processes=child.end_processes,
        private_dir=child.private_dir,
    )
    log = EventLog(database=database, ownership=ownership, companion=mirror)

    async def on_claimed(record: SessionRecord) -> None:
        # Its agent may have been made in another pod, with a model that this opencode does not know yet.
        with contextlib.suppress(SidecarError):
            await child.registry.resolve(typed_name(record.model_ref))

    engine = SessionEngine(
        database=database,
        ownership=ownership,
        on_claimed=on_claimed if ownership.is_shared else None,
        save_files=archives.save if archives is not None else None,
        log=log,
        child_sessions=child_sessions,
        custom_tools=custom_tools,
        modalities_of=child.registry.modalities_of,
        settings=settings.turn,
        tracer=tracer,
    )
    space = SpaceWatch(
        settings=settings.storage,
        sessions=engine,
        directories_of=child_sessions.directories,
        end_processes=child.end_processes,
        keepers_dir=child.keepers_dir,
    )
    child_sessions.on_tool_end(space.note_tool_end)
    agents = Agents(
        database=database,
        resolve_model=child.registry.resolve,
        has_search=web.search is not None,
        limits=limits,
    )
    sessions = Sessions(
        database=database,
        log=log,
        engine=engine,
        ownership=ownership,
        agents=agents,
        child_sessions=child_sessions,
        check_vaults=secrets.vaults.check,
        repositories=secrets.repositories,
        resolve_model=child.registry.resolve,
        limits=limits,
        on_deleted=archives.sweep_soon if archives is not None else None,
    )
    return Domain(
        log=log,
        engine=engine,
        agents=agents,
        environments=Environments(
            database=database, limits=limits, has_manager=_manager_check(settings)
        ),
        sessions=sessions,
        mirror=mirror,
        archives=archives,
        packages=packages,
        resources=Resources(repositories=secrets.repositories, engine=engine),
        permission_watch=child_sessions.watch,
        space=space,
        retention=Retention(
            database=database,
            sessions=sessions,
            ownership=ownership,
            days=settings.turn.retention_days,
        ),
    )


def connect(child: ChildParts, relay: Relay, engine: SessionEngine) -> None:
    """Subscribe the child to its events' bytes and their losses, the turns to gaps and to model requests."""
    supervisor = child.supervisor
    supervisor.add_sign_of_life(child.pump.bytes_read)
    # The relay does not know which boot asks: while there are two its bytes count for neither.
    supervisor.add_sign_of_life(lambda _boot: relay.bytes_taken if len(supervisor.boots) < 2 else 0)
    child.pump.on_lost(supervisor.suspect)
    child.pump.on_gap(engine.gap)
    child.pump.on_gap(lambda _gap: relay.guard.forget_all())
    supervisor.on_lost(lambda _boot, _loss: relay.guard.forget_all())
    child.pump.on_idle(relay.guard.forget)
    relay.listen(engine.model_request)


def _manager_check(settings: Settings) -> Callable[[str], bool]:
    """Return what says whether a package manager is there. An attached opencode has a PATH of its own, which
    nothing here sees: there the first turn says it."""
    if settings.child.url is not None:
        return lambda _name: True
    return lambda name: has_manager(name, search_path=os.environ.get("PATH", os.defpath))
