"""Reads the environment once, refuses what it does not know, and lists all settings."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings.exceptions import SettingsError as SourceError

from sidecar.config.archive import ArchiveSettings
from sidecar.config.base import FILE_SUFFIX, SettingsGroup, env_name, is_secret
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
from sidecar.errors import SettingsError
from sidecar.masking import passwords_in
from sidecar.wire.problems import problems_of

_PREFIX = "SIDECAR_"


class Settings(BaseModel):
    """All settings. `Settings.load()` reads and checks the environment once."""

    model_config = ConfigDict(frozen=True)

    http: HttpSettings
    storage: StorageSettings
    gateway: GatewaySettings
    child: ChildSettings
    confinement: ConfinementSettings = Field(default_factory=ConfinementSettings)
    turn: TurnSettings
    runtimes: RuntimesSettings = Field(default_factory=RuntimesSettings)
    cluster: ClusterSettings = Field(default_factory=ClusterSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    vault: VaultSettings = Field(default_factory=VaultSettings)
    repository: RepositorySettings = Field(default_factory=RepositorySettings)
    packages: PackageSettings = Field(default_factory=PackageSettings)
    log: LogSettings
    admin: AdminSettings = Field(default_factory=AdminSettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)
    relay: RelaySettings = Field(default_factory=RelaySettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)
    web: WebSettings = Field(default_factory=WebSettings)

    @classmethod
    def load(cls, **groups: SettingsGroup) -> Settings:
        """Read the environment. Raises SettingsError that names the variable and the fix."""
        _refuse_unknown(os.environ)
        try:
            made = {name: groups.get(name) or _read(group) for name, group in _groups()}
            settings = cls(**made)
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error
        settings.http.effective_host()
        settings.admin.check()
        settings.gateway.check()
        settings.web.networks()
        settings.child.check()
        settings.check_attached()
        settings.check_database()
        return settings

    def check_database(self) -> None:
        """Raise SettingsError when several pods could not share what these settings say."""
        self.storage.check()
        self.cluster.check()
        self.check_archive()
        if self.storage.database_url is None:
            return
        if self.child.url is not None:
            raise SettingsError(
                "OPENCODE_URL cannot be used with DATABASE_URL: an opencode that runs elsewhere cannot be "
                "ended when another pod takes its sessions"
            )
        for name, is_given, why in (
            ("SIDECAR_VAULT_KEY", self.vault.key, "every pod must open the stored secrets"),
            ("SIDECAR_CLUSTER_KEY", self.cluster.key, "pods show it to each other"),
        ):
            if not is_given:
                raise SettingsError(
                    f"DATABASE_URL needs {name}: {why}; make one with `openssl rand -base64 32`"
                )

    def check_archive(self) -> None:
        """Raise SettingsError when archives are wanted and cannot be, or are described and not wanted."""
        self.archive.check()
        if self.cluster.workspace != "archive":
            if self.archive.url is not None:
                raise SettingsError("SIDECAR_ARCHIVE_URL needs SIDECAR_WORKSPACE=archive")
        elif self.storage.database_url is None:
            raise SettingsError(
                "SIDECAR_WORKSPACE=archive needs DATABASE_URL: one pod alone keeps its sessions' files"
            )
        elif self.archive.url is None:
            raise SettingsError(
                "SIDECAR_WORKSPACE=archive needs SIDECAR_ARCHIVE_URL: s3://bucket/folder or file:///directory"
            )

    def check_attached(self) -> None:
        """Raise SettingsError when an attached opencode could not work with these settings."""
        if self.child.url is None:
            return
        missing = [
            name
            for name, is_given in (
                ("OPENCODE_SERVER_PASSWORD", self.child.password is not None),
                ("SIDECAR_RELAY_TOKEN", self.relay.token is not None),
                ("SIDECAR_RELAY_PORT", self.relay.port > 0),
            )
            if not is_given
        ]
        if missing:
            raise SettingsError(
                f"OPENCODE_URL needs {', '.join(missing)}: what the other container's environment "
                "says cannot change with every start (see `opencode-sidecar child-env`)"
            )

    @staticmethod
    def secret_files() -> list[Path]:
        """Return the files that `<NAME>_FILE` variables name."""
        names = (name + FILE_SUFFIX for _, name, field in variables() if is_secret(field))
        return [Path(os.environ[name]) for name in names if os.environ.get(name)]

    def secret_values(self) -> list[str]:
        """Return every secret in clear, for masking logs and terminal output.

        Also the passwords in URLs, which may be secrets themselves, and in those of proxies.
        """
        groups = [getattr(self, name) for name, _ in _groups()]
        values = [getattr(group, name) for group in groups for name in type(group).model_fields]
        secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        urls = [*secrets, *(value for value in values if isinstance(value, str))]
        urls += [f"http://{v}" for n, v in os.environ.items() if n.lower().endswith("_proxy")]
        return [*secrets, *(password for url in urls for password in passwords_in(url))]


def _read(group: type[SettingsGroup]) -> SettingsGroup:
    try:
        return group()
    except SourceError as error:
        quoted = re.search(r'field "(\w+)"', str(error))
        name = env_name(group, quoted[1]) if quoted else group.__name__
        raise SettingsError(f"{name}: is not JSON") from error


def _groups() -> Iterator[tuple[str, type[SettingsGroup]]]:
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        yield name, field.annotation


def variables() -> Iterator[tuple[type[SettingsGroup], str, FieldInfo]]:
    """Yield (group, environment variable, field) for every setting, in the order of this file."""
    for _, group in _groups():
        for field_name, field in group.model_fields.items():
            yield group, env_name(group, field_name), field


def trimmed_variables() -> list[str]:
    """Return the set variables whose value has blanks or line breaks around it, which are ignored."""
    values = {name: os.environ.get(name, "") for _, name, _ in variables()}
    return sorted(name for name, value in values.items() if value != value.strip())


@functools.cache
def meanings() -> Mapping[str, str]:
    """Return what each environment variable means: the docstring below its field, as one line.

    pydantic's `use_attribute_docstrings` would read the source once per class, at every start, to know
    what only documentation needs.
    """
    found = {}
    for _, group in _groups():
        (definition,) = ast.parse(inspect.getsource(group)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, below in itertools.pairwise(definition.body):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=field_name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[env_name(group, field_name)] = " ".join(text.split())
    return found


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {name for _, name, _ in variables()}
    known |= {"SIDECAR_API_KEY", "SIDECAR_BASE_URL"}  # the SDK's, for reaching a sidecar
    known |= {name + FILE_SUFFIX for _, name, field in variables() if is_secret(field)}
    for name in environ:
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)
            raise SettingsError(f"unknown setting {name}; did you mean {near[0]}?")


def _explain(error: ValidationError) -> str:
    group = next((g for _, g in _groups() if g.__name__ == error.title), None)
    lines = []
    for problem in problems_of(error):
        where = str(problem.path[0]) if problem.path else ""
        if group is not None and where in group.model_fields:
            where = env_name(group, where)
        inner = ".".join(str(step) for step in problem.path[1:])
        text = f"{inner}: {problem.text}" if inner else problem.text
        lines.append(f"{where}: {text}" if where else text)
    return "; ".join(lines)
