"""Loaded directories and the event subscription, against a small child that counts and obeys."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.config import ChildSettings
from sidecar.errors import ChildError, ChildUnavailableError
from sidecar.opencode.boot import Boot
from sidecar.opencode.client import ChildClient
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.environment import ChildFiles, RelayAccess
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.opencode.provider import ModelEntry
from sidecar.opencode.supervisor import Supervisor
from sidecar.wire.opencode_events import ChildEvent, ChildGap
from tests.fakes.small_sidecar import fake_child
from tests.waiting import PATIENCE_SECONDS, until

A, B = ModelEntry("a"), ModelEntry("b")


class World:
    """A supervised fake child, its config file and the books."""

    def __init__(self, root: Path, session: aiohttp.ClientSession) -> None:
        self.settings = ChildSettings(
            binary=fake_child(root),
            restart_first_delay_seconds=0.05,
            max_instances=2,
            prompt_wait_seconds=PATIENCE_SECONDS,
            health_timeout_seconds=PATIENCE_SECONDS,
        )
        self.supervisor = Supervisor(
            settings=self.settings,
            files=ChildFiles(root / "opencode"),
            session=session,
            relay=lambda: RelayAccess("http://127.0.0.1:9/v1", "token"),
            inherited=os.environ,
            is_busy=self._is_busy,
        )
        self.busy: set[int] = set()
        """The boots that have turns."""
        self.moves: list[tuple[Path, Boot]] = []
        self.config_file = ConfigFile(root / "opencode.json")
        self.poisoned: list[Path] = []
        self.now = 0.0
        self.instances = Instances(
            config_file=self.config_file,
            boot_provider=lambda: self.supervisor.wait_boot(PATIENCE_SECONDS),
            settings=self.settings,
            on_broken_config=self.poisoned.append,
            on_move=self._note_move,
            clock=self._tick,
        )
        self.supervisor.on_lost(lambda boot, _loss: self.instances.forget(boot))

    async def _is_busy(self, boot: Boot, *, with_waiting: bool) -> bool:
        return boot.number in self.busy

    async def _note_move(self, directory: Path, boot: Boot) -> None:
        self.moves.append((directory, boot))

    def _tick(self) -> float:
        self.now += 0.001
        return self.now

    async def tell(self, what: str, body: Any = None) -> None:
        """Use one of the fake's switches."""
        client = await self.supervisor.wait_ready(PATIENCE_SECONDS)
        data = b"" if body is None else json.dumps(body).encode()
        with contextlib.suppress(aiohttp.ClientError):
            (await client.forward("POST", f"/test/{what}", body=data)).close()

    async def calls(self) -> list[str]:
        """Return loads and disposals so far, as `load /d` and `dispose /d`."""
        client = await self.supervisor.wait_ready(PATIENCE_SECONDS)
        async with await client.forward("GET", "/test/calls") as response:
            found = await response.json()
        short = {"GET /mcp": "load", "POST /instance/dispose": "dispose"}
        split = [call.rpartition(" ") for call in found]
        return [f"{short[what]} {where}" for what, _, where in split if what in short]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A running world with model `a`."""
    async with aiohttp.ClientSession() as session:
        made = World(tmp_path, session)
        await made.config_file.register({"a": A})
        await made.supervisor.start()
        await made.supervisor.wait_ready(PATIENCE_SECONDS)
        yield made
        await made.supervisor.stop()


D, E, F = Path("/d"), Path("/e"), Path("/f")


async def test_a_directory_is_loaded_once(world: World) -> None:
    """Uses one after the other, and at the same time, share one load."""

    async def use() -> None:
        async with world.instances.use(D, "a"):
            await asyncio.sleep(0)

    await use()
    await asyncio.gather(use(), use(), use())
    assert await world.calls() == ["load /d"]


async def test_new_models_do_not_touch_who_needs_none(world: World) -> None:
    """A directory whose model is known goes on without reload after the list grew."""
    async with world.instances.use(D, "a"):
        await world.config_file.register({"a": A, "b": B})
    async with world.instances.use(D, "a"):
        pass
    assert await world.calls() == ["load /d"]


async def test_stale_and_idle_is_reloaded(world: World) -> None:
    """A new model in an idle directory costs a dispose and a load, there only."""
    for directory in (D, E):
        async with world.instances.use(directory, "a"):
            pass
    await world.config_file.register({"a": A, "b": B})
    async with world.instances.use(D, "b"):
        pass
    assert await world.calls() == ["load /d", "load /e", "dispose /d", "load /d"]


async def test_changed_entry_is_reloaded_when_idle(world: World) -> None:
    """Other limits of a known model are picked up by an idle directory and ignored by a busy one."""
    changed = {"a": ModelEntry("a", max_input_tokens=5)}
    async with world.instances.use(D, "a"):
        await world.config_file.register(changed)
        async with world.instances.use(D, "a"):
            pass
    assert await world.calls() == ["load /d"]
    async with world.instances.use(D, "a"):
        pass
    assert await world.calls() == ["load /d", "dispose /d", "load /d"]


async def test_stale_and_busy_waits_for_idle(world: World) -> None:
    """A new model in a busy directory waits for the turn there, and never cuts it."""
    entered = asyncio.Event()

    async def newcomer() -> None:
        async with world.instances.use(D, "b"):
            entered.set()

    async with world.instances.use(D, "a"):
        await world.config_file.register({"a": A, "b": B})
        task = asyncio.create_task(newcomer())
        async with world.instances.use(E, "b"):
            pass
        assert "dispose /d" not in await world.calls()
        assert not entered.is_set()
    await task
    assert await world.calls() == ["load /d", "load /e", "dispose /d", "load /d"]


async def test_waiting_for_idle_is_bounded(world: World) -> None:
    """If the directory stays busy the newcomer is refused with a time to come back."""
    instances = Instances(
        config_file=world.config_file,
        boot_provider=lambda: world.supervisor.wait_boot(PATIENCE_SECONDS),
        settings=world.settings.model_copy(update={"prompt_wait_seconds": 0.5}),
    )
    async with instances.use(D, "a"):
        await world.config_file.register({"a": A, "b": B})
        with pytest.raises(ChildUnavailableError) as caught:
            async with instances.use(D, "b"):
                pass
        assert caught.value.retry_after_seconds
    async with instances.use(D, "b"):
        pass


async def test_unregistered_model_is_refused(world: World) -> None:
    """A model that is in no generation of the file is an error, not an endless reload."""
    with pytest.raises(ChildError, match="ghost"):
        async with world.instances.use(D, "ghost"):
            pass
    assert await world.calls() == []


async def test_hook_runs_after_each_load(world: World) -> None:
    """What a dispose drops is put back before the directory is used; a failing hook is tried again."""
    ran: list[ChildClient] = []

    async def hook(client: ChildClient) -> None:
        ran.append(client)
        if len(ran) == 1:
            raise ChildError("no MCP today")

    with pytest.raises(ChildError, match="no MCP"):
        async with world.instances.use(D, "a", on_loaded=hook):
            pass
    for _ in range(2):
        async with world.instances.use(D, "a", on_loaded=hook):
            pass
    assert len(ran) == 2
    assert await world.instances.unload(D)
    async with world.instances.use(D, "a", on_loaded=hook):
        assert len(ran) == 3
        assert not await world.instances.unload(D), "never a busy one"


async def test_longest_idle_is_unloaded_for_a_newcomer(world: World) -> None:
    """At the limit the longest unused directory goes, but never a busy one."""
    async with world.instances.use(D, "a"):
        async with world.instances.use(E, "a"):
            pass
        async with world.instances.use(F, "a"):
            pass
    assert await world.calls() == ["load /d", "load /e", "dispose /e", "load /f"]
    assert world.instances.loaded() == 2


async def test_idle_directories_are_evicted(tmp_path: Path, world: World) -> None:
    """What was unused for the set time is unloaded in the background."""
    instances = Instances(
        config_file=world.config_file,
        boot_provider=lambda: world.supervisor.wait_boot(PATIENCE_SECONDS),
        settings=world.settings.model_copy(update={"idle_dispose_seconds": 0.2}),
    )
    async with instances.use(D, "a"):
        pass
    async with instances.use(E, "a"):
        task = asyncio.create_task(instances.run_eviction())

        async def is_unloaded() -> bool:
            return await world.calls() == ["load /d", "load /e", "dispose /d"]

        await until(is_unloaded)
    await until(lambda: instances.loaded() == 0)
    task.cancel()


async def test_a_new_boot_knows_nothing(world: World) -> None:
    """After a crash every directory is loaded again, without disposing anything first."""
    async with world.instances.use(D, "a"):
        await world.tell("exit")
        await until(lambda: world.supervisor.boot == 2)
        async with world.instances.use(D, "a"):
            pass
    assert await world.calls() == ["load /d"]


async def test_a_directory_stays_with_the_boot_that_works_in_it(world: World) -> None:
    """A directory in use when its boot retires stays in that boot until it is free. Others move to the next
    boot, which first ends what the old one may have left running there."""
    supervisor, instances = world.supervisor, world.instances
    async with instances.use(E, "a"):
        pass
    async with instances.use(D, "a") as old:
        world.busy = {old.number}
        supervisor.request_restart("test")
        await until(lambda: supervisor.retiring is old)
        world.moves.clear()
        new = supervisor.current
        async with instances.use(D, "a") as again, instances.use(E, "a") as elsewhere:
            assert (again, elsewhere) == (old, new)
            assert (instances.boot_of(D), instances.boot_of(E)) == (old, new)
        assert await instances.has_turns(old, but=lambda _directory: False)
        assert not await instances.has_turns(old, but=lambda directory: directory == D)
        assert not await instances.has_turns(new, but=lambda _directory: False)
    assert not await instances.has_turns(old, but=lambda _directory: False)
    async with instances.use(D, "a") as moved:
        assert moved is new
    assert world.moves == [(E, new), (D, new)]
    assert (instances.loaded(old), instances.loaded(new)) == (0, 2)
    assert await world.calls() == ["load /e", "load /d"]
    world.busy = set()
    await until(lambda: supervisor.retiring is None)


async def test_poison_is_reported(world: World) -> None:
    """A load that fails on the config is reported, and the caller may come back."""
    await world.tell("refuse")
    with pytest.raises(ChildUnavailableError):
        async with world.instances.use(D, "a"):
            pass
    assert world.poisoned == [D]


class Listener:
    """A running pump and what it delivered."""

    def __init__(self, world: World, **options: float) -> None:
        self.pump = EventPump(supervisor=world.supervisor, **options)
        self._world = world
        self.events: list[ChildEvent] = []
        self.gaps: list[ChildGap] = []
        self.pump.on_gap(self.gaps.append)
        self.task = asyncio.create_task(self.pump.run())

    def subscribe(
        self, session_id: str, callback: Callable[[ChildEvent], None]
    ) -> Callable[[], None]:
        """Subscribe to a session's events in the current boot."""
        boot = self._world.supervisor.current
        assert boot is not None
        return self.pump.subscribe(boot, session_id, callback)


