"""`/v1/vaults` over real sockets: the official SDK in strict mode, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import ClientSession, web

from sidecar.config import HttpSettings
from sidecar.errors import InvalidRequestError
from sidecar.http.bodies import BodyBounds, BodyBudget, bounded_bodies
from sidecar.http.middleware import request_context
from sidecar.http.operations import routes_of
from sidecar.http.vaults import VaultsApi
from sidecar.managed.vaults.credentials import MAX_CREDENTIALS, Credentials
from sidecar.managed.vaults.encryption import open_secret_box
from sidecar.managed.vaults.vaults import Vaults
from sidecar.store.interface import Connection, Store
from sidecar.store.sqlite import SqliteStore

URL = "https://mcp.example/mcp?session_id=1"
TOKEN = "sk-bearer-of-the-tests"
VALUE = "value-of-the-variable"
BEARER = {"type": "static_bearer", "mcp_server_url": URL, "token": TOKEN}
VARIABLE = {"type": "environment_variable", "secret_name": "DEPLOY_KEY", "secret_value": VALUE}


class Server:
    """A server with only the vaults, on a real socket."""

    def __init__(self, database: Store, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.database = database
        self.vaults: Vaults
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        secret_box = await open_secret_box(database=self.database, key=None, data_dir=self.data_dir)
        self.vaults = Vaults(database=self.database, secret_box=secret_box)
        credentials = Credentials(database=self.database, secret_box=secret_box)
        bodies = BodyBudget(BodyBounds.of(HttpSettings()))
        app = web.Application(middlewares=[request_context, bounded_bodies(bodies)])
        app.add_routes(routes_of(VaultsApi(vaults=self.vaults, credentials=credentials)))
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop."""
        await self._runner.cleanup()


