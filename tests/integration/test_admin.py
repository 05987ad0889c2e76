"""The admin listener of a whole sidecar over a fake child: who may ask, and what is answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from sidecar.app import RunningSidecar, running
from sidecar.config import AdminSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from sidecar.errors import SettingsError
from tests.fakes.small_sidecar import small_settings
from tests.harness import GATEWAY_KEY, http_client, sidecar_for
from tests.waiting import patience

KEY = "admin-key-of-the-tests"


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway(key=GATEWAY_KEY)
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture(scope="module")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    settings = small_settings(tmp_path_factory.mktemp("admin"), gateway.url, key=SecretStr(KEY))
    async with sidecar_for(settings) as running_one:
        yield running_one


@pytest.fixture
async def admin(sidecar: RunningSidecar) -> AsyncIterator[aiohttp.ClientSession]:
    assert sidecar.admin_url is not None
    async with http_client(sidecar.admin_url, KEY) as http:
        yield http


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/admin/state"),
        ("GET", "/admin/catalogue"),
        ("POST", "/admin/refresh"),
        ("POST", "/admin/reload"),
        ("POST", "/admin/restart"),
    ],
)
async def test_everything_wants_the_key(sidecar: RunningSidecar, method: str, path: str) -> None:
    """Without the admin key, or with another, each route answers 401 in the envelope and does nothing."""
    assert sidecar.admin_url is not None
    boot = sidecar.supervisor.boot
    for key in (None, "runtime-key-of-the-tests"):
        async with (
            http_client(sidecar.admin_url, key) as http,
            http.request(method, path) as answer,
        ):
            assert answer.status == 401
            assert (await answer.json())["error"]["type"] == "authentication_error"
    assert sidecar.supervisor.restart_pending is None
    assert sidecar.supervisor.boot == boot


async def test_the_key_may_come_as_a_bearer_token(sidecar: RunningSidecar) -> None:
    """Prometheus sends `Authorization: Bearer`."""
    assert sidecar.admin_url is not None
    headers = {"authorization": f"Bearer {KEY}"}
    async with (
        aiohttp.ClientSession(sidecar.admin_url, headers=headers) as http,
        http.get("/metrics") as answer,
    ):
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("header", ["origin", "sec-fetch-site"])
async def test_browsers_are_refused(admin: aiohttp.ClientSession, header: str) -> None:
    """A request that a page in a browser makes is refused even with the key."""
    async with admin.post("/admin/reload", headers={header: "http://evil.example"}) as answer:
        assert answer.status == 403


async def test_admin_routes_are_not_on_the_main_port(sidecar: RunningSidecar) -> None:
    """The public listener knows nothing of metrics or administration."""
    async with http_client(sidecar.url) as http:
        for path in ("/metrics", "/admin/state"):
            async with http.get(path) as answer:
                assert answer.status == 404


async def test_state_tells_what_goes_on(
    sidecar: RunningSidecar, admin: aiohttp.ClientSession
) -> None:
    """The state has the child's, the config's, the turns' and the catalogue's numbers."""
    async with admin.get("/admin/state") as answer:
        state = await answer.json()
    assert state["opencode"]["state"] == "ready"
    assert state["opencode"]["version"] == "fake"
    assert state["opencode"]["pid"] == sidecar.supervisor.pid
    assert state["turns"] == {"running": 0, "in_line": 0, "waiting": 0, "queued_events": 0}
    assert state["gateway"]["origin"] == "gateway"
    assert state["gateway"]["demo"] is False
    assert state["store"]["size_bytes"] > 0
    assert state["config"]["generation"] == sidecar.config_file.generation


async def test_catalogue_tells_who_said_what(admin: aiohttp.ClientSession) -> None:
    """Each entry names the source of each field, and a hidden one why it is hidden."""
    async with admin.get("/admin/catalogue") as answer:
        catalogue = await answer.json()
    models = {model["id"]: model for model in catalogue["models"]}
    assert catalogue["listed"] == sum(model["listed"] for model in models.values())
    assert set(models["openai/gpt-4o"]["sources"].values()) <= {
        "models",
        "model_group_info",
        "model_info",
        "override",
    }
    assert models["openai/gpt-4o"]["sources"]
    assert all(model["hidden_because"] for model in models.values() if not model["listed"])
    async with admin.get("/admin/catalogue", params={"model": "litellm/openai/gpt-4o"}) as answer:
        assert [m["id"] for m in (await answer.json())["models"]] == ["openai/gpt-4o"]
    async with admin.get("/admin/catalogue", params={"model": "nobody/has-it"}) as answer:
        assert answer.status == 404


async def test_refresh_reads_the_gateway_now(
    admin: aiohttp.ClientSession, gateway: DemoGateway
) -> None:
    """A model added to the gateway is in the catalogue after a refresh, and named as added."""
    gateway.models["added/by-hand"] = DemoModel(id="added/by-hand")
    async with admin.post("/admin/refresh") as answer:
        assert (await answer.json())["added"] == ["added/by-hand"]
    del gateway.models["added/by-hand"]
    async with admin.post("/admin/refresh") as answer:
        assert (await answer.json())["removed"] == ["added/by-hand"]


async def test_reload_writes_the_config_and_unloads_idle_directories(
    sidecar: RunningSidecar, admin: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A reload is a new generation on disk, disposes what is idle, and later what is busy."""
    idle, busy = tmp_path / "idle", tmp_path / "busy"
    async with sidecar.instances.use(idle, None):
        pass
    before = sidecar.config_file.generation
    async with sidecar.instances.use(busy, None):
        async with admin.post("/admin/reload") as answer:
            assert await answer.json() == {"generation": before + 1, "unloaded": 1, "later": 1}
        loads = sidecar.instances.loads
    assert sidecar.instances.loaded() == 1
    async with sidecar.instances.use(busy, None):
        assert sidecar.instances.loads == loads + 1


