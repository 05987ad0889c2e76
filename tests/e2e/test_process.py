"""The program as operators run it: start, signals, crashes, restarts, refusals, and what it must not leak."""

import contextlib
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.fakes.small_sidecar import fake_child
from tests.harness import GATEWAY_KEY, HELD_CALL, http_client, release, text_of, types_of
from tests.raw_client import RawClient, plain
from tests.sidecar_process import (
    SidecarProcess,
    all_gone,
    environments_of,
    processes_of,
    run,
    serving,
)
from tests.waiting import until

KEY = "process-test-key-1e0c7f"


def settings(root: Path, gateway: DemoGateway, **more: str) -> dict[str, str]:
    """Return the environment of a sidecar on the scripted gateway."""
    root.mkdir(exist_ok=True)
    key_file = root / "runtime-key"
    key_file.write_text(f"{KEY}\n")
    return {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(root / "data"),
        "LITELLM_BASE_URL": f"{gateway.url}/v1",
        "LITELLM_API_KEY": GATEWAY_KEY,
        "RUNTIME_API_KEY_FILE": str(key_file),
        "SIDECAR_LOG_FORMAT": "json",
        "SIDECAR_LOG_LEVEL": "debug",
        **more,
    }


@dataclass
class Finished:
    """One whole life: turns, a child restart, SIGTERM in the middle of a turn."""

    exit_code: int
    output: str
    left: list[int]
    data_dir: Path
    environs: dict[int, bytes]
    sidecar_pid: int
    session: str
    streamed: list[dict[str, Any]]


def _with_a_tool(data_dir: Path) -> dict[int, bytes]:
    """Return the environments once the sidecar, opencode and a tool's shell run."""
    found = dict(environments_of(data_dir))
    return found if len(found) >= 3 else {}


@pytest.fixture(scope="module")
async def finished(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Finished]:
    environment = settings(
        tmp_path_factory.mktemp("life"), gateway, SIDECAR_CHILD_DRAIN_SECONDS="120"
    )
    data_dir = Path(environment["DATA_DIR"])
    async with serving(**environment) as sidecar:
        url = await sidecar.url()
        async with http_client(url, KEY) as http:
            raw = RawClient(http)
            session = await raw.new_session()
            await raw.turn(session, "[[bash: env; cat /proc/self/environ; echo $PPID]]")
            failing = await raw.new_session()
            await raw.turn(failing, "[[error: 401]]")
            async with raw.stream(session) as reader:
                await raw.send(session, f"{HELD_CALL} [[then]] [[say: bye]]")
                await reader.until("agent.tool_use")
                environs = await until(lambda: _with_a_tool(data_dir))
                sidecar.send(signal.SIGTERM)
                await sidecar.logged("draining")
                release(data_dir / "workspaces" / session)
                await reader.until("session.status_idle")
                rest = [event async for event in reader._frames]
        code = await sidecar.ended()
        yield Finished(
            code,
            sidecar.output,
            processes_of(data_dir),
            data_dir,
            environs,
            sidecar.process.pid,
            session,
            reader.seen + rest,
        )


async def test_sigterm_lets_the_turn_end_and_exits_with_0(finished: Finished) -> None:
    """A turn that is running at SIGTERM comes to its normal end, its stream closes, the exit code is 0."""
    assert finished.exit_code == 0, finished.output
    assert text_of(finished.streamed) == "bye"
    assert finished.streamed[-1]["type"] == "session.status_idle"
    assert finished.streamed[-1]["stop_reason"] == {"type": "end_turn"}


async def test_sigterm_leaves_no_process(finished: Finished) -> None:
    """Neither opencode nor a command of its tools is left."""
    assert len(finished.environs) >= 3, "the sidecar, opencode and the tool's shell were there"
    assert finished.left == []


async def test_sigterm_checkpoints_the_store(finished: Finished) -> None:
    """The WAL is merged into the file, which is sound and has the whole turn."""
    wal = finished.data_dir / "sidecar.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    with closing(sqlite3.connect(finished.data_dir / "sidecar.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (last,) = connection.execute(
            "SELECT type FROM events WHERE session_id = ? ORDER BY seq DESC LIMIT 1",
            (finished.session,),
        ).fetchone()
    assert last == "session.status_idle"


async def test_no_secret_in_the_log(finished: Finished) -> None:
    """At level debug neither the gateway's key nor ours is in any line."""
    assert finished.output.count("\n") > 10
    for secret in (KEY, GATEWAY_KEY):
        assert secret not in finished.output