@contextlib.asynccontextmanager
async def listening(world: World, **options: float) -> AsyncIterator[Listener]:
    """Run a pump for the block."""
    listener = Listener(world, **options)
    await listener.pump.wait_connected(await world.supervisor.wait_boot(PATIENCE_SECONDS))
    yield listener
    listener.task.cancel()
    await asyncio.gather(listener.task, return_exceptions=True)


def _frame(type_: str, session_id: str | None, **properties: Any) -> dict[str, Any]:
    if session_id is not None:
        properties["sessionID"] = session_id
    payload = {"id": "evt_1", "type": type_, "properties": properties}
    return {"directory": "/d", "payload": payload}


async def test_events_reach_their_session_in_order(world: World) -> None:
    """A subscriber gets its own session's events, in order, without durable copies."""
    async with listening(world) as listener:
        unsubscribe = listener.subscribe("ses_1", listener.events.append)
        await world.tell("emit", _frame("message.part.delta", "ses_1", delta="\n\ndata: ✓"))
        await world.tell("emit", _frame("message.part.delta", "ses_other", delta="not mine"))
        await world.tell("emit", _frame("sync", "ses_1"))
        await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: len(listener.events) == 2)
        assert [e.type for e in listener.events] == ["message.part.delta", "session.idle"]
        assert listener.events[0].properties["delta"] == "\n\ndata: ✓"
        assert listener.events[0].directory == "/d"
        unsubscribe()
        seen = listener.pump.events_seen
        await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: listener.pump.events_seen > seen)
        assert len(listener.events) == 2


