"""Environments: a named sandbox description. Stored and answered; one sandbox serves all (the pod)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sidecar.errors import InvalidRequestError, NotFoundError
from sidecar.ids import new_id
from sidecar.managed.common import pagination, timestamps
from sidecar.managed.common.metadata import merge_metadata
from sidecar.managed.common.resource_row import Stored
from sidecar.managed.common.stored_limits import StoredLimits
from sidecar.store.interface import Connection, Store
from sidecar.wire.environments import (
    CloudConfig,
    EnvironmentCreate,
    EnvironmentUpdate,
    Packages,
    SelfHostedConfig,
)


class Environment(Stored):
    """A row of `environments`."""

    __slots__ = ()
    table = "environments"
    type = "environment"


class Environments:
    """Create, read, update, list, archive and delete environments."""

    def __init__(
        self,
        *,
        database: Store,
        limits: StoredLimits | None = None,
        has_manager: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        """`has_manager`: whether agents' shells find that package manager. It looks at files."""
        self._database = database
        self._limits = limits or StoredLimits()
        self._has_manager = has_manager

    async def create(self, request: EnvironmentCreate) -> Environment:
        """Store a new environment; without a config it is the cloud one with no limits.

        Raises InvalidRequestError for packages that cannot be installed here.
        """
        config = request.config or CloudConfig(type="cloud")
        await self._check_packages(config)
        body = {
            "name": request.name,
            "description": request.description,
            "config": config.model_dump(),
            "metadata": dict(request.metadata or {}),
            "scope": request.scope,
        }
        environment = Environment.new(new_id("env"), body)

        def insert(connection: Connection) -> None:
            self._limits.check(connection, "environments")
            environment.insert(connection)

        await self._database.write(insert)
        return environment

    async def get(self, environment_id: str) -> Environment:
        """Return it. Raises NotFoundError."""
        return await self._database.read(lambda connection: select(connection, environment_id))

    async def update(self, environment_id: str, request: EnvironmentUpdate) -> Environment:
        """Apply an update; the kind of config cannot change. Raises InvalidRequestError."""
        if request.config is not None:
            await self._check_packages(request.config)

        def write(connection: Connection) -> Environment:
            connection.lock_row("environments", environment_id)
            current = select(connection, environment_id)
            if current.archived_at is not None:
                raise InvalidRequestError(
                    f"environment {environment_id} is archived and can no longer be changed",
                    error_code="environment_archived",
                )
            body = _merged(current.body, request)
            return current if body == current.body else current.with_body(connection, body)

        return await self._database.write(write)

    async def _check_packages(self, config: CloudConfig | SelfHostedConfig) -> None:
        """Raise InvalidRequestError where the manager of one is missing: every turn would fail."""
        packages = config.packages if isinstance(config, CloudConfig) else Packages()
        for name in ("pip", "npm"):
            if getattr(packages, name) and not await asyncio.to_thread(self._has_manager, name):
                raise InvalidRequestError(
                    f"config.packages.{name}: there is no {name} on this server; install it where the "
                    "sidecar runs, or put the packages there (docs/deploy.md)",
                    field=f"config.packages.{name}",
                )

    async def archive(self, environment_id: str) -> Environment:
        """Refuse new sessions on it from now on; existing ones go on. Idempotent."""

        def write(connection: Connection) -> Environment:
            connection.execute(
                "UPDATE environments SET archived_at = coalesce(archived_at, ?) WHERE id = ?",
                (timestamps.now(), environment_id),
            )
            return select(connection, environment_id)

        return await self._database.write(write)

    async def delete(self, environment_id: str) -> None:
        """Delete it. Raises InvalidRequestError while sessions refer to it."""

        def write(connection: Connection) -> None:
            connection.lock_row("environments", environment_id)
            select(connection, environment_id)
            (users,) = connection.execute(
                "SELECT count(*) FROM sessions WHERE environment_id = ?", (environment_id,)
            ).fetchone()
            if users:
                raise InvalidRequestError(
                    f"environment {environment_id} is used by {users} session(s); delete those "
                    "first, or archive the environment"
                )
            connection.execute("DELETE FROM environments WHERE id = ?", (environment_id,))

        await self._database.write(write)

    async def list(self, query: pagination.Query, *, include_archived: bool) -> pagination.Envelope:
        """Return a page."""
        return await Environment.page(self._database, query, include_archived=include_archived)


def select(connection: Connection, environment_id: str) -> Environment:
    """Return the environment. Raises NotFoundError."""
    row = connection.execute(
        "SELECT * FROM environments WHERE id = ?", (environment_id,)
    ).fetchone()
    if row is None:
        raise NotFoundError(
            f"environment {environment_id} does not exist", error_code="environment_not_found"
        )
    return Environment.from_row(row)


def _merged(body: dict[str, Any], request: EnvironmentUpdate) -> dict[str, Any]:
    merged = dict(body)
    if request.name is not None:
        merged["name"] = request.name
    for field in ("description", "scope"):
        if field in request.model_fields_set:
            merged[field] = getattr(request, field)
    if request.config is not None:
        if request.config.type != body["config"]["type"]:
            raise InvalidRequestError(
                f"config.type: an environment of type {body['config']['type']} cannot become "
                f"{request.config.type}; create another environment",
                field="config",
                error_code="invalid_config_type_change",
            )
        sent = request.config.model_dump(include=request.config.model_fields_set)
        merged["config"] = {**body["config"], **sent}
    if request.metadata is not None:
        # Here, unlike for agents, an empty string deletes as well.
        patch = {key: value or None for key, value in request.metadata.items()}
        merged["metadata"] = merge_metadata(body["metadata"], patch)
    return merged
