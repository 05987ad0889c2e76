"""opencode as the other parts see it, started or attached: its state, its client, the end of each boot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import structlog

from sidecar.aiokit import Callbacks
from sidecar.config import ChildSettings
from sidecar.errors import ChildUnavailableError
from sidecar.masking import masked_urls
from sidecar.opencode.boot import Boot, Loss
from sidecar.opencode.client import ChildClient
from sidecar.opencode.environment import PINNED_VERSION
from sidecar.opencode.health import ProcessStats
from sidecar.opencode.planned_restart import PlannedRestart

State = Literal[
    "stopped", "starting", "ready", "degraded", "draining", "stopping", "backing_off", "failed"
]
LossCallback = Callable[[Boot, Loss], None]
"""Called on the loop when a boot is over, before anything is done to it."""
StateCallback = Callable[[State, int], None]
"""Called with the new state and the boot number, on the loop, in order."""
ExitCallback = Callable[["ChildExit"], None]

_SERVING: frozenset[State] = frozenset({"ready", "degraded", "draining"})
_USUAL_BOOT_SECONDS = 5.0
_HOLD_SHARE = 0.5
"""Share of `prompt_wait_seconds` for which new turns are held; the rest must cover a restart."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How a boot ended. `code` is minus the signal number for a signal."""

    boot: int
    code: int
    reason: str
    at: float
    """Seconds since the epoch."""


class IsBusy(Protocol):
    """Whether a boot works on a turn. Asked only while a restart is wanted, or it retires."""

    def __call__(self, boot: Boot, *, with_waiting: bool) -> Awaitable[bool]:
        """Return whether the boot works on a turn. One that waits for its client counts if `with_waiting`."""


async def never_busy(boot: Boot, *, with_waiting: bool) -> bool:  # noqa: ARG001  # as IsBusy
    """The `IsBusy` of a child that runs no turns."""
    return False


