"""`/v1/vaults` and the credentials in them."""

from __future__ import annotations

from sidecar.errors import ConflictError, TooManyStoredError
from sidecar.http import declare
from sidecar.http.operations import Answer, Anything, CredentialId, VaultId
from sidecar.http.queries import Flag, ListQuery
from sidecar.managed.vaults.credentials import Credentials
from sidecar.managed.vaults.vaults import Vaults
from sidecar.wire.objects.agents import CredentialObject, Deleted, VaultObject
from sidecar.wire.objects.common import Page
from sidecar.wire.vaults import CredentialCreate, CredentialUpdate, VaultCreate, VaultUpdate

_CREDENTIALS = "/v1/vaults/{id}/credentials"
_CREDENTIAL = _CREDENTIALS + "/{credential}"


class VaultsQuery(ListQuery):
    """Which vaults, or credentials, are listed."""

    include_archived: Flag = False


class VaultsApi:
    """Vaults and credentials. No answer ever holds a secret."""

    def __init__(self, *, vaults: Vaults, credentials: Credentials) -> None:
        self._vaults = vaults
        self._credentials = credentials

    @declare.post("/v1/vaults", response=VaultObject, raises=(TooManyStoredError,))
    async def create(self, body: VaultCreate) -> Answer:
        """Create an empty vault."""
        return (await self._vaults.create(body)).answer()

    @declare.get("/v1/vaults", response=Page[VaultObject])
    async def list(self, query: VaultsQuery) -> Answer:
        """List vaults, newest first."""
        return await self._vaults.list(query.paging(), include_archived=query.include_archived)

    @declare.get("/v1/vaults/{id}", response=VaultObject)
    async def retrieve(self, vault_id: VaultId) -> Answer:
        """Retrieve a vault."""
        return (await self._vaults.get(vault_id)).answer()

    @declare.post("/v1/vaults/{id}", response=VaultObject)
    async def update(self, vault_id: VaultId, body: VaultUpdate) -> Answer:
        """Update a vault's name or metadata."""
        return (await self._vaults.update(vault_id, body)).answer()

    @declare.delete("/v1/vaults/{id}", response=Deleted)
    async def delete(self, vault_id: VaultId) -> Answer:
        """Delete a vault with its credentials."""
        await self._vaults.delete(vault_id)
        return {"id": vault_id, "type": "vault_deleted"}

    @declare.post("/v1/vaults/{id}/archive", response=VaultObject, body=Anything)
    async def archive(self, vault_id: VaultId) -> Answer:
        """Archive a vault: the secrets in it are erased."""
        return (await self._vaults.archive(vault_id)).answer()

    @declare.post(
        _CREDENTIALS,
        response=CredentialObject,
        raises=(ConflictError, TooManyStoredError),
        has_secrets=True,
    )
    async def create_credential(self, vault_id: VaultId, body: CredentialCreate) -> Answer:
        """Create a credential in a vault."""
        return (await self._credentials.create(vault_id, body)).answer()

    @declare.get(_CREDENTIALS, response=Page[CredentialObject])
    async def list_credentials(self, vault_id: VaultId, query: VaultsQuery) -> Answer:
        """List the credentials of a vault, newest first."""
        return await self._credentials.list(
            vault_id, query.paging(), include_archived=query.include_archived
        )

    @declare.get(_CREDENTIAL, response=CredentialObject)
    async def retrieve_credential(self, vault_id: VaultId, credential_id: CredentialId) -> Answer:
        """Retrieve a credential, without its secret."""
        return (await self._credentials.get(vault_id, credential_id)).answer()

    @declare.post(_CREDENTIAL, response=CredentialObject, has_secrets=True)
    async def update_credential(
        self, vault_id: VaultId, credential_id: CredentialId, body: CredentialUpdate
    ) -> Answer:
        """Update a credential's secret, name or metadata."""
        return (await self._credentials.update(vault_id, credential_id, body)).answer()

    @declare.delete(_CREDENTIAL, response=Deleted)
    async def delete_credential(self, vault_id: VaultId, credential_id: CredentialId) -> Answer:
        """Delete a credential."""
        await self._credentials.delete(vault_id, credential_id)
        return {"id": credential_id, "type": "vault_credential_deleted"}

    @declare.post(_CREDENTIAL + "/archive", response=CredentialObject, body=Anything)
    async def archive_credential(self, vault_id: VaultId, credential_id: CredentialId) -> Answer:
        """Archive a credential: its secret is erased."""
        return (await self._credentials.archive(vault_id, credential_id)).answer()
