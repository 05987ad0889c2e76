"""Which variables the shells of a session's directory get: those of the session's vaults, as they are now,
and where the programs of its packages are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sidecar.errors import NotFoundError
from sidecar.ids import is_id
from sidecar.managed.sessions.table import select_session
from sidecar.managed.turns.state import PACKAGES
from sidecar.managed.vaults.vaults import Vaults
from sidecar.managed.workspaces.packages import PATH_FOLDERS
from sidecar.store.interface import Store

PATH_PREFIX = "SIDECAR_PATH_PREFIX"
"""What our plug-in puts in front of the PATH of a shell; only opencode knows that PATH."""


class ShellVariables:
    """Read afresh for every command, so a rotated or archived credential counts at once."""

    def __init__(self, *, database: Store, vaults: Vaults, workspaces_dir: Path) -> None:
        self._database = database
        self._vaults = vaults
        self._workspaces_dir = workspaces_dir

    async def of_directory(self, directory: Path) -> Mapping[str, str]:
        """Return the variables; none for a directory that does not belong to a session."""
        if directory.parent != self._workspaces_dir or not is_id(directory.name, "sesn"):
            return {}
        try:
            record = await self._database.read(lambda c: select_session(c, directory.name))
        except NotFoundError:
            return {}
        given = (await self._vaults.secrets_for(record.body["vault_ids"])).environment
        if not record.body.get(PACKAGES):
            return given
        folders = os.pathsep.join(str(directory / folder) for folder in PATH_FOLDERS)
        return {**given, PATH_PREFIX: folders}
