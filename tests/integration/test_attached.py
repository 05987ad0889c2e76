"""Watching an attached opencode, with a small program in its place."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from sidecar.config import ChildSettings
from sidecar.errors import ChildUnavailableError, SettingsError
from sidecar.opencode.attached import AttachedChild
from sidecar.opencode.boot import Boot
from sidecar.opencode.child import State
from sidecar.processes import orphans
from tests.harness import make_settings, sidecar_for
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, patience, until

MARKER = "marker-of-the-attached-tests"
PROGRAM = Path(__file__).parents[1] / "fakes" / "child_healthy.py"


@contextmanager
def platform_runs(
    port: int, *, is_marked: bool = False, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The platform runs it, with the environment that we asked for or without."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "serve", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        env=os.environ | ({orphans.MARKER_VARIABLE: MARKER} if is_marked else {}) | environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Watch:
    """An attached child, and the states it went through."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        port: int,
        *,
        must_be_confined: bool = False,
        **settings: object,
    ) -> None:
        self.port = port
        self.session = session
        self.is_busy = False
        self.states: list[tuple[State, int]] = []
        self.child = AttachedChild(
            settings=ChildSettings(
                url=f"http://127.0.0.1:{port}",
                password=SecretStr("password"),
                **({"health_timeout_seconds": PATIENCE_SECONDS} | settings),  # type: ignore[arg-type]  # test values
            ),
            session=session,
            marker=MARKER,
            is_busy=self._is_asked,
            must_be_confined=must_be_confined,
        )
        self.child.on_state_change(lambda state, boot: self.states.append((state, boot)))

    async def _is_asked(self, _boot: Boot, *, with_waiting: bool) -> bool:
        assert not with_waiting
        return self.is_busy

    async def until(self, state: State, boot: int) -> None:
        """Wait until it was in that state in that boot."""
        await until(lambda: (state, boot) in self.states)

    def look(self) -> AttachedChild:
        """Have it looked at; return it."""
        self.child.suspect()
        return self.child

    async def switch(self, name: str) -> None:
        """Change the program's behaviour."""
        async with self.session.post(
            f"http://127.0.0.1:{self.port}/test/{name}", headers={"authorization": "x"}
        ) as answer:
            assert answer.status == 200

    async def calls(self) -> list[str]:
        """Return what it was asked but its health."""
        async with self.session.get(
            f"http://127.0.0.1:{self.port}/test/calls", headers={"authorization": "x"}
        ) as answer:
            calls: list[str] = await answer.json()
            return calls


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_it_may_come_later_than_we_do(session: aiohttp.ClientSession) -> None:
    """Before it is there prompts are refused for a while; once it is, what it still did is aborted."""
    watch = Watch(session, free_port())
    await watch.child.start()
    with pytest.raises(ChildUnavailableError, match="starting"):
        await watch.child.wait_ready(0.2)
    with platform_runs(watch.port):
        client = await watch.child.wait_ready(PATIENCE_SECONDS)
        assert watch.child.version == "fake"
        assert await client.mcp_status(Path("/x")) == {}
        assert (await watch.calls())[0] == "POST /global/dispose"
        await watch.child.stop()
        assert (await watch.calls())[-1] == "POST /global/dispose"
    assert watch.states[-1][0] == "stopped"


async def test_a_new_process_is_a_new_boot(session: aiohttp.ClientSession) -> None:
    """A broken stream makes it look at once; refused connections are the end, an answer the next boot."""
    watch = Watch(session, free_port())
    await watch.child.start()
    with platform_runs(watch.port):
        old = await watch.child.wait_ready(PATIENCE_SECONDS)
        watch.child.suspect()
        assert await watch.child.wait_ready(PATIENCE_SECONDS) is old
    watch.child.suspect()
    await watch.until("backing_off", 1)
    assert watch.child.last_exit is not None
    assert watch.child.last_exit.reason == "exited"
    with platform_runs(watch.port):
        await watch.until("ready", 2)
        assert watch.child.client is not old
        await watch.child.stop()


async def test_silence_asks_for_a_restart(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    """One that does not answer is degraded, then the command is run, which ends it."""
    watch = Watch(
        session,
        free_port(),
        health_timeout_seconds=0.5,
        restart_command=f"touch {tmp_path / 'asked'}",
    )
    await watch.child.start()
    with platform_runs(watch.port):
        await watch.until("ready", 1)
        await watch.switch("hang")
        await watch.until("degraded", 1)
        await watch.until("stopping", 1)
        watch.child.suspect()
        await until((tmp_path / "asked").exists)
        assert watch.child.last_exit is not None
        assert watch.child.last_exit.reason == "no answer to health checks"
        await watch.child.stop()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (None, "the platform's business"),
        ("/no/such/program", "No such file"),
        ("sh -c 'echo not allowed; exit 3'", "status 3: not allowed"),
        ("'unbalanced", "No closing quotation"),
    ],
)
async def test_a_restart_that_nobody_can_give(
    session: aiohttp.ClientSession, command: str | None, words: str
) -> None:
    """It waits for idle; without a command that works the state is failed, for a reason in words."""
    watch = Watch(session, free_port(), restart_command=command)
    await watch.child.start()
    with platform_runs(watch.port):
        await watch.until("ready", 1)
        watch.is_busy = True
        watch.child.request_restart("leak")
        watch.child.suspect()
        assert watch.child.restart_pending == "leak"
        assert watch.child.state == "ready"
        watch.is_busy = False
        watch.child.suspect()
        async with patience():
            await watch.child.failed.wait()
    assert "leak" in watch.child.failure
    assert words in watch.child.failure
    await watch.child.stop()
    assert watch.child.state == "failed"


