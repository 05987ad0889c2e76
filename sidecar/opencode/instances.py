"""Which directories opencode has loaded, with which models, and when they may be unloaded.

opencode loads config, models and MCP servers once per directory and never again until that directory is
disposed, which aborts its turns. So every turn goes through `Instances.use`: it makes sure that the
directory knows the model, disposing only when no turn uses it. Unrelated directories never wait.

While one boot retires and another one serves, a directory is used in one of them: it stays with the retiring
boot as long as that works in it, and moves to the current one with its next use. So no session is prompted
in both.

Directories are given in canonical form (opencode resolves symbolic links). Other code that makes the
child load a directory (the forwarded API) goes through `use`, too, or what is recorded here is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from sidecar.config import ChildSettings
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.opencode.boot import Boot
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.provider import ModelEntry

OnLoaded = Callable[[ChildClient], Awaitable[None]]
"""Awaited after each load, before anyone may use the directory: MCP servers are added here, because a
dispose drops them. If it raises, the directory counts as not loaded."""

OnMove = Callable[[Path, Boot], Awaitable[None]]
"""Awaited before a boot loads a directory: what other boots left running there is ended."""

_UNCOUNTED_POLL_SECONDS = 0.2
_MAX_EVICTION_PAUSE_SECONDS = 30.0
_TURNS_TIMEOUT_SECONDS = 2.0

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Instance:
    directory: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the directory is loaded or disposed."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    loaded_by: Boot | None = None
    """The boot that has it loaded, None when not loaded."""
    models: Mapping[str, ModelEntry] = field(default_factory=dict)
    """The config file's models at the load."""
    is_outdated: bool = False
    """To be loaded again as soon as no turn uses it, whatever its models."""
    is_told: bool = False
    """Whether `on_loaded` was called for this load."""
    claims: int = 0
    """Callers inside `use`, waiting ones included; keeps the entry alive."""
    users: int = 0
    last_used: float = 0.0

    @property
    def is_busy(self) -> bool:
        return self.users > 0

    def is_loaded_by(self, boot: Boot | None) -> bool:
        """Whether that boot has it loaded; with None, any that is not over."""
        loaded_by = self.loaded_by
        return loaded_by is not None and not loaded_by.is_over and boot in (None, loaded_by)

    def count(self, users: int) -> None:
        """Add to the counter; set `idle` when it reaches zero."""
        self.users += users
        if self.is_busy:
            self.idle.clear()
        else:
            self.idle.set()


async def _ends_nothing(_directory: Path, _boot: Boot) -> None:
    """For tests, where there is one boot at a time."""


