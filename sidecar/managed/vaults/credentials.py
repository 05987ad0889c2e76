"""Credentials of a vault. The secret is encrypted, bound to the credential's id, and never answered."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sidecar.errors import ConflictError, InvalidRequestError, NotFoundError
from sidecar.ids import new_id
from sidecar.managed.common import pagination, timestamps
from sidecar.managed.common.metadata import merge_metadata
from sidecar.managed.common.resource_row import Stored
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.managed.vaults import vaults
from sidecar.managed.vaults.encryption import SecretBox
from sidecar.store.interface import Connection, Store
from sidecar.wire.vaults import (
    CredentialCreate,
    CredentialUpdate,
    EnvironmentVariable,
    EnvironmentVariableUpdate,
    StaticBearer,
    StaticBearerUpdate,
)

MAX_CREDENTIALS = 100
"""Of one vault, archived ones not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential(Stored):
    """A row of `credentials`; the body has `auth` without its secret."""

    table = "credentials"
    type = "vault_credential"
    vault_id: str


class Credentials:
    """Create, read, update, list, archive and delete the credentials of a vault."""

    def __init__(
        self, *, database: Store, secret_box: SecretBox, limits: StoredLimits | None = None
    ) -> None:
        self._database = database
        self._limits = limits or StoredLimits()
        self._secret_box = secret_box

    async def create(self, vault_id: str, request: CredentialCreate) -> Credential:
        """Store a credential.

        Raises NotFoundError for the vault, InvalidRequestError when it is archived or full, and
        ConflictError when it has one for the same URL or variable.
        """
        auth, secret = _shown(request.auth)
        body = {
            "auth": auth,
            "display_name": request.display_name,
            "metadata": dict(request.metadata or {}),
        }
        credential = Credential.new(new_id("vcrd"), body, vault_id=vault_id)
        encrypted = self._secret_box.encrypt(secret, bound_to=credential.id)

        def insert(connection: Connection) -> None:
            connection.lock_row("vaults", vault_id)  # of two at once the second sees the first
            vaults.select_active(connection, vault_id)
            _refuse_duplicate(connection, vault_id, auth)
            self._limits.check(connection, "credentials", owner_id=vault_id)
            credential.insert(connection, secret=encrypted)

        await self._database.write(insert)
        return credential

    async def get(self, vault_id: str, credential_id: str) -> Credential:
        """Return it. Raises NotFoundError."""
        return await self._database.read(lambda c: _select(c, vault_id, credential_id))

    async def update(
        self, vault_id: str, credential_id: str, request: CredentialUpdate
    ) -> Credential:
        """Change the secret, the name or the metadata; sessions get a new secret with their next use.

        Raises InvalidRequestError when archived, or when `auth` is of another type, URL or name.
        """

        def write(connection: Connection) -> Credential:
            connection.lock_row("credentials", credential_id)
            current = _select(connection, vault_id, credential_id)
            if current.archived_at is not None:
                raise InvalidRequestError(
                    f"credential {credential_id} is archived and can no longer be changed"
                )
            body, secret = _merged(current.body, request)
            if body == current.body and secret is None:
                return current
            updated = current.with_body(connection, body)
            if secret is not None:
                encrypted = self._secret_box.encrypt(secret, bound_to=credential_id)
                connection.note_erasure()
                connection.execute(
                    "UPDATE credentials SET secret = ? WHERE id = ?", (encrypted, credential_id)
                )
            return updated

        return await self._database.write(write)

    async def archive(self, vault_id: str, credential_id: str) -> Credential:
        """Erase the secret and keep the record. Idempotent."""

        def write(connection: Connection) -> Credential:
            connection.lock_row("credentials", credential_id)
            current = _select(connection, vault_id, credential_id)
            if current.archived_at is not None:
                return current
            now = timestamps.now()
            connection.note_erasure()
            connection.execute(
                "UPDATE credentials SET archived_at = ?, updated_at = ?, secret = NULL WHERE id = ?",
                (now, now, credential_id),
            )
            return replace(current, archived_at=now, updated_at=now)

        return await self._database.write(write)

    async def delete(self, vault_id: str, credential_id: str) -> None:
        """Delete it. Raises NotFoundError."""

        def write(connection: Connection) -> None:
            _select(connection, vault_id, credential_id)
            connection.note_erasure()
            connection.execute("DELETE FROM credentials WHERE id = ?", (credential_id,))

        await self._database.write(write)

    async def list(
        self, vault_id: str, query: pagination.Query, *, include_archived: bool
    ) -> pagination.Envelope:
        """Return a page. Raises NotFoundError for the vault."""
        query.where("vault_id = ?", vault_id)
        await self._database.read(lambda connection: vaults.select(connection, vault_id))
        return await Credential.page(self._database, query, include_archived=include_archived)


