"""One sidecar for all of these tests. Its child is a program that never becomes ready: none is needed."""

from collections.abc import AsyncIterator

import pytest

from sidecar.demo_gateway import DemoGateway
from tests.fakes.small_sidecar import fake_child
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for
from tests.integration.bad_input.server import AGENT, Server
from tests.stores import ENGINES, on_postgres


@pytest.fixture(scope="package")
async def gateway() -> AsyncIterator[DemoGateway]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="package", params=ENGINES)
async def server(
    request: pytest.FixtureRequest, gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    root = tmp_path_factory.mktemp("bad_input")
    child = {"binary": fake_child(root, "child_never_ready.py"), "drain_seconds": 0.1}
    web = {"search_tool": "search"}
    settings = make_settings(root / "data", gateway.url, child=child, web=web)
    if request.param == "postgres":
        settings = on_postgres(settings, request.getfixturevalue("postgres"))
    async with sidecar_for(settings, is_ready=False) as sidecar:
        await sidecar.catalogue.refresh()
        async with http_client(sidecar.url) as http:
            yield Server(sidecar, settings.storage, http)


@pytest.fixture(scope="package")
async def agent(server: Server) -> str:
    return str((await server.raw.call("POST", "/v1/agents", AGENT))["id"])


@pytest.fixture(scope="package")
async def place(server: Server) -> str:
    return str((await server.raw.call("POST", "/v1/environments", {"name": "e"}))["id"])


@pytest.fixture(scope="package")
async def session(server: Server, agent: str, place: str) -> str:
    body = {"agent": agent, "environment_id": place}
    return str((await server.raw.call("POST", "/v1/sessions", body))["id"])
