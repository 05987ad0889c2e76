"""compose.yaml: valid, complete, and its services run with the environment that it gives them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.demo_gateway import DemoGateway
from tests.deploy.container import run_once, run_turn, started
from tests.deploy.image import ROOT, Image
from tests.fakes.lap_registry import MASTER_KEY, FakeLap
from tests.harness import http_client, text_of

COMPOSE = ROOT / "deploy" / "compose.yaml"
EXAMPLE = ROOT / "deploy" / ".env.example"
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def example_variables() -> dict[str, str]:
    """Return what .env.example sets."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if re.match(r"\w+=", line)]
    return dict(line.split("=", 1) for line in lines)


def services(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the services with `${NAME:-default}` replaced, as compose does."""

    def value(match: re.Match[str]) -> str:
        return (variables or {}).get(match[1]) or match[2] or ""

    loaded = yaml.safe_load(_VARIABLE.sub(value, COMPOSE.read_text()))
    found: dict[str, Any] = loaded["services"]
    return found


@asynccontextmanager
async def gateway_with(key: str) -> AsyncIterator[str]:
    """A gateway with scripted models in the place of LiteLLM; yields its URL."""
    gateway = DemoGateway(key=key)
    await gateway.start()
    try:
        yield gateway.url
    finally:
        await gateway.close()


def test_the_file_follows_the_compose_specification() -> None:
    """The specification's own JSON schema accepts it."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    command = [tool, "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_in_the_example() -> None:
    """.env.example names each variable that is read, and where both have a value it is the same."""
    read = dict(_VARIABLE.findall(COMPOSE.read_text()))
    documented = example_variables()
    optional = set(re.findall(r"^#(\w+)=", EXAMPLE.read_text(), re.M))
    assert set(documented) | optional == set(read) | {"COMPOSE_PROFILES"}
    assert {name: documented[name] for name in read if name in documented} == {
        name: default for name, default in read.items() if name in documented
    }


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("gateway", {"sidecar", "litellm"}),
        ("demo", {"demo"}),
        ("lap", {"sidecar", "litellm", "register"}),
        ("cluster", {"pod", "front", "postgres"}),
    ],
)
def test_each_profile_starts_what_it_says(profile: str, expected: set[str]) -> None:
    """Every service is in a profile, and each profile is complete by itself."""
    chosen = {
        name: service for name, service in services().items() if profile in service["profiles"]
    }
    assert set(chosen) == expected
    for service in chosen.values():
        assert set(service.get("depends_on", {})) <= set(chosen)


def test_ports_are_published_on_loopback_only() -> None:
    """A laptop's neighbours on the network reach neither gateway nor runtime."""
    ports = [port for service in services().values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_sidecar_is_as_confined_as_in_kubernetes() -> None:
    """Read-only, without capabilities and new privileges, with a bound on memory and processes."""
    for name in ("sidecar", "demo", "register", "pod"):
        service = services()[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert services()["sidecar"]["pids_limit"]
    assert services()["sidecar"]["mem_limit"]


def test_the_mounted_files_exist() -> None:
    """A bind mount of a missing file would make a directory in its place."""
    mounts = [volume for service in services().values() for volume in service.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]
    assert files
    for file in files:
        assert (COMPOSE.parent / file).is_file()


async def test_the_sidecar_runs_on_the_gateway(image: Image, tmp_path: Path) -> None:
    """With the file's environment and the example's variables, the sidecar lists and uses the models
    of a gateway that wants the master key, and its health check passes."""
    variables = example_variables() | {"LITELLM_MASTER_KEY": "the-master-key"}
    async with gateway_with(variables["LITELLM_MASTER_KEY"]) as url:
        service = services(variables | {"LITELLM_BASE_URL": url})["sidecar"]
        check = image.mapped(service["healthcheck"]["test"][1:])
        assert service["healthcheck"]["test"][0] == "CMD"
        async with started(
            image, tmp_path / "data", variables=service["environment"], healthcheck=check
        ) as container:
            key = variables["OPENCODE_RUNTIME_API_KEY"]
            events = await run_turn(container.url, key, "[[say: through the gateway]]")
            assert text_of(events) == "through the gateway"
            async with http_client(container.url, None) as client, client.get("/health") as answer:
                assert (await answer.json())["gateway"]["demo"] is False
            assert await container.stop() == 0


async def test_the_demo_needs_no_gateway(image: Image, tmp_path: Path) -> None:
    """The demo's environment names no gateway, so the sidecar brings its own; the key still counts."""
    service = services(example_variables())["demo"]
    check = image.mapped(service["healthcheck"]["test"][1:])
    async with started(
        image, tmp_path / "data", variables=service["environment"], healthcheck=check
    ) as container:
        async with http_client(container.url, None) as client:
            async with client.get("/health") as answer:
                assert (await answer.json())["gateway"]["demo"] is True
            async with client.get("/v1/models") as answer:
                assert answer.status == 401
        key = service["environment"]["RUNTIME_API_KEY"]
        async with http_client(container.url, key) as client, client.get("/v1/models") as answer:
            assert (await answer.json())["data"]


async def test_the_job_registers_what_clients_use(image: Image) -> None:
    """The register service gives LAP the address and the key under which the sidecar answers."""
    async with FakeLap() as lap:
        variables = {"LAP_URL": lap.url, "LAP_MASTER_KEY": MASTER_KEY, "RUNTIME_API_BASE": lap.url}
        chosen = services(example_variables() | variables)
        job = chosen["register"]
        command = image.mapped(job["entrypoint"] + job["command"])
        code, output = await run_once(command, job["environment"])
        assert code == 0, output
        assert lap.runtimes["local-opencode"] == {
            "alias": "local-opencode",
            "api_spec": "claude_managed_agents",
            "api_base": lap.url,
            "api_key": chosen["sidecar"]["environment"]["RUNTIME_API_KEY"],
        }


def test_lap_reaches_the_sidecar_by_its_service_name() -> None:
    """The default address is the service and the port that the image listens on."""
    job = services()["register"]["environment"]
    assert job["RUNTIME_API_BASE"] == "http://sidecar:8080"
    assert services()["sidecar"]["ports"][0].endswith(":8080")