class Instances:
    """The directories that opencode has loaded. `run_eviction` is to be run as a task."""

    def __init__(
        self,
        *,
        config_file: ConfigFile,
        boot_provider: Callable[[], Awaitable[Boot]],
        settings: ChildSettings,
        on_move: OnMove = _ends_nothing,
        on_broken_config: Callable[[Path], None] = lambda _directory: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config_file = config_file
        self._boot_provider = boot_provider
        self._on_move = on_move
        self._settings = settings
        self._on_broken_config = on_broken_config
        self._clock = clock
        self._instances: dict[Path, _Instance] = {}
        self.loads = 0
        """How often the child loaded a directory."""
        self.unloads = 0

    @contextlib.asynccontextmanager
    async def use(
        self, directory: Path, model_id: str | None, *, on_loaded: OnLoaded | None = None
    ) -> AsyncIterator[Boot]:
        """Keep `directory` loaded, with the gateway model known in it, while the block runs.

        Gives the boot that has it. `model_id` None asks for no model. Raises ChildUnavailableError when the
        child is down or the directory stays busy with an older model list, ChildError when it cannot load the
        model.
        """
        instance = self._instances.setdefault(directory, _Instance(directory))
        instance.claims += 1
        try:
            boot = await self._enter(instance, model_id, on_loaded)
            try:
                yield boot
            finally:
                instance.last_used = self._clock()
                instance.count(-1)
        finally:
            instance.claims -= 1
            self._drop_if_unused(instance)

    def busy(self, boot: Boot | None = None) -> int:
        """How many directories are used, in that boot or in all."""
        used = [instance for instance in self._instances.values() if instance.is_busy]
        return sum(1 for instance in used if boot is None or instance.is_loaded_by(boot))

    def loaded(self, boot: Boot | None = None) -> int:
        """How many directories are loaded for us, in that boot or in all."""
        return sum(1 for instance in self._instances.values() if instance.is_loaded_by(boot))

    def boot_of(self, directory: Path) -> Boot | None:
        """Return the boot that has the directory loaded for us, if there is one."""
        instance = self._instances.get(directory)
        is_loaded = instance is not None and instance.is_loaded_by(None)
        return instance.loaded_by if instance is not None and is_loaded else None

    async def has_turns(self, boot: Boot | None, *, but: Callable[[Path], bool]) -> bool:
        """Return whether any session is busy in a directory that the boot (None: any) has loaded, skipping
        those where `but(path)` is true.

        Only opencode knows of turns of its own API. Without an answer in time there may be some; after an
        error there is none that could be saved.
        """

        def counted() -> list[_Instance]:
            found = [i for i in self._instances.values() if i.is_loaded_by(boot)]
            return [i for i in found if not but(i.directory)]

        try:
            async with asyncio.timeout(_TURNS_TIMEOUT_SECONDS):
                for instance in counted():
                    with contextlib.suppress(ChildError):
                        if instance.users or await self._has_turns(instance):
                            return True
        except TimeoutError:
            return True
        # Meanwhile one may have begun, or gone on.
        return any(instance.users for instance in counted())

    def forget(self, boot: Boot) -> None:
        """The boot is over: what it had loaded is not loaded. Users end by themselves."""
        for instance in list(self._instances.values()):
            if instance.loaded_by is boot:
                instance.loaded_by = None
                self._drop_if_unused(instance)

    async def unload(self, directory: Path) -> bool:
        """Dispose the directory unless it is busy; return whether it is unloaded now."""
        instance = self._instances.get(directory)
        if instance is None:
            return True
        async with instance.lock:
            is_idle = instance.loaded_by is not None and not instance.is_busy
            if is_idle and not await self._has_turns(instance):
                await self._dispose(instance)
        self._drop_if_unused(instance)
        return instance.loaded_by is None

    async def unload_all(self) -> tuple[int, int]:
        """Have every directory loaded anew at its next use.

        Idle ones are disposed now, busy ones when they are idle. Return how many of each.
        """
        victims = self._evictable()
        busy = [i for i in self._instances.values() if i.is_loaded_by(None) and i.is_busy]
        for instance in busy:
            instance.is_outdated = True
        for instance in victims:
            await self._evict(instance)
        return len(victims), len(busy)

    async def run_eviction(self) -> None:
        """Unload directories that were unused for `idle_dispose_seconds`. Runs until cancelled."""
        pause = min(self._settings.idle_dispose_seconds / 4, _MAX_EVICTION_PAUSE_SECONDS)
        while True:
            await asyncio.sleep(pause)
            oldest = self._clock() - self._settings.idle_dispose_seconds
            for instance in self._evictable():
                if instance.last_used <= oldest:
                    await self._evict(instance)

    async def _enter(
        self, instance: _Instance, model_id: str | None, on_loaded: OnLoaded | None
    ) -> Boot:
        """Make the directory current and count the caller in, waiting for idle if need be."""
        deadline = self._clock() + self._settings.prompt_wait_seconds
        while True:
            newest = await self._boot_provider()
            async with instance.lock:
                boot = await self._boot_for(instance, newest)
                if await self._is_made_current(instance, boot, model_id, on_loaded):
                    instance.count(1)
                    return boot
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - self._clock()):
                    if not instance.is_busy:
                        # A turn that did not come through `use`: its end sets no event.
                        await asyncio.sleep(_UNCOUNTED_POLL_SECONDS)
                    await instance.idle.wait()
                    continue
            raise ChildUnavailableError(
                "the session's directory is busy with an older model list", retry_after_seconds=5.0
            )

    async def _boot_for(self, instance: _Instance, newest: Boot) -> Boot:
        """Return the boot that works in the directory, else the newest."""
        older = instance.loaded_by
        if older is None or older.is_over:
            return newest
        is_newest = older.number >= newest.number  # of two that asked, the first may come second
        if is_newest or instance.is_busy or await self._has_turns(instance):
            return older
        _log.debug("directory moves", directory=str(instance.directory), boot=newest.number)
        instance.loaded_by = None  # not disposed: the boot that retires takes it along
        self.unloads += 1
        return newest

    async def _is_made_current(
        self,
        instance: _Instance,
        boot: Boot,
        model_id: str | None,
        on_loaded: OnLoaded | None,
    ) -> bool:
        """Load or reload as needed; False when that must wait until no turn uses the directory."""
        if instance.loaded_by is boot and self._is_current(instance, model_id):
            await self._tell_loaded(instance, boot, on_loaded)
            return True
        if not (model_id is None or self._config_file.knows(model_id)):
            why = self._config_file.refused.get(model_id, "it is in no list that was read")
            raise ChildError(f"the model {model_id[:200]!r} is not in opencode's config: {why}")
        if instance.loaded_by is boot:
            if instance.is_busy or await self._has_turns(instance):
                # Usable though not the newest (a limit or a price changed) is good enough here.
                return model_id is None or model_id in instance.models
            await self._dispose(instance)
        await self._make_room(instance, boot)
        await self._on_move(instance.directory, boot)
        await self._load(instance, boot.client)
        await self._tell_loaded(instance, boot, on_loaded)
        instance.loaded_by = boot
        return True

    async def _tell_loaded(
        self, instance: _Instance, boot: Boot, on_loaded: OnLoaded | None
    ) -> None:
        """Call `on_loaded` once per load, also when a caller without one loaded the directory."""
        if on_loaded is not None and not instance.is_told:
            await on_loaded(boot.client)
            instance.is_told = True

    def _is_current(self, instance: _Instance, model_id: str | None) -> bool:
        if instance.is_outdated:
            return False
        if model_id is None:
            return True
        known = instance.models.get(model_id)
        return known is not None and self._config_file.entries().get(model_id, known) == known

    async def _load(self, instance: _Instance, client: ChildClient) -> None:
        """Have the child read the config for this directory, by its cheapest request."""
        began = self._clock()
        models = self._config_file.entries()
        try:
            await client.mcp_status(instance.directory)
        except ChildError as error:
            if error.upstream_status == 400:  # ConfigJsonError, ConfigInvalidError
                self._on_broken_config(instance.directory)
                raise ChildUnavailableError(
                    "opencode cannot read its config here and will be restarted",
                    retry_after_seconds=5.0,
                ) from error
            raise
        self.loads += 1
        instance.is_told = False
        instance.models = models
        instance.is_outdated = False
        instance.last_used = self._clock()
        _log.debug(
            "directory loaded",
            directory=str(instance.directory),
            seconds=round(self._clock() - began, 3),
        )

    async def _has_turns(self, instance: _Instance) -> bool:
        """Whether opencode works in the directory. It may be a turn of its own API, whose `prompt_async`
        returns long before the turn ends."""
        boot = instance.loaded_by
        return boot is not None and bool(await boot.client.session_status(instance.directory))

    async def _dispose(self, instance: _Instance) -> None:
        boot, instance.loaded_by = instance.loaded_by, None
        self.unloads += 1
        if boot is not None:
            await boot.client.dispose(instance.directory)

    async def _make_room(self, newcomer: _Instance, boot: Boot) -> None:
        for victim in self._evictable():
            if self.loaded(boot) < self._settings.max_instances:
                return
            if victim is not newcomer and victim.loaded_by is boot:
                await self._evict(victim)

    def _evictable(self) -> list[_Instance]:
        """Loaded directories that no turn uses, longest unused first."""
        found = [i for i in self._instances.values() if i.is_loaded_by(None) and not i.is_busy]
        return sorted((i for i in found if not i.claims), key=lambda i: i.last_used)

    async def _evict(self, instance: _Instance) -> None:
        try:
            is_unloaded = await self.unload(instance.directory)
        except ChildError as error:
            _log.warning(
                "cannot unload directory", directory=str(instance.directory), error=error.message
            )
            return
        if is_unloaded:
            _log.debug("directory unloaded", directory=str(instance.directory))

    def _drop_if_unused(self, instance: _Instance) -> None:
        if instance.loaded_by is None and not instance.claims and not instance.is_busy:
            self._instances.pop(instance.directory, None)
