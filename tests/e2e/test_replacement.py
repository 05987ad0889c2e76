"""opencode is replaced while turns run: they end in the process they began in, new ones are in the next."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from sidecar.opencode.boot import Boot
from tests.event_rules import check_events
from tests.fakes.gate import Gate
from tests.harness import (
    GATEWAY_KEY,
    HELD_CALL,
    http_client,
    make_settings,
    release,
    sidecar_for,
    text_of,
    types_of,
)
from tests.raw_client import EventReader, RawClient, plain
from tests.waiting import PATIENCE_SECONDS, until

HELD = f"{HELD_CALL} [[then]] [[say: it went on]]"
"""A turn that goes on when the test lets it."""
WORD = {
    "type": "custom",
    "name": "look_up",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


class Site:
    """A sidecar with the real opencode, whose sessions' directories the test sees."""

    def __init__(self, sidecar: RunningSidecar, raw: RawClient, workspaces: Path) -> None:
        self.sidecar = sidecar
        self.supervisor = sidecar.supervisor
        self.raw = raw
        self._workspaces = workspaces.resolve()

    @property
    def number(self) -> int:
        """The boot that takes new turns, 0 while there is none."""
        return self.supervisor.current.number if self.supervisor.current is not None else 0

    def boot_of(self, session: str) -> Boot | None:
        """The boot that has the session."""
        return self.sidecar.instances.boot_of(self._workspaces / session)

    def release(self, session: str) -> None:
        """Let a held turn go on."""
        release(self._workspaces / session)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[tuple[str, EventReader]]:
        """Begin a held turn in a new session; give its stream."""
        session = await self.raw.new_session()
        async with self.raw.stream(session) as reader:
            await self.raw.send(session, HELD)
            await reader.until("agent.tool_use")
            yield session, reader

    async def replace(self) -> Boot:
        """Have opencode replaced by an operator; return the boot that retires."""
        old = self.supervisor.current
        assert old is not None
        assert self.sidecar.admin_url is not None
        async with (
            http_client(self.sidecar.admin_url) as admin,
            admin.post("/admin/restart", json={"reason": "a test"}) as answer,
        ):
            assert answer.status == 202
        await until(lambda: self.number > old.number)
        return old


@asynccontextmanager
async def site_for(gateway: DemoGateway, tmp_path: Path, **child: Any) -> AsyncIterator[Site]:
    settings = make_settings(
        tmp_path,
        gateway.url,
        child={"restart_first_delay_seconds": 0.2, "drain_seconds": PATIENCE_SECONDS, **child},
    )
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        yield Site(sidecar, RawClient(http), settings.storage.workspaces_dir)


async def ends_whole(reader: EventReader, text: str) -> None:
    """Read to the end of a turn: nothing was cut."""
    await reader.until("session.status_idle")
    assert "session.error" not in types_of(reader.seen), plain(reader.seen, "session.error")
    assert text in text_of(reader.seen)


async def is_cut(reader: EventReader, words: str) -> None:
    """Read to the end of a turn: it was cut, once, with an honest reason."""
    await reader.until("session.status_idle")
    (error,) = plain(reader.seen, "session.error")
    assert words in error["error"]["message"]


async def test_a_restart_in_mid_turn_cuts_nothing(tmp_path: Path) -> None:
    """A command, a text that streams and a call that waits for its client end whole in the old process.

    A session without a turn goes on in the new one at once, the others after their turn, each with its
    conversation and its shell.
    """
    gate = Gate()
    gateway = DemoGateway(key=GATEWAY_KEY, sleep=gate)
    await gateway.start()
    async with site_for(gateway, tmp_path) as site:
        raw, supervisor = site.raw, site.supervisor
        idle = await raw.new_session()
        await raw.turn(
            idle, "[[bash: sleep 600 >/dev/null 2>&1 & echo quince]] [[then]] [[say: marzipan]]"
        )
        asking = await raw.new_session(tools=[WORD])
        slow = await raw.new_session()
        async with (
            site.held() as (held, held_reader),
            raw.stream(asking) as asking_reader,
            raw.stream(slow) as slow_reader,
        ):
            await raw.send(asking, '[[tool: look_up {"word": "fig"}]] [[then]] [[say: a fruit]]')
            (call,) = plain(
                await asking_reader.until("session.status_idle"), "agent.custom_tool_use"
            )
            await raw.send(slow, "[[slow: 20x0.1 tick]]")
            await slow_reader.until("span.model_request_start")
            old = await site.replace()
            assert supervisor.retiring is old

            turn = await raw.turn(idle, "[[bash: echo pear]] [[then]] [[say: goes on]]")
            assert text_of(turn) == "goes on"
            assert "pear" in str(plain(turn, "agent.tool_result"))
            asked = next(r for r in reversed(gateway.requests) if "goes on" in str(r.body))
            assert "marzipan" in str(asked.body["messages"])
            assert [site.boot_of(s) for s in (held, asking, slow)] == [old] * 3
            assert site.boot_of(idle) is supervisor.current

            content = [{"type": "text", "text": "it is one"}]
            answer = {"type": "user.custom_tool_result", "custom_tool_use_id": call["id"]}
            await raw.send_events(asking, {**answer, "content": content})
            await ends_whole(asking_reader, "a fruit")
            gate.open()
            await ends_whole(slow_reader, "tick20")
            assert supervisor.retiring is old
            site.release(held)
            await ends_whole(held_reader, "it went on")
        await until(lambda: supervisor.retiring is None)
        assert supervisor.last_exit is not None
        assert (supervisor.last_exit.boot, supervisor.last_exit.reason) == (1, "a test")
        assert list(supervisor.pids) == [supervisor.pid]
        for session in (held, asking, slow):
            assert text_of(await raw.turn(session, "[[say: here]]")) == "here"
            assert site.boot_of(session) is supervisor.current
            check_events(await raw.events(session))
    await gateway.close()