async def test_subagents_are_delivered_to_the_root(world: World) -> None:
    """Sessions born below a subscribed one, however deep, come to its subscriber under their own id."""
    async with listening(world) as listener:
        listener.subscribe("ses_1", listener.events.append)
        for child, parent in (("ses_2", "ses_1"), ("ses_3", "ses_2"), ("ses_5", "ses_4")):
            await world.tell("emit", _frame("session.created", child, info={"parentID": parent}))
            await world.tell("emit", _frame("session.idle", child))
        await until(lambda: len(listener.events) == 4)
        assert [(e.session_id, e.root_session_id) for e in listener.events] == [
            ("ses_2", "ses_1"),
            ("ses_2", "ses_1"),
            ("ses_3", "ses_1"),
            ("ses_3", "ses_1"),
        ]


async def test_a_failing_subscriber_silences_nobody(world: World) -> None:
    """One callback's exception is logged; the others and the later events are delivered."""

    def fails(_event: ChildEvent) -> None:
        raise RuntimeError("mine")

    async with listening(world) as listener:
        listener.subscribe("ses_1", fails)
        listener.subscribe("ses_1", listener.events.append)
        for _ in range(2):
            await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: len(listener.events) == 2)


async def test_what_is_no_event_is_skipped(world: World) -> None:
    """The stream goes on behind it, without a reconnect."""
    created = _frame("session.created", "ses_2", info={"parentID": {}})
    async with listening(world) as listener:
        listener.subscribe("ses_1", listener.events.append)
        for wrong in (
            [],
            {},
            {"payload": {"type": 5}},
            {"payload": {"type": "x", "properties": 5}},
        ):
            await world.tell("emit", wrong)
        await world.tell("emit", created)
        await world.tell("emit", _frame("session.created", "ses_2", info=None))
        await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: len(listener.events) == 1)
        assert listener.pump.events_dropped == 4
        assert listener.gaps == []


