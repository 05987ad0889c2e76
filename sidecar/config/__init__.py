"""Settings: one class per concern, every field with its unit and reason.

Names that deployments of LAP already use (`HOST`, `PORT`, `LITELLM_BASE_URL`, ...) are kept as they
are; everything else is `SIDECAR_<GROUP>_<FIELD>`. An unknown `SIDECAR_*` variable stops the start:
a misspelt setting that silently does nothing is worse than a refused one. Each secret may come from a
file named by `<NAME>_FILE`. The README's table is generated from this module (`python -m sidecar
config --markdown`).
"""

from sidecar.config.archive import ArchiveSettings
from sidecar.config.base import SettingsGroup, env_name, is_secret
from sidecar.config.cluster import ClusterSettings
from sidecar.config.engine import (
    ChildSettings,
    ConfinementSettings,
    PackageSettings,
    RepositorySettings,
    StorageSettings,
    TurnSettings,
    VaultSettings,
)
from sidecar.config.gateway import GatewaySettings, RelaySettings, RuntimesSettings, WebSettings
from sidecar.config.listeners import (
    AdminSettings,
    ConsoleSettings,
    HttpSettings,
    LogSettings,
    TracingSettings,
)
from sidecar.config.loading import Settings, meanings, trimmed_variables, variables

__all__ = [
    "AdminSettings",
    "ArchiveSettings",
    "ChildSettings",
    "ClusterSettings",
    "ConfinementSettings",
    "ConsoleSettings",
    "GatewaySettings",
    "HttpSettings",
    "LogSettings",
    "PackageSettings",
    "RelaySettings",
    "RepositorySettings",
    "RuntimesSettings",
    "Settings",
    "SettingsGroup",
    "StorageSettings",
    "TracingSettings",
    "TurnSettings",
    "VaultSettings",
    "WebSettings",
    "env_name",
    "is_secret",
    "meanings",
    "trimmed_variables",
    "variables",
]