async def test_no_secret_in_the_data_dir(finished: Finished) -> None:
    """No file below the data dir holds a key, not even what the agent's own `env` printed."""
    files = [path for path in finished.data_dir.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for secret in (KEY, GATEWAY_KEY):
            assert secret.encode() not in content, path


async def test_no_secret_in_the_childs_environment(finished: Finished) -> None:
    """opencode and its tools get neither key; only the sidecar itself knows the gateway's."""
    children = {pid: e for pid, e in finished.environs.items() if pid != finished.sidecar_pid}
    assert children
    for environ in children.values():
        assert KEY.encode() not in environ
        assert GATEWAY_KEY.encode() not in environ
        assert b"LITELLM_API_KEY" not in environ
        assert b"RUNTIME_API_KEY" not in environ


async def test_files_of_the_data_dir_are_private(finished: Finished) -> None:
    """The directory and the database are closed to other users."""
    assert finished.data_dir.stat().st_mode & 0o077 == 0
    assert (finished.data_dir / "sidecar.db").stat().st_mode & 0o077 == 0


async def test_a_restart_needs_only_the_data_dir(finished: Finished, gateway: DemoGateway) -> None:
    """Started again on the same directory: session and history are there, the next turn remembers."""
    root = finished.data_dir.parent
    async with serving(**settings(root, gateway)) as sidecar:
        async with http_client(await sidecar.url(), KEY) as http:
            raw = RawClient(http)
            before = await raw.events(finished.session)
            assert before[-len(finished.streamed) :] == finished.streamed
            assert await raw.status(finished.session) == "idle"
            turn = await raw.turn(finished.session, "[[say: I remember]]")
            assert text_of(turn) == "I remember"
            last = next(
                r for r in reversed(gateway.requests) if r.path.endswith("/chat/completions")
            )
            assert "free" in str(last.body["messages"])
            assert (await raw.events(finished.session))[: len(before)] == before
        sidecar.send(signal.SIGTERM)
        assert await sidecar.ended() == 0, sidecar.output


async def test_sigkill_leaves_no_opencode_and_the_turn_is_settled_at_the_next_start(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """The sidecar is killed in a tool: opencode dies with it; the next start ends the turn, then serves."""
    environment = settings(tmp_path, gateway)
    data_dir = Path(environment["DATA_DIR"])
    async with serving(**environment) as sidecar:
        async with http_client(await sidecar.url(), KEY) as http:
            raw = RawClient(http)
            session = await raw.new_session()
            async with raw.stream(session) as reader:
                await raw.send(session, "[[bash: sleep 300]]")
                await reader.until("agent.tool_use")
                await raw.send(session, "[[say: I was queued]]")
                child = sidecar.entries("child started")[0]["pid"]
                sidecar.send(signal.SIGKILL)
                await sidecar.ended()
        await until(lambda: not Path(f"/proc/{child}/exe").exists())

    async with serving(**environment) as sidecar:
        async with http_client(await sidecar.url(), KEY) as http:
            raw = RawClient(http)
            async with raw.stream(session) as reader:
                if not plain(await raw.events(session), "agent.message"):
                    await reader.until("agent.message")
                    await reader.until("session.status_idle")
            events = await raw.events(session)
            first_end = types_of(events).index("session.status_idle")
            cut = events[: first_end + 1]
            assert plain(cut, "agent.tool_result")[0]["is_error"] is True
            assert len(plain(cut, "session.error")) == 1
            assert cut[-1]["stop_reason"] == {"type": "retries_exhausted"}
            assert text_of(events[first_end + 1 :]) == "I was queued"
            assert types_of(events).count("session.status_idle") == 2
        sidecar.send(signal.SIGTERM)
        assert await sidecar.ended() == 0
    await all_gone(data_dir)


async def test_sigterm_while_opencode_starts_keeps_the_message_for_the_next_start(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """A prompt that opencode never saw survives SIGTERM unharmed and is answered after the restart."""
    environment = settings(tmp_path, gateway, SIDECAR_CHILD_DRAIN_SECONDS="0.5")
    never_ready = {
        "SIDECAR_CHILD_BINARY": str(fake_child(tmp_path, "child_never_ready.py")),
        "SIDECAR_CONFINEMENT": "off",  # the fake is a program of the tests
    }
    async with (
        serving(**environment, **never_ready) as sidecar,
        http_client(await sidecar.url(), KEY) as http,
    ):
        raw = RawClient(http)
        await _catalogue_there(raw)
        session = await raw.new_session()
        await raw.send(session, "[[say: late but there]]")
        sidecar.send(signal.SIGTERM)
        assert await sidecar.ended() == 0, sidecar.output
    assert processes_of(Path(environment["DATA_DIR"])) == []
    async with serving(**environment) as sidecar, http_client(await sidecar.url(), KEY) as http:
        raw = RawClient(http)
        async with raw.stream(session) as reader:
            turn = await reader.until("session.status_idle")
    assert text_of(turn) == "late but there"
    assert "session.error" not in types_of(turn)


async def test_interrupts_and_sigterm_do_not_wait_for_an_opencode_that_hangs(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Both interrupts are accepted, the exit code is 0, and every turn has one end, also one that was not
    interrupted."""
    environment = settings(
        tmp_path,
        gateway,
        SIDECAR_CHILD_DRAIN_SECONDS="0.5",
        SIDECAR_TURN_INTERRUPT_WAIT_SECONDS="0.1",
    )
    async with serving(**environment) as sidecar, http_client(await sidecar.url(), KEY) as http:
        raw = RawClient(http)
        await sidecar.logged("child ready")
        child = sidecar.entries("child started")[-1]["pid"]
        interrupted, other = await raw.new_session(), await raw.new_session()
        for session in (interrupted, other):
            async with raw.stream(session) as reader:
                await raw.send(session, "[[slow: 600x0.1 s]]")
                await reader.until("span.model_request_start")
        os.kill(child, signal.SIGSTOP)
        for _ in range(2):
            await raw.interrupt(interrupted)
        sidecar.send(signal.SIGTERM)
        assert await sidecar.ended() == 0, sidecar.output
        _, trace, rest = sidecar.output.partition("Traceback")
        assert not trace, rest[:4000]
    await all_gone(Path(environment["DATA_DIR"]))
    async with serving(**environment) as sidecar, http_client(await sidecar.url(), KEY) as http:
        raw = RawClient(http)
        ended = await raw.events(interrupted)
        assert types_of(ended).count("user.interrupt") == 2
        assert ended[-1]["stop_reason"] == {"type": "end_turn"}
        cut = await raw.events(other)
        assert cut[-1]["stop_reason"] == {"type": "retries_exhausted"}
        for events in (ended, cut):
            check_events(events)
            assert types_of(events).count("session.status_idle") == 1


async def _catalogue_there(raw: RawClient) -> None:
    assert (await raw.call("GET", "/v1/models?refresh=true"))["data"]


async def test_a_missing_opencode_is_one_clear_sentence(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Without the binary the program says what to do and exits with an error, without a stack trace."""
    environment = settings(tmp_path, gateway, SIDECAR_CHILD_BINARY=str(tmp_path / "nowhere"))
    code, output = await run(**environment)
    assert code == 2
    assert f"SIDECAR_CHILD_BINARY: {tmp_path}/nowhere cannot be used" in output
    assert "Traceback" not in output


async def test_an_occupied_port_is_one_clear_sentence(gateway: DemoGateway, tmp_path: Path) -> None:
    """The port is taken: one line that names it, exit code 2."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        code, output = await run(**settings(tmp_path, gateway, PORT=str(port)))
    assert code == 2
    assert f"PORT: cannot listen on 127.0.0.1:{port}" in output
    assert "Traceback" not in output
    assert processes_of(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"SIDECAR_HTTP_BODY_LIMIT": "5"}, "SIDECAR_HTTP_BODY_LIMIT_BYTES"),
        ({"SIDECAR_GATEWAY_REFRESH_SECOND": "5"}, "SIDECAR_GATEWAY_REFRESH_SECONDS"),
        ({"PORT": "eighty"}, "PORT"),
        ({"PORT": "70000"}, "PORT"),
        ({"LITELLM_BASE_URL": "gateway:4000"}, "http://"),
        ({"SIDECAR_TURN_MAX_SECONDS": "0"}, "SIDECAR_TURN_MAX_SECONDS"),
        ({"RUNTIME_API_KEY": "a-second-key"}, "RUNTIME_API_KEY_FILE"),
        ({"RUNTIME_API_KEY_FILE": "/nowhere/key"}, "/nowhere/key"),
        ({"HOST": "0.0.0.0", "RUNTIME_API_KEY_FILE": ""}, "RUNTIME_API_KEY"),
        ({"DATA_DIR": "/proc/nothing"}, "DATA_DIR"),
        ({"DB_PATH": "/proc/nothing/x.db"}, "DB_PATH"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
async def test_settings_that_cannot_be_used(
    gateway: DemoGateway, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    """Each stops the start with exit code 2 and one line that names the variable and the fix."""
    code, output = await run(**settings(tmp_path, gateway) | change)
    assert code == 2, output
    complaint = [line for line in output.splitlines() if line.startswith("opencode-sidecar: ")]
    assert len(complaint) == 1, output
    assert says in complaint[0]
    assert "Traceback" not in output


async def test_without_a_key_only_loopback_is_bound(tmp_path: Path) -> None:
    """No key and no HOST: the sidecar serves, on 127.0.0.1 only, with the demo gateway announced."""
    environment = {"PORT": "0", "DATA_DIR": str(tmp_path / "data"), "SIDECAR_LOG_FORMAT": "json"}
    async with serving(**environment) as sidecar:
        url = await sidecar.url()
        assert url.startswith("http://127.0.0.1:")
        assert _listening_addresses(sidecar) == {"0100007F"}
        async with aiohttp.ClientSession(url) as http, http.get("/health") as response:
            assert (await response.json())["gateway"]["demo"] is True
        assert any("demo gateway" in line for line in sidecar.lines)
        sidecar.send(signal.SIGTERM)
        assert await sidecar.ended() == 0


def _listening_addresses(sidecar: SidecarProcess) -> set[str]:
    """Return the local addresses (hex, as the kernel writes them) the process itself listens on."""
    home = Path(f"/proc/{sidecar.process.pid}")
    links = []
    for fd in (home / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(str(fd.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [line.split() for line in (home / "net/tcp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}