async def test_a_failing_listener_to_gaps_ends_nothing(world: World) -> None:
    """The next one is called, and the events go on."""

    def fails(_gap: ChildGap) -> None:
        raise RuntimeError("mine")

    async with listening(world) as listener:
        listener.pump.on_gap(fails)
        listener.pump.on_gap(listener.gaps.append)
        for count in (2, 4):
            await world.tell("drop")
            await until(lambda: len(listener.gaps) == count)  # noqa: B023  # called at once


async def test_lost_stream_reconnects_and_tells(world: World) -> None:
    """When the stream ends the pump reconnects, and says that events may be missing."""
    async with listening(world) as listener:
        listener.subscribe("ses_1", listener.events.append)
        await world.tell("drop")
        await until(lambda: listener.gaps == [ChildGap(1)])
        await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: len(listener.events) == 1)


async def test_silence_reconnects(world: World) -> None:
    """A stream without heartbeats counts as lost."""
    async with listening(world, silence_seconds=0.5) as listener:
        await world.tell("mute")
        await until(lambda: len(listener.gaps) >= 1)


async def test_the_next_boot_is_followed(world: World) -> None:
    """After a crash the events of the next boot are read; a prompt can wait for exactly that.

    Who follows a session in the boot that is over hears nothing of the next one.
    """
    async with listening(world) as listener:
        older = await world.supervisor.wait_boot(PATIENCE_SECONDS)
        listener.subscribe("ses_1", lambda event: pytest.fail(f"not mine: {event}"))
        await world.tell("exit")
        await until(lambda: world.supervisor.state == "ready" and world.supervisor.boot == 2)
        with pytest.raises(ChildUnavailableError):
            await listener.pump.wait_connected(older)
        await listener.pump.wait_connected(await world.supervisor.wait_boot(PATIENCE_SECONDS))
        listener.subscribe("ses_1", listener.events.append)
        await world.tell("emit", _frame("session.idle", "ses_1"))
        await until(lambda: len(listener.events) == 1)
        assert listener.gaps == []
