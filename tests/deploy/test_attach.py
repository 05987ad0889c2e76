"""Attach mode in container-like places, as the overlay `attached` has it, and without a shared process
namespace."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from sidecar.opencode.environment import ChildFiles
from tests.deploy.container import Container, run_once, started
from tests.deploy.image import Image
from tests.deploy.test_k8s import sidecar_of
from tests.harness import http_client, text_of
from tests.ports import free_port
from tests.raw_client import RawClient, plain
from tests.waiting import patience, until

KEY = "runtime-key-of-the-attach-test"
CONFINED = Path(__file__).with_name("confined.sh")
PRYING_AGENT = Path(__file__).parents[1] / "fakes" / "prying_agent.py"
IMPOSTOR = Path(__file__).parents[1] / "fakes" / "child_healthy.py"
PYTHON = Path(sys.base_prefix, "bin", "python3")
OWN_NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
USER = 10001


@dataclass(frozen=True)
class Pod:
    """Two containers of one image."""

    sidecar: Container
    opencode: subprocess.Popen[bytes]
    data_dir: Path
    port: int

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[RawClient]:
        """Connect a client."""
        async with http_client(self.sidecar.url, KEY) as http:
            yield RawClient(http)

    async def state(self) -> dict[str, Any]:
        """Return what the sidecar says of opencode."""
        url = f"http://127.0.0.1:{self.sidecar.environment['SIDECAR_ADMIN_PORT']}"
        async with http_client(url, KEY) as http, http.get("/admin/state") as answer:
            state: dict[str, Any] = (await answer.json())["opencode"]
            return state

    async def session(self, raw: RawClient, value: str) -> str:
        """Return a session whose vault has the variable DEPLOY_KEY."""
        model = (await raw.call("GET", "/v1/models"))["data"][0]["id"]
        vault_id = (await raw.call("POST", "/v1/vaults", {"display_name": "v"}))["id"]
        auth = {"type": "environment_variable", "secret_name": "DEPLOY_KEY", "secret_value": value}
        await raw.call("POST", f"/v1/vaults/{vault_id}/credentials", {"auth": auth})
        return await raw.new_session(model=model, vault_ids=[vault_id])


async def run(raw: RawClient, session: str, command: str) -> str:
    """Have the agent run a command; return what it printed."""
    turn = await raw.turn(session, f"[[bash: {command}]] [[then]] [[say: done]]")
    assert text_of(turn) == "done"
    (result,) = plain(turn, "agent.tool_result")
    return "".join(block["text"] for block in result["content"])


@contextmanager
def shared_namespace() -> Iterator[list[str]]:
    """Make a process namespace with a process 1 that does nothing, like a pod's; yield what enters it."""
    with subprocess.Popen([*OWN_NAMESPACE, "sleep", "infinity"]) as outside:
        try:
            while not (below := psutil.Process(outside.pid).children()):
                os.sched_yield()
            yield ["nsenter", f"--pid=/proc/{below[0].pid}/ns/pid", "unshare", "--mount"]
        finally:
            outside.kill()  # and the kernel everything in it


def _environment() -> dict[str, str]:
    """Return what the overlay gives the sidecar, without a gateway: the demo one answers then."""
    _, sidecar = sidecar_of("attached")
    given = {item["name"]: item.get("value", f"the-{item['name']}") for item in sidecar["env"]}
    return {**given, "RUNTIME_API_KEY": KEY, "LITELLM_API_KEY": ""}


def _placed(text: str, places: Mapping[str, str]) -> str:
    for place, here in places.items():
        text = text.replace(place, here)
    return text


@asynccontextmanager
async def pod_of(image: Image, enter: Sequence[str], **settings: str) -> AsyncIterator[Pod]:
    """Run the image twice: as opencode, and as a sidecar that is attached to it."""
    if os.geteuid() != 0:
        pytest.fail("this test makes namespaces: run `make deploy-check` as root")
    with tempfile.TemporaryDirectory(prefix="pod-") as folder:
        data = Path(folder, "data")
        (data / "opencode" / "cwd").mkdir(parents=True)
        shutil.copy(IMPOSTOR, data)
        for path in (data, *data.rglob("*")):
            os.chown(path, USER, USER)
        before = [*enter, str(CONFINED), str(image.prefix), sys.base_prefix, str(data)]
        port = free_port()
        places = {"/data": str(data), "/handover": str(data), "4096": str(port)}
        variables = {
            **{name: _placed(value, places) for name, value in _environment().items()},
            "SIDECAR_RELAY_PORT": str(free_port()),
            "SIDECAR_ADMIN_PORT": str(free_port()),
            "SIDECAR_CHILD_HEALTH_INTERVAL_SECONDS": "1",
            # In the image all programs are below /opt and /usr.
            "SIDECAR_CONFINEMENT_READABLE": f"{image.prefix},{sys.base_prefix}",
            **settings,
        }
        own = {"PATH": os.environ["PATH"]} | image.environment | {"DATA_DIR": str(data)}
        child_env, opencode = (
            [*before, *(_placed(word, places) for word in image.mapped(container["command"]))]
            for container in sidecar_of("attached")[0]["spec"]["initContainers"]
        )
        code, printed = await run_once(child_env, {**own, **variables})
        assert code == 0, printed
        assert "the-" not in printed, "a secret"
        with data.with_name("opencode.log").open("wb") as log:
            process = subprocess.Popen(opencode, env=own, stdout=log, stderr=subprocess.STDOUT)
        try:
            async with started(image, data, variables=variables, before=before) as sidecar:
                yield Pod(sidecar, process, data, port)
        finally:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.wait(10)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sharing(image: Image) -> AsyncIterator[Pod]:
    """A pod with `shareProcessNamespace: true`."""
    with shared_namespace() as enter:
        async with pod_of(image, enter) as pod:
            yield pod