def _shown(auth: StaticBearer | EnvironmentVariable) -> tuple[dict[str, Any], str]:
    """Return (auth as answered, the secret)."""
    if isinstance(auth, StaticBearer):
        return {"type": auth.type, "mcp_server_url": auth.mcp_server_url}, auth.token
    shown = {
        "type": auth.type,
        "secret_name": auth.secret_name,
        "networking": {"type": "unrestricted"},
        "injection_location": {"header": True, "body": True},
    }
    return shown, auth.secret_value


def _merged(body: dict[str, Any], request: CredentialUpdate) -> tuple[dict[str, Any], str | None]:
    """Return (the new body, the new secret or None)."""
    merged, secret = dict(body), None
    if request.display_name is not None:
        merged["display_name"] = request.display_name
    if request.metadata is not None:
        merged["metadata"] = merge_metadata(body["metadata"], request.metadata)
    auth = request.auth
    if auth is None:
        return merged, None
    if auth.type != body["auth"]["type"]:
        raise InvalidRequestError(
            f"auth.type: this credential is of type {body['auth']['type']} and stays so; "
            "create another one",
            field="auth",
        )
    if isinstance(auth, StaticBearerUpdate):
        _check_stays("mcp_server_url", auth.mcp_server_url, body["auth"])
        secret = auth.token
    elif isinstance(auth, EnvironmentVariableUpdate):
        _check_stays("secret_name", auth.secret_name, body["auth"])
        secret = auth.secret_value
        merged["auth"] = {
            **body["auth"],
            "injection_location": {"header": True, "body": True},
        }
    return merged, secret


def _check_stays(name: str, given: str | None, auth: dict[str, Any]) -> None:
    if given is not None and given != auth[name]:
        raise InvalidRequestError(
            f"auth.{name}: this credential is for {auth[name]} and stays so; create another one",
            field="auth",
        )


def _refuse_duplicate(connection: Connection, vault_id: str, auth: dict[str, Any]) -> None:
    key = "mcp_server_url" if auth["type"] == "static_bearer" else "secret_name"
    rows = connection.execute(
        "SELECT id, body FROM credentials WHERE vault_id = ? AND archived_at IS NULL", (vault_id,)
    ).fetchall()
    for row in rows:
        if json.loads(row["body"])["auth"].get(key) == auth[key]:
            raise ConflictError(
                f"auth.{key}: credential {row['id']} of this vault is already for {auth[key]}; "
                "update it, or archive it first"
            )
    if len(rows) >= MAX_CREDENTIALS:
        raise InvalidRequestError(
            f"vault {vault_id} has {MAX_CREDENTIALS} credentials, the most it may have; "
            "archive some, or use another vault"
        )


def _select(connection: Connection, vault_id: str, credential_id: str) -> Credential:
    row = connection.execute(
        "SELECT * FROM credentials WHERE id = ? AND vault_id = ?", (credential_id, vault_id)
    ).fetchone()
    if row is None:
        raise NotFoundError(f"credential {credential_id} does not exist in vault {vault_id}")
    return Credential.from_row(row)
