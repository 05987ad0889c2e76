"""Vaults: named sets of credentials that a session may use. What they hold is in `credentials`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from sidecar.errors import InvalidRequestError, NotFoundError
from sidecar.ids import is_id, new_id
from sidecar.managed.common import pagination, timestamps
from sidecar.managed.common.metadata import merge_metadata
from sidecar.managed.common.resource_row import Stored
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.managed.vaults.encryption import DecryptionError, SecretBox
from sidecar.store.interface import Connection, Row, Store
from sidecar.wire.vaults import VaultCreate, VaultUpdate

_log = structlog.get_logger(__name__)


class Vault(Stored):
    """A row of `vaults`."""

    __slots__ = ()
    table = "vaults"
    type = "vault"


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What a session may use, in clear. Never logged, never stored: `repr` shows names only."""

    bearer_by_url: Mapping[str, str]
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return f"SessionSecrets(urls={list(self.bearer_by_url)}, names={list(self.environment)})"


class Vaults:
    """Create, read, update, list, archive and delete vaults; open their secrets for a session."""

    def __init__(
        self, *, database: Store, secret_box: SecretBox, limits: StoredLimits | None = None
    ) -> None:
        self._database = database
        self._limits = limits or StoredLimits()
        self._secret_box = secret_box

    async def create(self, request: VaultCreate) -> Vault:
        """Store an empty vault."""
        body = {
            "display_name": request.display_name,
            "metadata": dict(request.metadata or {}),
        }
        vault = Vault.new(new_id("vlt"), body)

        def insert(connection: Connection) -> None:
            self._limits.check(connection, "vaults")
            vault.insert(connection)

        await self._database.write(insert)
        return vault

    async def get(self, vault_id: str) -> Vault:
        """Return it. Raises NotFoundError."""
        return await self._database.read(lambda connection: select(connection, vault_id))

    async def update(self, vault_id: str, request: VaultUpdate) -> Vault:
        """Change name or metadata. Raises InvalidRequestError when archived."""

        def write(connection: Connection) -> Vault:
            connection.lock_row("vaults", vault_id)
            current = select_active(connection, vault_id)
            body = dict(current.body)
            if request.display_name is not None:
                body["display_name"] = request.display_name
            if request.metadata is not None:
                body["metadata"] = merge_metadata(body["metadata"], request.metadata)
            return current if body == current.body else current.with_body(connection, body)

        return await self._database.write(write)

    async def archive(self, vault_id: str) -> Vault:
        """Archive it with all its credentials and erase their secrets. Idempotent."""

        def write(connection: Connection) -> Vault:
            connection.lock_row("vaults", vault_id)
            current = select(connection, vault_id)
            if current.archived_at is not None:
                return current
            now = timestamps.now()
            connection.note_erasure()
            connection.execute(
                "UPDATE vaults SET archived_at = ?, updated_at = ? WHERE id = ?",
                (now, now, vault_id),
            )
            connection.execute(
                "UPDATE credentials SET archived_at = ?, updated_at = ?, secret = NULL "
                "WHERE vault_id = ? AND archived_at IS NULL",
                (now, now, vault_id),
            )
            return select(connection, vault_id)

        return await self._database.write(write)

    async def delete(self, vault_id: str) -> None:
        """Delete it with its credentials. Sessions that name it go on without them."""

        def write(connection: Connection) -> None:
            select(connection, vault_id)
            connection.note_erasure()
            connection.execute("DELETE FROM vaults WHERE id = ?", (vault_id,))

        await self._database.write(write)

    async def list(self, query: pagination.Query, *, include_archived: bool) -> pagination.Envelope:
        """Return a page."""
        return await Vault.page(self._database, query, include_archived=include_archived)

    async def check(self, vault_ids: Sequence[str]) -> None:
        """See that a new session may use these vaults. Raises InvalidRequestError for the first bad one."""

        def check(connection: Connection) -> None:
            for vault_id in vault_ids:
                _check_usable(connection, vault_id)

        if vault_ids:
            await self._database.read(check)

    async def secrets_for(self, vault_ids: Sequence[str]) -> SessionSecrets:
        """Return what these vaults hold now; of two for the same URL or name, the earlier vault wins.

        Vaults that were deleted or archived since add nothing. A secret that does not open is logged
        and left out: the agent's command or MCP server then says what it misses.
        """
        if not vault_ids:
            return SessionSecrets({}, {})
        bearers: dict[str, str] = {}
        variables: dict[str, str] = {}
        for row in await self._database.read(lambda c: _select_secrets(c, vault_ids)):
            auth = json.loads(row["body"])["auth"]
            try:
                secret = self._secret_box.decrypt(row["secret"], bound_to=row["id"])
            except DecryptionError as error:
                _log.error("credential left out", credential=row["id"], error=error.message)
                continue
            if auth["type"] == "static_bearer":
                bearers.setdefault(auth["mcp_server_url"], secret)
            else:
                variables.setdefault(auth["secret_name"], secret)
        return SessionSecrets(bearers, variables)

    async def bearers_for(self, vault_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the tokens by MCP server URL."""
        return (await self.secrets_for(vault_ids)).bearer_by_url


def select(connection: Connection, vault_id: str) -> Vault:
    """Return the vault. Raises NotFoundError."""
    row = connection.execute("SELECT * FROM vaults WHERE id = ?", (vault_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"vault {vault_id} does not exist")
    return Vault.from_row(row)


def select_active(connection: Connection, vault_id: str) -> Vault:
    """Return the vault. Raises NotFoundError, and InvalidRequestError when it is archived."""
    vault = select(connection, vault_id)
    if vault.archived_at is not None:
        raise InvalidRequestError(f"vault {vault_id} is archived and can no longer be changed")
    return vault


def _check_usable(connection: Connection, vault_id: str) -> None:
    row = None
    if is_id(vault_id, "vlt"):
        row = connection.execute(
            "SELECT archived_at FROM vaults WHERE id = ?", (vault_id,)
        ).fetchone()
    if row is None:
        raise InvalidRequestError(
            f"vault_ids: vault {vault_id[:80]!r} does not exist", field="vault_ids"
        )
    if row["archived_at"] is not None:
        raise InvalidRequestError(
            f"vault_ids: vault {vault_id} is archived; use another one", field="vault_ids"
        )


def _select_secrets(connection: Connection, vault_ids: Sequence[str]) -> list[Row]:
    """Return the live credentials in the order of the vaults."""
    query = (
        "SELECT id, body, secret FROM credentials "
        "WHERE vault_id = ? AND archived_at IS NULL AND secret IS NOT NULL ORDER BY created_at, id"
    )
    return [row for vault_id in vault_ids for row in connection.execute(query, (vault_id,))]