async def test_its_process_is_known(session: aiohttp.ClientSession) -> None:
    """The kernel says which process answers: its memory is looked at, and its end is noticed unasked."""
    watch = Watch(session, free_port(), health_interval_seconds=0.1)
    await watch.child.start()
    with platform_runs(watch.port, is_marked=True) as process:
        await watch.child.wait_ready(PATIENCE_SECONDS)
        assert watch.child.pid == process.pid
        assert watch.child.pid_unknown_because == ""
        await until(lambda: watch.look().process_stats)
        assert watch.child.process_stats.rss_bytes > 1_000_000
        assert watch.child.process_stats.maps > 10
        process.kill()
        await watch.until("backing_off", 1)
    assert (watch.child.pid, watch.child.process_stats) == (None, None)
    await watch.child.stop()


async def test_a_process_without_our_environment_is_not_trusted(
    session: aiohttp.ClientSession,
) -> None:
    """It is used, but nothing that leans on knowing it; the reason is there for people."""
    watch = Watch(session, free_port())
    await watch.child.start()
    with platform_runs(watch.port):
        await watch.child.wait_ready(PATIENCE_SECONDS)
        assert watch.child.pid is None
        assert "child-env" in watch.child.pid_unknown_because
        await watch.child.stop()


@pytest.mark.parametrize(
    ("limit", "reason"), [("max_rss_bytes", "resident size"), ("max_maps", "memory maps")]
)
async def test_too_much_memory_ends_it_when_idle(
    session: aiohttp.ClientSession, limit: str, reason: str
) -> None:
    """Above a limit it is ended as soon as no turn runs, and what the platform starts is the next boot."""
    watch = Watch(session, free_port(), health_interval_seconds=0.1, **{limit: 1})
    watch.is_busy = True
    await watch.child.start()
    with platform_runs(watch.port, is_marked=True) as process:
        await watch.until("ready", 1)
        await until(lambda: watch.look().restart_pending)
        assert process.poll() is None
        watch.is_busy = False
        watch.child.suspect()
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == -15
        await watch.until("starting", 1)
    assert watch.child.last_exit is not None
    assert reason in watch.child.last_exit.reason
    watch.is_busy = True
    with platform_runs(watch.port, is_marked=True):
        await watch.until("ready", 2)
        await watch.child.stop()


async def test_where_confinement_is_required_it_has_to_be_seen(
    session: aiohttp.ClientSession,
) -> None:
    """Only an opencode whose launcher gave its shells their rules is used; for another the error says so."""
    watch = Watch(session, free_port(), must_be_confined=True)
    with platform_runs(watch.port, is_marked=True):
        await watch.child.start()
        async with patience():
            await watch.child.failed.wait()
    assert "SIDECAR_CONFINED_BY" in watch.child.failure
    watch = Watch(session, free_port(), must_be_confined=True)
    with platform_runs(watch.port, is_marked=True, SIDECAR_SHELL_RULES="rules"):
        await watch.child.start()
        await watch.child.wait_ready(PATIENCE_SECONDS)
        await watch.child.stop()


async def test_shells_do_not_outlive_it(session: aiohttp.ClientSession) -> None:
    """At its end what our plug-in marked is killed; an opencode that is back already is not."""
    watch = Watch(session, free_port())
    await watch.child.start()
    shell, next_boot = (
        subprocess.Popen(["sleep", "60"], env={variable: MARKER})
        for variable in (orphans.SHELL_MARKER_VARIABLE, orphans.MARKER_VARIABLE)
    )
    try:
        with platform_runs(watch.port, is_marked=True) as process:
            await watch.until("ready", 1)
            assert await asyncio.to_thread(shell.wait, PATIENCE_SECONDS) == -9, "of an earlier run"
            shell = subprocess.Popen(["sleep", "60"], env={orphans.SHELL_MARKER_VARIABLE: MARKER})
            process.kill()
            assert await asyncio.to_thread(shell.wait, PATIENCE_SECONDS) == -9
        await watch.child.stop()
        assert next_boot.poll() is None
    finally:
        shell.kill()
        next_boot.kill()


async def test_a_wrong_password_is_no_question_of_time(session: aiohttp.ClientSession) -> None:
    """Refused credentials end the attempts at once."""

    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/global/health", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    watch = Watch(session, runner.addresses[0][1])
    await watch.child.start()
    async with patience():
        await watch.child.failed.wait()
    assert "OPENCODE_SERVER_PASSWORD" in watch.child.failure
    await watch.child.stop()
    await runner.cleanup()


@pytest.mark.parametrize("taken", ["plugin", "cwd"])
async def test_no_place_for_its_files_is_one_clear_sentence(tmp_path: Path, taken: str) -> None:
    """It names the path and the fix, as for every other directory that cannot be made."""
    (tmp_path / "opencode").mkdir()
    (tmp_path / "opencode" / taken).write_text("somebody's")
    child = {"url": "http://127.0.0.1:9", "password": SecretStr("password")}
    settings = make_settings(tmp_path, "http://127.0.0.1:9", child=child)
    with pytest.raises(SettingsError, match=rf"DATA_DIR: cannot make .*/opencode/{taken}"):
        async with sidecar_for(settings, is_ready=False):
            pass
