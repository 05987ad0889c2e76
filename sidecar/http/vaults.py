"""`/v1/vaults` and the credentials in them."""

from __future__ import annotations

from aiohttp import web

from sidecar.http.bodies import read_model, read_object
from sidecar.http.queries import page_query, path_id, query_bool
from sidecar.http.responses import json_response
from sidecar.managed.vaults.credentials import Credentials
from sidecar.managed.vaults.vaults import Vaults
from sidecar.wire.vaults import CredentialCreate, CredentialUpdate, VaultCreate, VaultUpdate

MAX_PAGE = 100


class VaultsApi:
    """Vaults and credentials. No answer ever holds a secret."""

    def __init__(self, *, vaults: Vaults, credentials: Credentials) -> None:
        self._vaults = vaults
        self._credentials = credentials

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        credentials = "/v1/vaults/{id}/credentials"
        return [
            web.post("/v1/vaults", self.create),
            web.get("/v1/vaults", self.list),
            web.get("/v1/vaults/{id}", self.retrieve),
            web.post("/v1/vaults/{id}", self.update),
            web.delete("/v1/vaults/{id}", self.delete),
            web.post("/v1/vaults/{id}/archive", self.archive),
            web.post(credentials, self.create_credential),
            web.get(credentials, self.list_credentials),
            web.get(credentials + "/{credential}", self.retrieve_credential),
            web.post(credentials + "/{credential}", self.update_credential),
            web.delete(credentials + "/{credential}", self.delete_credential),
            web.post(credentials + "/{credential}/archive", self.archive_credential),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults`."""
        body = await read_model(request, VaultCreate)
        return json_response((await self._vaults.create(body)).answer())

    async def retrieve(self, request: web.Request) -> web.Response:
        """`GET /v1/vaults/{id}`."""
        return json_response((await self._vaults.get(_vault_id(request))).answer())

    async def update(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults/{id}`."""
        vault_id = _vault_id(request)
        body = await read_model(request, VaultUpdate)
        return json_response((await self._vaults.update(vault_id, body)).answer())

    async def archive(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults/{id}/archive`."""
        vault_id = _vault_id(request)
        await read_object(request, allow_empty=True)
        return json_response((await self._vaults.archive(vault_id)).answer())

    async def delete(self, request: web.Request) -> web.Response:
        """`DELETE /v1/vaults/{id}`."""
        vault_id = _vault_id(request)
        await self._vaults.delete(vault_id)
        return json_response({"id": vault_id, "type": "vault_deleted"})

    async def list(self, request: web.Request) -> web.Response:
        """`GET /v1/vaults`, newest first."""
        query = page_query(request, highest=MAX_PAGE)
        include_archived = query_bool(request, "include_archived")
        return json_response(await self._vaults.list(query, include_archived=include_archived))

    async def create_credential(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults/{id}/credentials`."""
        vault_id = _vault_id(request)
        body = await read_model(request, CredentialCreate, has_secrets=True)
        return json_response((await self._credentials.create(vault_id, body)).answer())

    async def retrieve_credential(self, request: web.Request) -> web.Response:
        """`GET /v1/vaults/{id}/credentials/{credential}`."""
        ids = _vault_id(request), _credential_id(request)
        return json_response((await self._credentials.get(*ids)).answer())

    async def update_credential(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults/{id}/credentials/{credential}`."""
        ids = _vault_id(request), _credential_id(request)
        body = await read_model(request, CredentialUpdate, has_secrets=True)
        return json_response((await self._credentials.update(*ids, body)).answer())

    async def archive_credential(self, request: web.Request) -> web.Response:
        """`POST /v1/vaults/{id}/credentials/{credential}/archive`."""
        ids = _vault_id(request), _credential_id(request)
        await read_object(request, allow_empty=True)
        return json_response((await self._credentials.archive(*ids)).answer())

    async def delete_credential(self, request: web.Request) -> web.Response:
        """`DELETE /v1/vaults/{id}/credentials/{credential}`."""
        vault_id, credential_id = _vault_id(request), _credential_id(request)
        await self._credentials.delete(vault_id, credential_id)
        return json_response({"id": credential_id, "type": "vault_credential_deleted"})

    async def list_credentials(self, request: web.Request) -> web.Response:
        """`GET /v1/vaults/{id}/credentials`, newest first."""
        vault_id = _vault_id(request)
        query = page_query(request, highest=MAX_PAGE)
        include_archived = query_bool(request, "include_archived")
        page = await self._credentials.list(vault_id, query, include_archived=include_archived)
        return json_response(page)


def _vault_id(request: web.Request) -> str:
    return path_id(request, "vlt", "vault")


def _credential_id(request: web.Request) -> str:
    return path_id(request, "vcrd", "credential", name="credential")
