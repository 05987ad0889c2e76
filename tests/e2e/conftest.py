"""One sidecar with the real opencode over a scripted gateway, shared by the modules that do not break it."""

from collections.abc import AsyncIterator, Callable

import anthropic
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.confined import USERS, Installation, install
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client, make_settings, sidecar_for
from tests.raw_client import RawClient

MakeSdk = Callable[..., anthropic.AsyncAnthropic]


@pytest.fixture(scope="session")
async def gateway() -> AsyncIterator[DemoGateway]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="session")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = make_settings(
        tmp_path_factory.mktemp("shared"),
        gateway.url,
        gateway={"miss_refresh_seconds": 0.2},
        turn={"retry_notice_seconds": 0.0},
        child={"drain_seconds": 2.0},
    )
    async with sidecar_for(settings) as running:
        yield running


@pytest.fixture(scope="module", params=USERS)
def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """A program that confines agents, once for our own user and, as root, once for another one."""
    return install(tmp_path_factory.mktemp("installation"), request.param)


@pytest.fixture
async def raw(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    async with http_client(sidecar.url) as http:
        yield RawClient(http)


@pytest.fixture
async def make_sdk(sidecar: RunningSidecar) -> AsyncIterator[MakeSdk]:
    """Make official clients of the shared sidecar; `is_strict` validates every answer."""
    clients: list[anthropic.AsyncAnthropic] = []

    def make(*, is_strict: bool = False, **options: object) -> anthropic.AsyncAnthropic:
        given = {"api_key": RUNTIME_KEY} | options
        client = anthropic.AsyncAnthropic(
            base_url=sidecar.url, _strict_response_validation=is_strict, max_retries=0, **given
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()
