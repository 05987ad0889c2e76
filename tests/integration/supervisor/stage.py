"""A supervisor over a small program in the place of opencode."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import aiohttp
import psutil

from sidecar.config import ChildSettings
from sidecar.opencode.boot import Boot
from sidecar.opencode.child import State
from sidecar.opencode.client import ChildClient
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.supervisor import Supervisor
from tests.fakes.small_sidecar import fake_child
from tests.waiting import PATIENCE_SECONDS, until


def is_gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Stage:
    """A supervisor over one of the fakes, with the states it went through."""

    def __init__(
        self, root: Path, session: aiohttp.ClientSession, program: str, **settings: object
    ):
        launcher = fake_child(root, program)
        values = {
            "binary": launcher,
            "restart_first_delay_seconds": 0.05,
            "health_interval_seconds": 0.1,
            "health_timeout_seconds": PATIENCE_SECONDS,
        }
        self.files = ChildFiles(root / "opencode")
        self.busy: set[int] = set()
        """The boots with turns, and those with turns that only wait for their client."""
        self.waiting: set[int] = set()
        self.asked_with_waiting: list[bool] = []
        self.launcher = launcher
        self.states: list[State] = []
        self.supervisor = Supervisor(
            settings=ChildSettings(**(values | settings)),  # type: ignore[arg-type]  # test values
            files=self.files,
            session=session,
            relay=lambda: RelayAccess("http://127.0.0.1:9/v1", "token"),
            inherited=os.environ,
            is_busy=self._is_busy,
        )
        self.supervisor.on_state_change(lambda state, _boot: self.states.append(state))

    async def _is_busy(self, boot: Boot, *, with_waiting: bool) -> bool:
        if self.asked_with_waiting[-1:] != [with_waiting]:
            self.asked_with_waiting.append(with_waiting)
        return boot.number in self.busy or (with_waiting and boot.number in self.waiting)

    async def until(self, state: State, boot: int | None = None) -> None:
        """Wait for a state, of a certain boot if given."""
        s = self.supervisor
        await until(lambda: s.state == state and boot in (None, s.boot))


Stages = Callable[..., Stage]


async def tell(client: ChildClient, what: str) -> None:
    """Use one of the fake's switches."""
    with contextlib.suppress(aiohttp.ClientError):
        (await client.forward("POST", f"/test/{what}")).close()