@pytest.fixture
async def server(database: Store, tmp_path: Path) -> AsyncIterator[Server]:
    """A running server."""
    server = Server(database, tmp_path)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def sdk(server: Server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The SDK, checking every answer against its types."""
    async with anthropic.AsyncAnthropic(
        api_key="k", base_url=server.url, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
async def http(server: Server) -> AsyncIterator[ClientSession]:
    """A plain client, for what the SDK would not send."""
    async with ClientSession(server.url) as session:
        yield session


async def new_vault(http: ClientSession) -> str:
    """Make a vault as LAP does; return its id."""
    answer = await http.post("/v1/vaults?beta=true", json={"display_name": "LiteLLM MCP Gateway"})
    assert answer.status == 200
    vault_id: str = (await answer.json())["id"]
    return vault_id


async def post_auth(http: ClientSession, vault_id: str, auth: Any) -> tuple[int, dict[str, Any]]:
    """Post a credential; return status and body."""
    answer = await http.post(f"/v1/vaults/{vault_id}/credentials?beta=true", json={"auth": auth})
    return answer.status, await answer.json()


async def test_the_sdk_manages_vaults(sdk: anthropic.AsyncAnthropic) -> None:
    """Create, retrieve, update, list, archive and delete pass the SDK's strict validation."""
    vault = await sdk.beta.vaults.create(display_name="one", metadata={"a": "1", "b": "2"})
    assert vault.id.startswith("vlt_")
    assert (await sdk.beta.vaults.retrieve(vault.id)) == vault
    changed = await sdk.beta.vaults.update(
        vault.id, display_name="two", metadata={"a": None, "c": "3"}
    )
    assert changed.display_name == "two"
    assert changed.metadata == {"b": "2", "c": "3"}
    assert changed.updated_at > vault.updated_at
    assert await sdk.beta.vaults.update(vault.id) == changed
    archived = await sdk.beta.vaults.archive(vault.id)
    assert archived.archived_at is not None
    assert (await sdk.beta.vaults.archive(vault.id)) == archived
    assert [v.id async for v in sdk.beta.vaults.list()] == []
    assert [v.id async for v in sdk.beta.vaults.list(include_archived=True)] == [vault.id]
    deleted = await sdk.beta.vaults.delete(vault.id)
    assert (deleted.id, deleted.type) == (vault.id, "vault_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await sdk.beta.vaults.retrieve(vault.id)


async def test_the_sdk_manages_credentials(sdk: anthropic.AsyncAnthropic, server: Server) -> None:
    """All calls of both kinds of credentials pass strict validation; secrets work and are not shown."""
    vault = await sdk.beta.vaults.create(display_name="v")
    calls = sdk.beta.vaults.credentials
    bearer = await calls.create(
        vault.id, auth=BEARER, display_name="gateway", metadata={"owner": "lap"}
    )
    variable = await calls.create(
        vault.id,
        auth={
            **VARIABLE,
            "networking": {"type": "unrestricted"},
            "injection_location": {"header": True, "body": True},
        },
    )
    assert bearer.id.startswith("vcrd_")
    assert bearer.auth.type == "static_bearer"
    assert bearer.auth.mcp_server_url == URL
    assert variable.auth.type == "environment_variable"
    assert variable.auth.injection_location.body is True
    assert await calls.retrieve(bearer.id, vault_id=vault.id) == bearer
    assert {c.id async for c in calls.list(vault.id, limit=1)} == {bearer.id, variable.id}
    secrets = await server.vaults.secrets_for([vault.id])
    assert dict(secrets.bearer_by_url) == {URL: TOKEN}
    assert dict(secrets.environment) == {"DEPLOY_KEY": VALUE}

    updated = await calls.update(
        bearer.id,
        vault_id=vault.id,
        auth={"type": "static_bearer", "token": "rotated"},
        display_name="renamed",
        metadata={"owner": None},
    )
    assert (updated.display_name, updated.metadata) == ("renamed", {})
    await calls.update(
        variable.id,
        vault_id=vault.id,
        auth={"type": "environment_variable", "secret_value": "new"},
    )
    secrets = await server.vaults.secrets_for([vault.id])
    assert dict(secrets.bearer_by_url) == {URL: "rotated"}
    assert dict(secrets.environment) == {"DEPLOY_KEY": "new"}

    archived = await calls.archive(bearer.id, vault_id=vault.id)
    assert archived.archived_at is not None
    deleted = await calls.delete(variable.id, vault_id=vault.id)
    assert (deleted.id, deleted.type) == (variable.id, "vault_credential_deleted")
    secrets = await server.vaults.secrets_for([vault.id])
    assert (dict(secrets.bearer_by_url), dict(secrets.environment)) == ({}, {})
    assert [c.id async for c in calls.list(vault.id)] == []
    assert [c.id async for c in calls.list(vault.id, include_archived=True)] == [bearer.id]


async def test_values_are_never_answered_and_never_stored_in_clear(
    http: ClientSession, server: Server
) -> None:
    """Neither an answer nor a file of the data directory has a secret."""
    vault_id = await new_vault(http)
    bodies = [
        str(await post_auth(http, vault_id, BEARER)),
        str(await post_auth(http, vault_id, VARIABLE)),
        await (await http.get(f"/v1/vaults/{vault_id}/credentials")).text(),
    ]
    assert not [body for body in bodies if TOKEN in body or VALUE in body]
    stored = b"".join(p.read_bytes() for p in server.data_dir.rglob("*") if p.is_file())
    assert TOKEN.encode() not in stored
    assert VALUE.encode() not in stored


async def test_secrets_survive_a_restart_with_only_the_data_directory(tmp_path: Path) -> None:
    """A second process on the same directory opens what the first one stored."""
    first = Server(SqliteStore(tmp_path / "sidecar.db"), tmp_path)
    await first.database.open()
    await first.start()
    async with ClientSession(first.url) as http:
        vault_id = await new_vault(http)
        await post_auth(http, vault_id, BEARER)
    await first.close()
    await first.database.close()
    second = Server(SqliteStore(tmp_path / "sidecar.db"), tmp_path)
    await second.database.open()
    await second.start()
    secrets = await second.vaults.secrets_for([vault_id])
    await second.close()
    await second.database.close()
    assert dict(secrets.bearer_by_url) == {URL: TOKEN}


async def test_archiving_a_vault_erases_its_secrets(http: ClientSession, server: Server) -> None:
    """The records stay, the encrypted values go, and nothing can be added any more."""
    vault_id = await new_vault(http)
    _, credential = await post_auth(http, vault_id, BEARER)
    await http.post(f"/v1/vaults/{vault_id}/archive")
    answer = await http.get(f"/v1/vaults/{vault_id}/credentials/{credential['id']}")
    assert (await answer.json())["archived_at"] is not None

    def left(connection: Connection) -> int:
        query = "SELECT count(*) FROM credentials WHERE secret IS NOT NULL"
        count: int = connection.execute(query).fetchone()[0]
        return count

    assert await server.database.read(left) == 0
    assert (await post_auth(http, vault_id, VARIABLE))[0] == 400
    assert (await http.post(f"/v1/vaults/{vault_id}", json={"display_name": "x"})).status == 400


async def test_of_two_vaults_the_earlier_wins(http: ClientSession, server: Server) -> None:
    """The order of a session's vault_ids decides; deleted vaults add nothing."""
    first, second = await new_vault(http), await new_vault(http)
    await post_auth(http, first, BEARER)
    await post_auth(http, second, {**BEARER, "token": "other"})
    await post_auth(http, second, VARIABLE)
    secrets = await server.vaults.secrets_for([first, second])
    assert dict(secrets.bearer_by_url) == {URL: TOKEN}
    assert dict(secrets.environment) == {"DEPLOY_KEY": VALUE}
    await http.delete(f"/v1/vaults/{first}")
    secrets = await server.vaults.secrets_for([first, second])
    assert dict(secrets.bearer_by_url) == {URL: "other"}


async def test_a_secret_moved_to_another_row_does_not_open(
    http: ClientSession, server: Server
) -> None:
    """Who can write the database but has no key cannot give one credential's secret to another."""
    vault_id = await new_vault(http)
    _, bearer = await post_auth(http, vault_id, BEARER)
    _, variable = await post_auth(http, vault_id, VARIABLE)

    def swap(connection: Connection) -> None:
        connection.execute(
            "UPDATE credentials SET secret = (SELECT secret FROM credentials WHERE id = ?) "
            "WHERE id = ?",
            (bearer["id"], variable["id"]),
        )

    await server.database.write(swap)
    secrets = await server.vaults.secrets_for([vault_id])
    assert dict(secrets.environment) == {}
    assert dict(secrets.bearer_by_url) == {URL: TOKEN}


@pytest.mark.parametrize(
    ("auth", "words"),
    [
        ({"type": "mcp_oauth", "access_token": "a"}, "static_bearer or environment_variable"),
        ({}, "static_bearer or environment_variable"),
        (None, "auth"),
        ({**BEARER, "mcp_server_url": "ftp://mcp.example"}, "http"),
        ({**BEARER, "mcp_server_url": "https://"}, "http"),
        ({**BEARER, "mcp_server_url": "https://user:pw@mcp.example"}, "user or password"),
        ({**BEARER, "token": ""}, "token"),
        ({**BEARER, "token": "two\r\nlines"}, "one line"),
        ({**VARIABLE, "secret_name": "1ST"}, "variable name"),
        ({**VARIABLE, "secret_name": "A-B"}, "variable name"),
        ({**VARIABLE, "secret_name": "PATH"}, "reserved"),
        ({**VARIABLE, "secret_name": "LD_PRELOAD"}, "reserved"),
        ({**VARIABLE, "secret_name": "OPENCODE_CONFIG"}, "reserved"),
        ({**VARIABLE, "secret_name": "SIDECAR_RELAY_URL"}, "reserved"),
        ({**VARIABLE, "secret_name": "XDG_DATA_HOME"}, "reserved"),
        ({**VARIABLE, "secret_name": "home"}, "reserved"),
        ({**VARIABLE, "secret_name": "BASH_ENV"}, "reserved"),
        ({**VARIABLE, "secret_value": "nul\0"}, "NUL"),
        ({**VARIABLE, "secret_value": "x" * 65537}, "65536 bytes"),
        ({**VARIABLE, "networking": {"type": "limited", "allowed_hosts": ["a.b"]}}, "limited"),
        ({**VARIABLE, "injection_location": {"body": False}}, "cannot be turned off"),
    ],
)
async def test_a_bad_credential_is_refused_without_showing_its_secret(
    http: ClientSession, auth: Any, words: str
) -> None:
    """400 with the field and the fix; nothing is stored and the secret is not repeated."""
    vault_id = await new_vault(http)
    status, body = await post_auth(http, vault_id, auth)
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert words in body["error"]["message"]
    assert not [s for s in (TOKEN, VALUE, "two\r", "xxxx") if s in body["error"]["message"]]
    listed = await (await http.get(f"/v1/vaults/{vault_id}/credentials")).json()
    assert listed == {"data": [], "next_page": None}


@pytest.mark.parametrize(
    "body", [{}, {"display_name": ""}, {"display_name": "x" * 256}, {"display_name": 3}, []]
)
async def test_a_bad_vault_is_refused(http: ClientSession, body: Any) -> None:
    """A vault needs a name of 1 to 255 characters."""
    assert (await http.post("/v1/vaults", json=body)).status == 400


async def test_one_credential_for_one_url(http: ClientSession) -> None:
    """A second one for the same URL is a conflict, not to be retried, until the first is archived."""
    vault_id = await new_vault(http)
    _, first = await post_auth(http, vault_id, BEARER)
    answer = await http.post(f"/v1/vaults/{vault_id}/credentials", json={"auth": BEARER})
    assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
    await http.post(f"/v1/vaults/{vault_id}/credentials/{first['id']}/archive")
    assert (await post_auth(http, vault_id, BEARER))[0] == 200


async def test_a_credential_keeps_its_kind(http: ClientSession) -> None:
    """An update with another auth type or URL is refused, and so is one of an archived credential."""
    vault_id = await new_vault(http)
    _, credential = await post_auth(http, vault_id, BEARER)
    path = f"/v1/vaults/{vault_id}/credentials/{credential['id']}"
    other = {"auth": {"type": "environment_variable", "secret_value": "x"}}
    assert (await http.post(path, json=other)).status == 400
    moved = {"auth": {**BEARER, "mcp_server_url": "https://elsewhere.example/"}}
    async with http.post(path, json=moved) as refused:
        message = (await refused.json())["error"]["message"]
    assert (refused.status, message.startswith("auth.mcp_server_url: this")) == (400, True)
    assert (await http.post(path, json={"auth": {**BEARER, "token": "next"}})).status == 200
    await http.post(f"{path}/archive")
    assert (await http.post(path, json={"display_name": "x"})).status == 400


async def test_a_vault_is_bounded(http: ClientSession) -> None:
    """One credential more than the limit is refused."""
    vault_id = await new_vault(http)
    for number in range(MAX_CREDENTIALS):
        auth = {**BEARER, "mcp_server_url": f"https://mcp.example/{number}"}
        assert (await post_auth(http, vault_id, auth))[0] == 200
    status, body = await post_auth(http, vault_id, BEARER)
    assert status == 400
    assert str(MAX_CREDENTIALS) in body["error"]["message"]


async def test_unknown_ids_are_not_found(http: ClientSession, server: Server) -> None:
    """Unknown and malformed ids answer 404; a credential is only found in its own vault."""
    vault_id, other = await new_vault(http), await new_vault(http)
    _, credential = await post_auth(http, vault_id, BEARER)
    for path in (
        "/v1/vaults/vlt_none",
        "/v1/vaults/vlt_00000000000000000000000000",
        f"/v1/vaults/{vault_id}/credentials/vcrd_00000000000000000000000000",
        f"/v1/vaults/{other}/credentials/{credential['id']}",
    ):
        assert (await http.get(path)).status == 404, path
        assert (await http.delete(path)).status == 404, path


async def test_a_session_may_only_name_usable_vaults(http: ClientSession, server: Server) -> None:
    """Unknown, malformed and archived vaults are refused by name at session create."""
    vault_id = await new_vault(http)
    await server.vaults.check([vault_id])
    await server.vaults.check([])
    await http.post(f"/v1/vaults/{vault_id}/archive")
    for bad in (vault_id, "vlt_none", "vlt_00000000000000000000000000"):
        with pytest.raises(InvalidRequestError, match=bad):
            await server.vaults.check([bad])