async def test_restart_replaces_the_child(
    sidecar: RunningSidecar, admin: aiohttp.ClientSession
) -> None:
    """An idle child is replaced, and the metrics count it as asked for."""
    boot = sidecar.supervisor.boot
    ready = asyncio.Event()
    sidecar.supervisor.on_state_change(
        lambda state, number: ready.set() if state == "ready" and number > boot else None
    )
    async with admin.post("/admin/restart", json={"reason": "test"}) as answer:
        assert answer.status == 202
    async with patience():
        await ready.wait()
        while sidecar.supervisor.retiring is not None:
            await asyncio.sleep(0.05)
    assert sidecar.supervisor.last_exit is not None
    assert sidecar.supervisor.last_exit.reason == "test"
    async with admin.get("/metrics") as answer:
        text = await answer.text()
    assert 'opencode_sidecar_child_restarts_total{cause="requested"} 1.0' in text
    assert 'opencode_sidecar_child_state{state="ready"} 1.0' in text


async def test_restart_refuses_what_it_does_not_know(admin: aiohttp.ClientSession) -> None:
    """A misspelt field is an error, not a restart without force."""
    async with admin.post("/admin/restart", json={"forse": True}) as answer:
        assert answer.status == 400


def test_another_address_needs_a_key() -> None:
    """Off loopback the listener is refused without a key."""
    with pytest.raises(SettingsError, match="SIDECAR_ADMIN_KEY"):
        AdminSettings(host="0.0.0.0").check()
    AdminSettings(host="0.0.0.0", key=SecretStr(KEY)).check()
    AdminSettings(host="0.0.0.0", is_enabled=False).check()


async def test_metrics_may_be_open_while_the_rest_is_not(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """`SIDECAR_ADMIN_ANONYMOUS_METRICS` opens the metrics and nothing else; the switch closes all."""
    settings = small_settings(tmp_path, gateway.url, key=SecretStr(KEY), anonymous_metrics=True)
    async with sidecar_for(settings, is_ready=False) as sidecar:
        assert sidecar.admin_url is not None
        async with http_client(sidecar.admin_url, None) as http:
            async with http.get("/metrics") as answer:
                assert answer.status == 200
            async with http.get("/admin/state") as answer:
                assert answer.status == 401
    async with running(small_settings(tmp_path, gateway.url, is_enabled=False)) as sidecar:
        assert sidecar.admin_url is None


async def test_a_taken_port_stops_only_those_who_set_it(
    sidecar: RunningSidecar, gateway: DemoGateway, tmp_path: Path
) -> None:
    """A port from the environment that is taken is an error that names the variable."""
    assert sidecar.admin_url is not None
    port = int(sidecar.admin_url.rpartition(":")[2])
    with pytest.raises(SettingsError, match="SIDECAR_ADMIN_PORT"):
        async with running(small_settings(tmp_path, gateway.url, port=port)):
            raise AssertionError("it must not start")
