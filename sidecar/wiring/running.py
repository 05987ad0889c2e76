"""What a running sidecar consists of."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.gateway.catalogue import Catalogue
from sidecar.gateway.relay import Relay
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.service import Sessions
from sidecar.opencode.child import Child
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.instances import Instances
from sidecar.store.interface import Store
from sidecar.wiring.gateway import Gateway


@dataclass(frozen=True, slots=True)
class RunningSidecar:
    """A running sidecar."""

    url: str
    admin_url: str | None
    gateway: Gateway
    supervisor: Child
    catalogue: Catalogue
    config_file: ConfigFile
    instances: Instances
    engine: SessionEngine
    relay: Relay
    log: EventLog
    database: Store
    sessions: Sessions
