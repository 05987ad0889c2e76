"""Packages of an environment, installed by the agent's own shell before the first turn of a session."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.fakes.package_index import PackageIndex, package_index
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client, make_settings, sidecar_for, text_of
from tests.raw_client import MODEL, TOOLSET, RawClient, plain


@pytest.fixture(scope="module")
async def index() -> AsyncIterator[PackageIndex]:
    async with package_index() as running:
        yield running


@pytest.fixture(scope="module")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("packages"), gateway.url, packages={"timeout_seconds": 120.0}
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture
async def raw(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(sidecar.url) as http:
        yield RawClient(http)


async def new_session(raw: RawClient, index: PackageIndex, **packages: Any) -> str:
    """Create a session with these packages; its vault has where pip and npm look for them."""
    vault = await raw.call("POST", "/v1/vaults", {"display_name": "v"})
    for name, value in index.variables.items():
        auth = {"type": "environment_variable", "secret_name": name, "secret_value": value}
        await raw.call("POST", f"/v1/vaults/{vault['id']}/credentials", {"auth": auth})
    config = {"type": "cloud", "packages": packages}
    place = await raw.call("POST", "/v1/environments", {"name": "e", "config": config})
    assert {k: v for k, v in place["config"]["packages"].items() if v and k != "type"} == packages
    agent = await raw.call("POST", "/v1/agents", {"name": "a", "model": MODEL, "tools": [TOOLSET]})
    body = {"agent": agent["id"], "environment_id": place["id"], "vault_ids": [vault["id"]]}
    return str((await raw.call("POST", "/v1/sessions", body))["id"])


async def test_packages_are_there_with_the_first_turn(raw: RawClient, index: PackageIndex) -> None:
    """Their programs are on the shells' path and their modules are found; later turns install nothing."""
    session = await new_session(raw, index, pip=["greet==1.0"], npm=["greet@1"])
    turn = await raw.turn(session, "[[bash: greet && greet-npm && python -c 'import greet']]")
    (result,) = plain(turn, "agent.tool_result")
    assert (result["is_error"], result["output"]) == (False, "hello from pip\nhello from npm\n")
    check_events(turn)
    assert [e["type"] for e in await raw.events(session)] == [e["type"] for e in turn]
    asked = len(index.asked)
    turn = await raw.turn(session, "[[bash: greet]]")
    assert "hello from pip" in text_of(turn)
    assert len(index.asked) == asked


async def test_setting_up_a_package_is_the_agents_work(raw: RawClient, index: PackageIndex) -> None:
    """It has the session's variables, no key of ours, and leaves no process behind."""
    session = await new_session(raw, index, npm=["greet"])
    turn = await raw.turn(
        session, "[[bash: cat environment-of-setup; pgrep -f '[s]leep 98.765'; true]]"
    )
    (result,) = plain(turn, "agent.tool_result")
    said = result["output"]
    assert f"NPM_CONFIG_REGISTRY={index.url}/npm/" in said
    secrets = (GATEWAY_KEY, RUNTIME_KEY)
    assert [secret for secret in secrets if secret in said] == []
    assert not said.rstrip().rpartition("\n")[2].isdigit()


async def test_a_package_that_does_not_exist(raw: RawClient, index: PackageIndex) -> None:
    """The turn ends with what pip says, before a model is asked; the next message tries again."""
    session = await new_session(raw, index, pip=["missing==9"])
    for _ in range(2):
        turn = await raw.turn(session, "hello")
        (failed,) = plain(turn, "session.error")
        assert failed["error"]["type"] == "unknown_error"
        assert "No matching distribution found for missing==9" in failed["error"]["message"]
        assert turn[-1]["stop_reason"] == {"type": "retries_exhausted"}
        assert plain(turn, "span.model_request_start") == []


async def test_an_interrupt_ends_an_installation(raw: RawClient, index: PackageIndex) -> None:
    """Nothing of it goes on, and the turn ends as any other."""
    session = await new_session(raw, index, pip=["greet"])
    async with raw.stream(session) as reader:
        await raw.send(session, "hello")
        await reader.until("session.status_running")
        await raw.interrupt(session)
        turn = await reader.until("session.status_idle")
    assert turn[-1]["stop_reason"] == {"type": "end_turn"}
    assert "hello from pip" in text_of(await raw.turn(session, "[[bash: greet]]"))


async def test_an_installation_that_takes_too_long(
    gateway: DemoGateway, index: PackageIndex, tmp_path: Path
) -> None:
    """The setting is named."""
    settings = make_settings(tmp_path, gateway.url, packages={"timeout_seconds": 0.2})
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        raw = RawClient(http)
        session = await new_session(raw, index, pip=["greet"])
        turn = await raw.turn(session, "hello")
    (failed,) = plain(turn, "session.error")
    assert "SIDECAR_PACKAGES_TIMEOUT_SECONDS" in failed["error"]["message"]