async def test_in_a_shared_namespace_nothing_is_missing(sharing: Pod) -> None:
    """Unprivileged in both containers: the process is known and looked at, shells have their variables."""
    async with patience():
        while (state := await sharing.state())["vitals"] is None:
            await asyncio.sleep(0.2)
    assert state["pid_unknown_because"] is None
    assert state["vitals"]["rss_bytes"] > 100_000_000
    assert state["vitals"]["maps"] > 100
    async with sharing.raw() as raw:
        first = await sharing.session(raw, "value-of-one")
        second = await sharing.session(raw, "value-of-two")
        assert (await run(raw, first, "id -u; printenv DEPLOY_KEY")) == "10001\nvalue-of-one\n"
        assert (await run(raw, second, "printenv DEPLOY_KEY")) == "value-of-two\n"


async def test_in_a_shared_namespace_agents_are_confined(sharing: Pod) -> None:
    """What `child-env` printed confines the other container's opencode, and what sessions start ends."""
    opencode = (await sharing.state())["pid"]
    async with sharing.raw() as raw:
        victim = await sharing.session(raw, "value-of-the-victim")
        attacker = await sharing.session(raw, "value-of-the-attacker")
        await run(raw, victim, "echo diary > diary.txt")
        directory = sharing.data_dir / "workspaces" / victim
        paths = [
            *(sharing.data_dir / name for name in ("secret.key", "sidecar.db", "opencode.env")),
            *(directory / "diary.txt", Path(f"/proc/{opencode}/environ")),
        ]
        reading = "; ".join(f"(: < {path}) 2>&1" for path in paths)
        said = await run(raw, attacker, f"{reading}; true")
        assert said.count("Permission denied") == len(paths), said
        mark = "987654321"
        await run(raw, attacker, f"setsid env -i sleep {mark} </dev/null >/dev/null 2>&1 &")
        await until(lambda: _sleeping(mark))
        await raw.call("DELETE", f"/v1/sessions/{attacker}")
        await until(lambda: not _sleeping(mark))


def _sleeping(mark: str) -> bool:
    return any(p.info["cmdline"] == ["sleep", mark] for p in psutil.process_iter(["cmdline"]))


async def test_a_shell_beside_opencode_is_refused(sharing: Pod) -> None:
    """The same user, container, socket and environment do not make a shell opencode; ours is closed to it."""
    async with sharing.raw() as raw:
        victim = await sharing.session(raw, "value-of-the-victim")
        attacker = await sharing.session(raw, "value-of-the-attacker")
        directory = sharing.data_dir / "workspaces" / victim
        await run(raw, attacker, "true")
        script = sharing.data_dir / "workspaces" / attacker / PRYING_AGENT.name
        shutil.copy(PRYING_AGENT, script)
        asked = ChildFiles(sharing.data_dir / "opencode").shell_socket
        command = [str(PYTHON), str(script), str(asked), str(directory)]
        answer = await run(raw, attacker, shlex.join(command))
        assert "403" in answer
        assert "victim" not in answer
        environments = await run(
            raw, attacker, "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
        )
    assert "value-of-the-attacker" in environments
    assert KEY not in environments
    assert "shell environment refused" in sharing.sidecar.log_file.read_text()


async def test_a_process_of_an_agent_is_not_taken_for_opencode(image: Image) -> None:
    """One that took off its mark, outlived opencode and listens in its place is no child of the engine.

    Where agents are not confined: else it does not outlive opencode.
    """
    with shared_namespace() as enter:
        async with pod_of(image, enter, SIDECAR_CONFINEMENT="off") as pod:
            await _is_not_taken_for_opencode(pod)


async def _is_not_taken_for_opencode(sharing: Pod) -> None:
    script = sharing.data_dir / IMPOSTOR.name
    serve = shlex.join([str(PYTHON), str(script), "serve", "--port", str(sharing.port)])
    loop = shlex.quote(f"until {serve}; do sleep 0.1; done")
    async with sharing.raw() as raw:
        session = await sharing.session(raw, "value-of-its-own")
        await run(
            raw,
            session,
            f"SIDECAR_SHELL_MARKER= setsid sh -c {loop} >/dev/null 2>&1 & echo started",
        )
    (opencode,) = psutil.Process(sharing.opencode.pid).children()
    opencode.kill()
    async with patience():
        while (state := await sharing.state())["boot"] == 1 or state["state"] != "ready":
            await asyncio.sleep(0.2)
    assert state["version"] == "fake"
    assert state["pid"] is None
    assert "not started by the platform" in state["pid_unknown_because"]


async def test_without_a_shared_namespace_it_says_so(image: Image) -> None:
    """Agents work, without variables; the state says why, and nothing is claimed of the process."""
    async with pod_of(image, OWN_NAMESPACE) as pod:
        state = await pod.state()
        assert state["state"] == "ready"
        assert state["pid"] is state["vitals"] is None
        assert "process namespace" in state["pid_unknown_because"]
        async with pod.raw() as raw:
            session = await pod.session(raw, "value-for-nobody")
            assert await run(raw, session, "printenv DEPLOY_KEY || echo none") == "none\n"
        assert "opencode's process is not known" in pod.sidecar.log_file.read_text()
