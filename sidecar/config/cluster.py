"""Settings of several pods over one PostgreSQL; without `DATABASE_URL` none of them counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sidecar.config.base import Host, Seconds, SettingsGroup
from sidecar.errors import SettingsError

_LEAST_HEARTBEATS = 3
"""A lease outlives this many heartbeats, so that one that is late costs nothing."""


class ClusterSettings(SettingsGroup):
    """How pods find each other, and when one is taken for dead."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_CLUSTER_")

    key: SecretStr | None = None
    """Key that pods show each other on the internal listener. Required with `DATABASE_URL`, and the same
    in all pods. `new,old` shows the first and takes both: to change it, roll out `old,new`, `new,old` and
    `new`."""
    host: Annotated[Host, Field(validate_default=True)] = "*"
    """Address that the internal listener binds: of both families, as a pod's address may be IPv6."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """TCP port of the internal listener; 0 picks a free one."""
    address: Host | None = None
    """Host name or IP address under which other pods reach this one. Unset: the address of the interface
    that leads to the database; in Kubernetes that is the pod's."""
    lease_seconds: Seconds = 30.0
    """A pod that could not renew its row in the database for this long is dead: its sessions may be taken.
    It has stopped its own opencode at two thirds of it."""
    heartbeat_seconds: Seconds = 5.0
    """Pause between two renewals, seconds; also how often sessions of dead pods are looked for."""
    owner_wait_seconds: Seconds = 8.0
    """How long a request waits for a session whose pod has just died, seconds; then 503 with
    `retry-after`."""
    workspace: Literal["local", "shared", "archive"] = Field(
        "local", validation_alias="SIDECAR_WORKSPACE"
    )
    """Where the sessions' files are. `local`: on this pod's volume, so that a session waits for its pod.
    `shared`: `WORKDIR` is one volume that all pods mount, and any pod may go on with a session. `archive`: on
    this pod's volume, and after each turn in a bucket or directory (`SIDECAR_ARCHIVE_URL`), from which any
    pod restores them."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are taken; the first is shown. Empty without `DATABASE_URL`."""
        given = self.key.get_secret_value() if self.key is not None else ""
        return tuple(filter(None, (key.strip() for key in given.split(","))))

    def check(self) -> None:
        """Raise SettingsError for a key of nothing, and for a lease that ends between two heartbeats."""
        if self.key is not None and not self.keys:
            raise SettingsError("SIDECAR_CLUSTER_KEY: there is no key between the commas")
        if self.lease_seconds < _LEAST_HEARTBEATS * self.heartbeat_seconds:
            raise SettingsError(
                f"SIDECAR_CLUSTER_LEASE_SECONDS={self.lease_seconds:g}: must be at least "
                f"{_LEAST_HEARTBEATS} times SIDECAR_CLUSTER_HEARTBEAT_SECONDS "
                f"({self.heartbeat_seconds:g})"
            )