class Child(ABC):
    """The state of opencode and its subscribers. `start` once, `stop` once.

    Subclasses decide when it is started, ready and given up.
    """

    def __init__(self, settings: ChildSettings, *, is_busy: IsBusy) -> None:
        self._settings = settings
        self._is_busy = is_busy
        self._restart = PlannedRestart(
            is_busy=self._is_current_busy,
            patience_seconds=settings.restart_patience_seconds,
            hold_seconds=settings.prompt_wait_seconds * _HOLD_SHARE,
        )
        self._state_changed = Callbacks[[State, int]]("state of opencode")
        self._exited = Callbacks[["ChildExit"]]("exit of opencode")
        self._lost = Callbacks[[Boot, Loss]]("loss of opencode")
        self._serves = Callbacks[[]]("opencode that serves")
        self._processes_changed = Callbacks[[Collection[int]]]("processes of opencode")
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._current: Boot | None = None
        self._retiring: Boot | None = None
        self._processes: dict[int, tuple[int, ...]] = {}
        self._signs: list[Callable[[Boot], int]] = []
        self._is_draining = False
        self._is_stopping = False
        self._retry_at = 0.0
        self.state: State = "stopped"
        self.boot = 0
        """The number of the current boot; while there is none, of the latest."""
        self.pid_unknown_because = ""
        """Why the process behind a child that serves is not known; one sentence for people."""
        self.last_exit: ChildExit | None = None
        self.version = ""
        self.overdue = 0
        """How many retiring boots had turns that were cut, because they took too long."""
        self.failure = ""
        """Why the state is `failed`: one sentence for people."""
        self.is_misconfigured = False
        """It failed because there is no opencode that runs here, which only its operator can mend."""
        self.failed = asyncio.Event()

    def note_version(self, version: str) -> None:
        """Keep the version of what runs; say so when it is not the one that this release is tested with."""
        if version not in {self.version, PINNED_VERSION}:
            _log.warning(
                "opencode is not of the tested version; `opencode-sidecar doctor --compat` checks it",
                version=version,
                tested=PINNED_VERSION,
            )
        self.version = version

    def add_sign_of_life(self, read: Callable[[Boot], int]) -> None:
        """Have `read` asked for a number that grows whenever something arrives from a boot."""
        self._signs.append(read)

    def signs_of_life(self, boot: Boot) -> int:
        """Return a number that changes whenever something has arrived from that boot."""
        return sum(read(boot) for read in self._signs)

    @property
    def current(self) -> Boot | None:
        """The boot that takes new turns, None while there is none that serves."""
        return self._current if self.state in _SERVING else None

    @property
    def retiring(self) -> Boot | None:
        """The boot that was replaced and finishes its turns, if there is one."""
        return self._retiring

    @property
    def boots(self) -> Sequence[Boot]:
        """The boots that serve: the current one, and before it one that retires."""
        both = (self._retiring, self.current)
        return [boot for boot in both if boot is not None and not boot.is_over]

    @property
    def client(self) -> ChildClient | None:
        """The client of the current boot while it serves, else None."""
        return self.current.client if self.current is not None else None

    @property
    def pid(self) -> int | None:
        """The process of the current boot, or of the one that is to be."""
        if self._current is not None:
            return self._current.pid
        pids = self._processes.get(self.boot)
        return pids[0] if pids else None

    @property
    def pids(self) -> Collection[int]:
        """Every process of opencode that there is, those that start included."""
        return [pids[0] for pids in self._processes.values()]

    @property
    def process_stats(self) -> ProcessStats | None:
        """What the kernel says of the current boot."""
        return self._current.process_stats if self._current is not None else None

    @property
    def restart_pending(self) -> str | None:
        """Why a restart waits for idle, None if none does."""
        return self._restart.reason

    @property
    def is_ending(self) -> bool:
        """Whether there will be no other child: the sidecar stops, or has given up."""
        return self._is_draining or self._is_stopping or self.failed.is_set()

    def on_state_change(self, callback: StateCallback) -> None:
        """Call `callback` at every change from now on."""
        self._state_changed.add(callback)

    def on_exit(self, callback: ExitCallback) -> None:
        """Call `callback` with the end of every boot from now on."""
        self._exited.add(callback)

    def on_lost(self, callback: LossCallback) -> None:
        """Call `callback` with every boot that is over, from now on."""
        self._lost.add(callback)

    def on_serving(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever there is another boot in `boots`."""
        self._serves.add(callback)

    def on_processes(self, callback: Callable[[Collection[int]], None]) -> None:
        """Call `callback` with `pids` whenever they change."""
        self._processes_changed.add(callback)

    @abstractmethod
    async def start(self) -> None:
        """Begin and return at once."""

    def suspect(self) -> None:  # noqa: B027  # nothing to do is a good answer
        """The event stream broke: where nothing else would show it, check whether the child is there."""

    @abstractmethod
    async def stop(self) -> None:
        """End. A drain comes before it."""

    async def wait_ready(self, timeout_seconds: float) -> ChildClient:
        """Return the client for a new turn, waiting for a child that is down or about to be replaced.

        Raises ChildUnavailableError.
        """
        return (await self._wait(timeout_seconds, lambda: self._is_usable)).client

    async def wait_serving(self, timeout_seconds: float) -> ChildClient:
        """Return the client for what belongs to running turns, or to none: as `wait_ready`, but neither a
        hold for a planned restart nor a drain keeps it, for both wait until such turns have ended.
        """
        return (await self.wait_boot(timeout_seconds)).client

    async def wait_boot(self, timeout_seconds: float) -> Boot:
        """Return the current boot as `wait_serving` does its client. Raises ChildUnavailableError."""
        return await self._wait(timeout_seconds, lambda: self.current is not None)

    async def _wait(self, timeout_seconds: float, is_there: Callable[[], bool]) -> Boot:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not is_there():
                    if self.failed.is_set() or self._is_stopping or self._is_draining:
                        break
                    await self._settled.wait()
        if self.current is not None and is_there():
            return self.current
        if self.failed.is_set():
            raise ChildUnavailableError(f"opencode cannot be started: {self.failure}")
        left = max(0.0, self._retry_at - time.monotonic())
        state: str = self.state
        if self._is_draining:
            state = "draining"
        elif self._restart.is_holding:
            state = "about to be restarted"
        raise ChildUnavailableError(
            f"opencode is not ready ({state})", retry_after_seconds=left + _USUAL_BOOT_SECONDS
        )

    def drain(self) -> None:
        """Begin to end: running turns keep their client (`wait_serving`), `wait_ready` refuses new ones.

        It refuses those, too, that wait for a child which is starting.
        """
        self._is_draining = True
        if self.state in ("ready", "degraded"):
            self._set_state("draining")
        self._settle()

    def request_restart(self, reason: str, *, force: bool = False) -> None:
        """Have the child replaced. Asked for again before that has happened, it is the same restart.

        Where two boots can serve side by side no turn is cut, and `force` changes nothing. Elsewhere it
        waits until no turn runs (see `planned_restart`), or with `force` for nothing.
        """
        self._restart.request(reason, is_forced=force)
        self._wake.set()

    def report_broken_config(self, directory: Path) -> None:
        """Request a restart: opencode answers config errors only for that directory until it is restarted."""
        _log.warning("directory poisoned in child", directory=str(directory))
        self.request_restart("poisoned directory")

    @property
    def _is_usable(self) -> bool:
        """Whether new turns may begin."""
        is_up = self.state in ("ready", "degraded")
        return is_up and not (self._is_draining or self._restart.is_holding)

    async def _is_current_busy(self) -> bool:
        boot = self._current
        return boot is not None and await self._is_busy(boot, with_waiting=False)

    def _become_current(self, boot: Boot) -> None:
        """Give new turns to that boot. Whatever restart was wanted has happened."""
        self._current, self.boot = boot, boot.number
        self._restart.clear()
        state: State = "draining" if self._is_draining else "ready"
        if state == self.state:  # it takes the place of another one
            self._settle()
            self._state_changed(state, boot.number)
        self._set_state(state)
        self._serves()

    def _lose(self, boot: Boot, loss: Loss) -> None:
        """Note that a boot is over, and notify the subscribers."""
        if not boot.is_over:
            boot.is_over = True
            self.overdue += loss == "overdue"
            self._lost(boot, loss)

    def note_processes(self, number: int, pids: tuple[int, ...]) -> None:
        """Keep the processes of a boot, its own first; none when they have ended."""
        if pids:
            self._processes[number] = pids
        else:
            self._processes.pop(number, None)
        self._processes_changed(self.pids)

    async def _is_restart_due(self) -> bool:
        is_due = await self._restart.is_due()
        self._settle()
        return is_due

    def _settle(self) -> None:
        """Wake the callers that wait for the child if it can be used, or never will be."""
        is_over = self._is_draining or self._is_stopping or self.state == "failed"
        if self._is_usable or is_over:
            self._settled.set()
        else:
            self._settled.clear()

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _note_exit(self, number: int, code: int, reason: str) -> None:
        self.last_exit = ChildExit(number, code, reason, time.time())
        self._exited(self.last_exit)

    def note_process_stats(self, boot: Boot, process_stats: ProcessStats) -> None:
        """Keep what the kernel says of a boot; the current one may have to be replaced for it."""
        boot.process_stats = process_stats
        complaint = process_stats.complaint(self._settings)
        if boot is self._current and complaint is not None and self._restart.reason is None:
            self.request_restart(complaint)

    def note_health(self, boot: Boot, is_healthy: bool) -> None:
        """A health check of a boot was answered, or not."""
        if boot is not self._current:
            return
        if self.state == "ready" and not is_healthy:
            _log.warning("child does not answer health check", boot=boot.number)
            self._set_state("degraded")
        elif self.state == "degraded" and is_healthy:
            self._set_state("ready")

    def _fail(self, sentence: str, *, is_misconfigured: bool = False) -> None:
        _log.error("child given up", reason=sentence)
        self.is_misconfigured = is_misconfigured
        self.failure = masked_urls(sentence)  # `/health` shows it without a key
        self._set_state("failed")
        self.failed.set()

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._settle()
        self._state_changed(state, self.boot)
