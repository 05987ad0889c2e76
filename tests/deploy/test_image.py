"""The image: what its Dockerfile says, what its steps install, and whether that runs as a container."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.deploy.container import Container, run_once, run_turn, started, tool_output
from tests.deploy.image import ROOT, Image, context_files, read_ignore_rules, read_stages
from tests.fakes.otlp_collector import OtlpCollector
from tests.harness import text_of
from tests.waiting import patience

KEY = "runtime-key-of-the-image-test"
CONFINED = Path(__file__).with_name("confined.sh")
MAX_BYTES = 300 * 1024 * 1024
"""What the image adds to its base and Debian's packages; about 275 MB with the extra `archive`."""


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile is clean by the field's linter; exceptions are in .hadolint.yaml with their reason."""
    command = [Path(sys.executable).with_name("hadolint"), "deploy/Dockerfile"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_bases_are_exact_and_can_be_given_by_digest() -> None:
    """Every base is an ARG before the first FROM, whose default names a full version."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    defaults = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text.partition("\nFROM")[0], re.M))
    assert {stage.base for stage in read_stages()} == {f"${{{name}}}" for name in defaults}
    for default in defaults.values():
        assert re.fullmatch(r"\w+:\d+\.\d+\.\d+-[\w-]+", default)


def test_the_image_runs_as_a_numbered_user() -> None:
    """Kubernetes' runAsNonRoot can only be checked against a number."""
    final = read_stages()[-1]
    user, group = final.only("USER").text.split(":")
    assert int(user) == int(group) >= 10000
    assert f"--uid {user} " in final.only("RUN").text


def test_the_build_context_holds_the_sources_and_nothing_else() -> None:
    """Neither tests nor installed things nor secrets reach the engine."""
    tops = set()
    for path in context_files(read_ignore_rules()):
        head, *rest = path.split("/")
        tops.add(head if head != "deploy" else f"deploy/{rest[0]}")
        assert not path.endswith((".env", ".pyc"))
    assert tops == {
        *("LICENSE", "README.md", "pyproject.toml", "requirements", "sidecar"),
        *("deploy/image", "deploy/opencode", "deploy/register.py"),
    }


async def test_the_locked_versions_are_installed(image: Image) -> None:
    """Sidecar and opencode run from the prefix and have the versions of project and lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = json.loads((ROOT / "deploy/opencode/package.json").read_text())["dependencies"]
    sidecar = [*image.mapped(image.final.only("ENTRYPOINT").words), "--version"]
    opencode = [image.environment["SIDECAR_CHILD_BINARY"], "--version"]
    assert await run_once(sidecar, {}) == (0, f"{project['version']}\n")
    assert await run_once(opencode, {"HOME": str(image.prefix.parent)}) == (
        0,
        f"{pinned['opencode-ai']}\n",
    )


def test_what_is_installed_is_what_is_tested() -> None:
    """The image's lock has no other versions than the one that the tests run with."""
    image, tested = (_pins(ROOT / "requirements" / f"{name}.lock") for name in ("image", "dev"))
    assert image.items() <= tested.items()
    assert _pins(ROOT / "requirements" / "run.lock").items() <= image.items()


async def test_traces_are_exported_where_they_are_asked_for(image: Image, tmp_path: Path) -> None:
    """An endpoint is all it takes: what sends spans is in the image."""
    collector = OtlpCollector()
    await collector.start()
    variables = {"RUNTIME_API_KEY": KEY, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    async with started(image, tmp_path / "data", variables=variables) as container:
        await run_turn(container.url, KEY, "[[say: traced]]")
    await collector.close()
    assert collector.services == {"opencode-sidecar"}
    assert [span for span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT]


def test_nothing_that_only_builds_stays(image: Image) -> None:
    """No pip, no setuptools, no npm packages, and the size is bounded."""
    (packages,) = image.prefix.glob("venv/lib/python*/site-packages")
    assert not {"pip", "setuptools"} & {path.name for path in packages.iterdir()}
    assert not list(image.prefix.rglob("node_modules"))
    files = [path for path in image.prefix.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


def test_modules_are_compiled_beforehand(image: Image) -> None:
    """On a read-only file system Python could not keep its byte code, and every start would be slow."""
    (package,) = image.prefix.glob("venv/lib/python*/site-packages/sidecar")
    sources = {path.stem for path in package.glob("*.py")}
    assert sources == {path.name.split(".")[0] for path in package.glob("__pycache__/*.pyc")}


async def test_the_health_check_fails_when_nothing_listens(image: Image) -> None:
    """A dead sidecar is unhealthy, and the reason is printed."""
    code, output = await run_once(image.healthcheck, {"PORT": "1"})
    assert code == 1
    assert "refused" in output


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def confined(image: Image) -> AsyncIterator[Container]:
    """The image's command as process 1 of a container-like place, with the demo gateway."""
    if os.geteuid() != 0:
        pytest.fail(
            "this test makes namespaces and switches users: run `make deploy-check` as root"
        )
    with tempfile.TemporaryDirectory(prefix="confined-") as folder:
        data = Path(folder, "data")
        data.mkdir(mode=0o700)
        os.chown(data, 10001, 10001)
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", str(CONFINED)]
        before = [*unshare, str(image.prefix), sys.base_prefix, str(data)]
        async with started(
            image, data, variables={"RUNTIME_API_KEY": KEY}, before=before
        ) as container:
            yield container


async def test_a_turn_runs_in_a_container_like_place(confined: Container) -> None:
    """Unprivileged, as process 1, with a read-only file system: the model answers and tools work."""
    events = await run_turn(
        confined.url, KEY, "[[bash: id -u; touch made; ls; touch /x 2>&1]] [[then]] [[say: done]]"
    )
    assert text_of(events) == "done"
    output = tool_output(events)
    assert output.startswith("10001\nmade\n")
    assert "Read-only file system" in output


async def test_process_1_reaps_orphans(confined: Container) -> None:
    """What an agent left behind becomes a child of process 1, and no zombie of it stays."""
    sidecar = _process_one(confined)
    await run_turn(confined.url, KEY, "[[bash: setsid sleep 5.5 >/dev/null 2>&1 & echo started]]")
    below = sidecar.children(recursive=True)
    (orphan,) = [child for child in below if child.name() == "sleep"]
    async with patience():
        while orphan.is_running():  # a zombie counts as running
            await asyncio.sleep(0.1)


async def test_agents_cannot_kill_process_1(confined: Container) -> None:
    """The kernel shields process 1 of a container from its own kind; behind tini, this would end the
    sidecar. opencode, which is not shielded, comes back."""
    sidecar = _process_one(confined)
    events = await run_turn(confined.url, KEY, "[[bash: kill -KILL 1; kill -KILL -1]]")
    assert events[-1]["type"] in {"session.status_idle", "session.error"}
    assert sidecar.is_running()
    events = await run_turn(confined.url, KEY, "[[say: still here]]")
    assert text_of(events) == "still here"


async def test_sigterm_ends_everything_in_order(confined: Container) -> None:
    """Process 1 gets the signal, drains and exits with 0; nothing of the data folder's processes is left."""
    below = _process_one(confined).children(recursive=True)
    assert below
    assert await confined.stop() == 0
    assert not [process for process in below if process.is_running()]
    assert "draining" in confined.log_file.read_text()


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.M))


def _process_one(container: Container) -> psutil.Process:
    """The sidecar, seen from outside; its last id is that of the inner namespace."""
    status = Path(f"/proc/{container.sidecar.pid}/status").read_text()
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.M)
    return container.sidecar