@pytest.mark.timeout(900)
async def test_memory_limits_are_kept_under_load_without_a_cut(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """A limit that every process exceeds: it is replaced again and again, in the midst of turns."""
    limits = {"max_rss_bytes": 1, "health_interval_seconds": 0.5}
    async with site_for(gateway, tmp_path, **limits) as site:

        async def work() -> None:
            session = await site.raw.new_session()
            number = 0
            while site.number < 3:
                number += 1
                text = f"[[bash: sleep 1; echo {number}]] [[then]] [[say: done {number}]]"
                turn = await site.raw.turn(session, text)
                assert "session.error" not in types_of(turn), plain(turn, "session.error")
                assert text_of(turn) == f"done {number}"

        async with asyncio.timeout(800):
            await asyncio.gather(*(work() for _ in range(4)))
        assert site.supervisor.overdue == 0


async def test_a_retiring_process_that_dies_costs_its_own_turns(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Those of the current one go on; the session whose turn was cut goes on there, too."""
    async with site_for(gateway, tmp_path) as site, site.held() as (lost, lost_reader):
        old = await site.replace()
        async with site.held() as (kept, kept_reader):
            assert old.pid is not None
            os.kill(old.pid, signal.SIGKILL)
            await is_cut(lost_reader, "opencode stopped unexpectedly")
            assert site.boot_of(kept) is site.supervisor.current
            site.release(kept)
            await ends_whole(kept_reader, "it went on")
        assert text_of(await site.raw.turn(lost, "[[say: here]]")) == "here"
        assert site.number == 2


async def test_a_current_process_that_dies_costs_its_own_turns(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Those of the retiring one go on, and new ones wait for the next."""
    async with site_for(gateway, tmp_path) as site, site.held() as (kept, kept_reader):
        old = await site.replace()
        async with site.held() as (lost, lost_reader):
            assert site.supervisor.pid is not None
            os.kill(site.supervisor.pid, signal.SIGKILL)
            await is_cut(lost_reader, "opencode stopped unexpectedly")
        assert text_of(await site.raw.turn(lost, "[[say: here]]")) == "here"
        assert site.number == 3
        assert site.boot_of(kept) is old
        site.release(kept)
        await ends_whole(kept_reader, "it went on")


async def test_the_end_of_the_sidecar_waits_for_both(gateway: DemoGateway, tmp_path: Path) -> None:
    """Turns of both have the drain's time, and no process is left."""
    async with site_for(gateway, tmp_path) as site, site.held() as (first, _):
        await site.replace()
        async with site.held() as (second, _):
            pids = list(site.supervisor.pids)
            asyncio.get_running_loop().call_later(1.0, site.release, first)
            asyncio.get_running_loop().call_later(2.0, site.release, second)
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)
    async with site_for(gateway, tmp_path) as site:
        for session in (first, second):
            events = await site.raw.events(session)
            assert "session.error" not in types_of(events)
            assert text_of(events) == "it went on"


async def test_a_spare_takes_over(gateway: DemoGateway, tmp_path: Path) -> None:
    """When opencode dies the next prompt is answered by a process that was there already."""
    async with site_for(gateway, tmp_path, spare=True) as site:
        session = await site.raw.new_session()
        await site.raw.turn(session, "[[say: marzipan]]")
        await until(lambda: len(site.supervisor.pids) == 2)
        await until(lambda: getattr(site.supervisor, "_spare", None) is not None)
        assert site.supervisor.pid is not None
        spare = next(pid for pid in site.supervisor.pids if pid != site.supervisor.pid)
        os.kill(site.supervisor.pid, signal.SIGKILL)
        assert text_of(await site.raw.turn(session, "[[say: here]]")) == "here"
        assert site.supervisor.pid == spare
