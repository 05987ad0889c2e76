"""Where the sidecar can be reached, and with which of the keys that a request carries."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from sidecar.listening import url_of
from tests.fakes.gateway_fixed import FixedGateway, model_list
from tests.harness import RUNTIME_KEY, make_settings, sidecar_for


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::", "http://127.0.0.1:5"),
        ("0.0.0.0", "http://127.0.0.1:5"),  # only its URL
        ("::1", "http://[::1]:5"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:5"),
        ("localhost", "http://localhost:5"),
    ],
)
def test_urls_can_be_called(host: str, url: str) -> None:
    """IPv6 addresses stand in brackets, and addresses that only can be bound are replaced."""
    assert url_of(host, 5) == url


@pytest.mark.parametrize(
    ("host", "served"),
    [("::", ["127.0.0.1", "[::1]"]), ("::1", ["[::1]"]), ("127.0.0.1", ["127.0.0.1"])],
)
async def test_every_listener_serves_the_families_of_its_address(
    tmp_path: Path, host: str, served: list[str]
) -> None:
    """`HOST=::` serves IPv4 and IPv6, and so do the admin listener and the relay; URLs have brackets."""
    gateway = FixedGateway()
    gateway.answers["/v1/models"] = model_list("m")
    await gateway.start()
    settings = make_settings(
        tmp_path, gateway.url, http={"host": host}, admin={"host": host, "key": "admin-key"}
    )
    async with sidecar_for(settings, is_ready=False) as sidecar, aiohttp.ClientSession() as http:
        assert sidecar.admin_url is not None
        async with http.get(f"{sidecar.url}/livez") as response:
            assert response.status == 200
        for url, path in ((sidecar.url, "/livez"), (sidecar.admin_url, "/metrics")):
            port = URL(url).port
            for address in served:
                headers = {"x-api-key": "admin-key"}
                target = f"http://{address}:{port}{path}"
                async with http.get(target, headers=headers) as response:
                    assert response.status == 200
    await gateway.close()


def test_this_machine_has_both_families() -> None:
    """The tests above mean something only where there is IPv6."""
    assert socket.has_dualstack_ipv6()


@pytest.fixture(scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a sidecar over a gateway with one model."""
    gateway = FixedGateway()
    gateway.answers["/v1/models"] = model_list("m")
    await gateway.start()
    settings = make_settings(tmp_path_factory.mktemp("listening"), gateway.url)
    async with sidecar_for(settings, is_ready=False) as sidecar:
        yield sidecar.url
    await gateway.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("x-api-key", RUNTIME_KEY)], 200),
        ([("x-api-key", "placeholder"), ("authorization", f"Bearer {RUNTIME_KEY}")], 200),
        ([("x-api-key", RUNTIME_KEY), ("authorization", "Bearer placeholder")], 200),
        ([("x-api-key", ""), ("authorization", f"bearer  {RUNTIME_KEY} ")], 200),
        ([("x-api-key", "placeholder"), ("x-api-key", RUNTIME_KEY)], 200),
        ([("x-api-key", "placeholder"), ("authorization", "Bearer placeholder")], 401),
        ([("x-api-key", "pläceholder")], 401),
        ([("x-api-key", RUNTIME_KEY), ("cookie", "c=" + "y" * 9_000)], 200),
        ([("x-api-key", RUNTIME_KEY), ("authorization", "Bearer " + "y" * 60_000)], 200),
        ([("authorization", RUNTIME_KEY)], 401),
        ([], 401),
    ],
)
async def test_any_right_key_of_a_request_opens(
    url: str, headers: list[tuple[str, str]], status: int
) -> None:
    """SDKs that demand a key send a placeholder beside the one that a proxy adds."""
    async with (
        aiohttp.ClientSession(url) as http,
        http.get("/v1/models", headers=headers) as response,
    ):
        assert response.status == status
