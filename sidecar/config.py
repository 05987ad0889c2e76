"""Settings: one class per concern, every field with its unit and reason.

Names that deployments of LAP already use (`HOST`, `PORT`, `LITELLM_BASE_URL`, ...) are kept as they
are; everything else is `SIDECAR_<GROUP>_<FIELD>`. An unknown `SIDECAR_*` variable stops the start:
a misspelt setting that silently does nothing is worse than a refused one. Each secret may come from a
file named by `<NAME>_FILE`. The README's table is generated from this module (`python -m sidecar
config --markdown`).
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import ipaddress
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SourceError

from sidecar.errors import SettingsError

_PREFIX = "SIDECAR_"
_FILE_SUFFIX = "_FILE"

CommaList = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list; blanks around items and empty items are dropped."""

Seconds = Annotated[float, Field(gt=0)]


def _without_trailing_slash(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_without_trailing_slash)]


def _default_data_dir() -> Path:
    state_home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state_home) / "opencode-sidecar"


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `<NAME>_FILE` for every secret field, as Docker and Kubernetes mount secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = env_name(self.settings_cls, field_name)
        path = os.environ.get(f"{name}{_FILE_SUFFIX}")
        if not path or not is_secret(field):
            return None, field_name, False
        if os.environ.get(name):
            raise SettingsError(f"{name} and {name}{_FILE_SUFFIX} are both set; keep one of them")
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except OSError as error:
            raise SettingsError(f"{name}{_FILE_SUFFIX}: cannot read {path}: {error}") from error

    def __call__(self) -> dict[str, Any]:
        found = {}
        for field_name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, field_name)
            if value is not None:
                found[field_name] = value
        return found


class SettingsGroup(BaseSettings):
    """One concern. Immutable; read once at start."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the hook's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @field_validator("*", mode="before")
    @classmethod
    def _split_comma_lists(cls, value: object, info: Any) -> object:
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, str) and annotation == tuple[str, ...]:
            return tuple(item.strip() for item in value.split(",") if item.strip())
        return value


class HttpSettings(SettingsGroup):
    """The face that clients talk to."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_HTTP_")

    host: str | None = Field(None, validation_alias="HOST")
    """Address to listen on. Unset: `0.0.0.0` with `RUNTIME_API_KEY`, else `127.0.0.1`, because whoever
    reaches this port runs code."""
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, validation_alias="PORT")
    """TCP port; 0 picks a free one (printed at start)."""
    runtime_api_key: SecretStr | None = Field(None, validation_alias="RUNTIME_API_KEY")
    """Key that clients send as `x-api-key` or `Authorization: Bearer`."""
    allow_anonymous: bool = False
    """Serve a non-loopback address without a key. Only behind something else that authenticates."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Largest request body, bytes (the hosted API's limit); above it 413."""
    heartbeat_seconds: Seconds = 15.0
    """Longest silence on an event stream, seconds; proxies and SDKs cut longer ones."""
    keepalive_seconds: Seconds = 120.0
    """Idle time before a kept-alive connection is closed, seconds. Above the 90 s for which LAP pools
    connections, so that it never reuses one that we are just closing."""
    late_reader_seconds: Seconds = 15.0
    """Grace, seconds, in which one further reader gets a finished turn replayed (sub-agents of LAP)."""

    def effective_host(self) -> str:
        """Return the address to bind. Raises SettingsError for an open, unauthenticated one."""
        if self.host is None:
            return "0.0.0.0" if self.runtime_api_key or self.allow_anonymous else "127.0.0.1"  # noqa: S104  # only with a key
        if not (_is_loopback(self.host) or self.runtime_api_key or self.allow_anonymous):
            raise SettingsError(
                f"HOST={self.host} would let anyone on the network run code here: set RUNTIME_API_KEY, "
                "or SIDECAR_HTTP_ALLOW_ANONYMOUS=1 if something in front authenticates"
            )
        return self.host


class StorageSettings(SettingsGroup):
    """Where durable things are. A restart needs only this directory."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_STORAGE_")

    data_dir: Path = Field(default_factory=_default_data_dir, validation_alias="DATA_DIR")
    """Directory of everything durable. Default: the user's state directory; `/data` in the image."""
    db_path: Path | None = Field(None, validation_alias="DB_PATH")
    """SQLite file. Default `<DATA_DIR>/sidecar.db`."""
    workdir: Path | None = Field(None, validation_alias="WORKDIR")
    """Parent of the sessions' directories. Default `<DATA_DIR>/workspaces`."""
    synchronous: Literal["NORMAL", "FULL"] = "FULL"
    """SQLite's `synchronous`. FULL survives power loss; NORMAL survives a crash of the process and is
    about twice as fast per commit."""

    @property
    def database_file(self) -> Path:
        return self.db_path or self.data_dir / "sidecar.db"

    @property
    def workspaces_dir(self) -> Path:
        return self.workdir or self.data_dir / "workspaces"


class GatewaySettings(SettingsGroup):
    """The LiteLLM gateway and the catalogue made from it."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_GATEWAY_")

    base_url: Url | None = Field(None, validation_alias="LITELLM_BASE_URL")
    """The gateway's URL, with or without `/v1`. Unset: an embedded demo gateway on loopback."""
    api_key: SecretStr | None = Field(None, validation_alias="LITELLM_API_KEY")
    """The gateway's key. Stays in this process: the child gets a per-boot token for our relay."""
    models: CommaList = Field((), validation_alias="LITELLM_MODELS")
    """Fallback model ids, used only while the gateway has never answered. Never required."""
    default_model: str | None = Field(None, validation_alias="LITELLM_DEFAULT_MODEL")
    """Model for opencode's own default and small calls. Unset: the first listed model."""
    refresh_seconds: Seconds = 60.0
    """Age at which the catalogue is read again, seconds."""
    miss_refresh_seconds: Seconds = 3.0
    """An unknown model name forces one refresh if the catalogue is older than this, seconds."""
    connect_timeout_seconds: Seconds = 5.0
    """Bound for connecting to the gateway, seconds."""
    list_timeout_seconds: Seconds = 20.0
    """Bound for one model-list request, seconds (hundreds of models take LiteLLM half a second)."""
    first_byte_timeout_seconds: Seconds = 300.0
    """Bound for a model call's response headers, seconds. Reasoning models think before they answer."""
    idle_timeout_seconds: Seconds = 300.0
    """Bound for silence inside a streamed model answer, seconds."""
    include: CommaList = ()
    """Globs of model ids to list; empty lists all chat models."""
    exclude: CommaList = ()
    """Globs of model ids to hide from the list (a hidden model can still be named)."""
    aliases: Annotated[dict[str, str], Field(default_factory=dict)]
    """JSON object of further names: `{"fast": "openai/gpt-4o-mini"}`."""
    overrides: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]
    """JSON object per model id that wins over what the gateway says, for example
    `{"m": {"max_input_tokens": 200000, "wire": "messages"}}`."""
    claude_wire: Literal["messages", "chat"] = "messages"
    """Wire format for Claude models: `messages` keeps thinking blocks and cache control."""
    default_wire: Literal["messages", "chat"] = "chat"
    """Wire format for all other models. `messages` for a gateway without chat completions (LAP)."""


class ChildSettings(SettingsGroup):
    """The supervised `opencode serve` process."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_CHILD_")

    port: Annotated[int, Field(ge=0, le=65535)] = Field(0, validation_alias="OPENCODE_PORT")
    """Loopback port of the child; 0 picks a free one."""
    binary: Path | None = None
    """The opencode executable. Unset: the pinned one under `deploy/opencode`, else `opencode` on PATH."""
    start_timeout_seconds: Seconds = 60.0
    """Bound from spawn to the first healthy answer, seconds (3.4 s measured warm, 6 s cold)."""
    health_interval_seconds: Seconds = 10.0
    """Pause between health checks, seconds."""
    health_timeout_seconds: Seconds = 20.0
    """A child that answers no health check for this long is replaced, seconds. Busy is not dead: under
    full load a check took up to 2 s."""
    request_timeout_seconds: Seconds = 60.0
    """Bound for one ordinary request to the child, seconds."""
    prompt_wait_seconds: Seconds = 90.0
    """How long a prompt waits for a child that is down or starting before its turn fails, seconds."""
    drain_seconds: Seconds = 20.0
    """How long running turns may finish when the sidecar stops, seconds. Keep it below the
    platform's termination grace period."""
    idle_dispose_seconds: Seconds = 600.0
    """A session's directory that is idle for this long is unloaded from the child, seconds."""
    max_instances: Annotated[int, Field(ge=1)] = 60
    """Directories loaded in the child at once; the longest idle one is unloaded first. Each costs
    4 to 5 MB and, on some kernels, memory maps that are never given back."""
    max_rss_bytes: Annotated[int, Field(ge=0)] = 1_500_000_000
    """Resident size above which an idle child is replaced, bytes; 0 never."""
    max_maps: Annotated[int, Field(ge=0)] = 30_000
    """Memory-map count above which the child is replaced when idle; at 65530 it hangs for good. 0 never."""
    restart_first_delay_seconds: Seconds = 0.5
    """First back-off after a crash, seconds; doubles up to 30 s."""
    crash_loop_limit: Annotated[int, Field(ge=1)] = 8
    """Crashes without a stable minute in between after which the sidecar gives up and exits with 3."""
    url: Url | None = Field(None, validation_alias="OPENCODE_URL")
    """An opencode that runs elsewhere, in another container of the pod: none is started here (attach
    mode, docs/operations.md). It must see the same files under the same paths."""
    password: SecretStr | None = Field(None, validation_alias="OPENCODE_SERVER_PASSWORD")
    """Password of that opencode. A child that we start ourselves gets a new one at each start."""
    restart_command: str | None = None
    """Command that restarts the attached opencode, split like a shell would. Unset: when a restart is
    needed the sidecar ends with exit code 3 and leaves the rest to the platform."""
    forward_native: bool = True
    """Forward the safe part of opencode's own API on the same port."""
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "WARN"
    """opencode's own log level; its lines are re-logged with `source=child`."""


class AdminSettings(SettingsGroup):
    """Metrics and administration, on a listener of their own."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_ADMIN_")

    is_enabled: bool = Field(True, validation_alias="SIDECAR_ADMIN_ENABLED")
    """Serve `/metrics` and `/admin/*`."""
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs the key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """TCP port; 0 picks a free one (logged at start). The default gives way to a free one when it is
    taken, a port that was set does not."""
    key: SecretStr | None = None
    """Key for this listener, sent as `x-api-key` or `Authorization: Bearer`."""
    anonymous_metrics: bool = False
    """Serve `GET /metrics` without the key, for scrapers that cannot send one."""

    def check(self) -> None:
        """Raise SettingsError for an open, unauthenticated address."""
        if self.is_enabled and not (_is_loopback(self.host) or self.key):
            raise SettingsError(
                f"SIDECAR_ADMIN_HOST={self.host} would let anyone on the network restart opencode: "
                "set SIDECAR_ADMIN_KEY"
            )


class RelaySettings(SettingsGroup):
    """The relay through which opencode reaches the gateway; to be fixed only in attach mode."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_RELAY_")

    host: str = "127.0.0.1"
    """Address to listen on. Containers of one pod share the loopback; elsewhere `0.0.0.0`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """TCP port; 0 picks a free one, which only a child that we start ourselves can be told."""
    token: SecretStr | None = None
    """What opencode authenticates with. Unset: a new one for every start of the sidecar."""
    url: Url | None = None
    """How opencode reaches the relay, ending in `/v1`. Unset: loopback."""

    def reached_at(self) -> str:
        """Return our host as opencode sees it."""
        return (urlsplit(self.url).hostname if self.url else None) or "127.0.0.1"


class TracingSettings(SettingsGroup):
    """Where traces go. The exporter reads OpenTelemetry's other variables itself."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_TRACING_")

    endpoint: Url | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """OTLP over HTTP, for example `http://collector:4318`. Needs the extra `otel`. Unset: no spans; a
    caller's `traceparent` reaches the gateway all the same."""


class TurnSettings(SettingsGroup):
    """How long turns may take and how much may wait."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_TURN_")

    max_seconds: Seconds = 7200.0
    """Upper bound of one turn, seconds; it then ends with `session.error`. Tools may be silent for long."""
    watchdog_seconds: Seconds = 30.0
    """Silence of a running turn after which opencode is asked whether it still works on it, seconds."""
    max_queued_messages: Annotated[int, Field(ge=1)] = 100
    """User messages that may wait on one busy session; more answer 429."""
    retry_notice_seconds: Annotated[float, Field(ge=0)] = 2.0
    """A gateway retry that waits at least this long is shown as `session.status_rescheduled`, seconds;
    clients' sample loops stop at any error event, so short hiccups stay silent."""
    split_messages: bool = False
    """Emit long answers as several `agent.message` events at paragraph ends, for clients that type as
    they read and know no previews."""
    retention_days: Annotated[float, Field(ge=0)] = 30.0
    """Sessions without activity, and agents no session refers to, are deleted after this many days;
    0 keeps everything. LAP makes an agent per session and never deletes one."""


class RuntimesSettings(SettingsGroup):
    """Model lists of other runtimes (`GET /v1/models?runtime=`), each off unless its key is set."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_RUNTIMES_")

    anthropic_api_key: SecretStr | None = Field(None, validation_alias="ANTHROPIC_API_KEY")
    """Anthropic's key for `runtime=anthropic`. Used for the list only, never for turns."""
    anthropic_base_url: Url | None = Field(None, validation_alias="ANTHROPIC_BASE_URL")
    """Anthropic's URL. Unset: `https://api.anthropic.com`."""
    cursor_api_key: SecretStr | None = Field(None, validation_alias="CURSOR_API_KEY")
    """Cursor's key for `runtime=cursor`. Used for the list only."""
    cursor_base_url: Url | None = Field(None, validation_alias="CURSOR_BASE_URL")
    """Cursor's URL. Unset: `https://api.cursor.com`."""
    refresh_seconds: Seconds = 300.0
    """Age at which such a list is read again when somebody asks for it, seconds."""


class VaultSettings(SettingsGroup):
    """How stored secrets are protected."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_VAULT_")

    key: SecretStr | None = None
    """Key for secrets at rest: 32 bytes in base64 (`openssl rand -base64 32`). Unset: made once into
    `<DATA_DIR>/secret.key`. Losing it loses the secrets, so a wrong one refuses to start."""


class RepositorySettings(SettingsGroup):
    """Repositories that are cloned into sessions."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_REPOSITORY_")

    clone_timeout_seconds: Seconds = 600.0
    """Bound for one clone with its checkout, seconds."""
    max_bytes: Annotated[int, Field(ge=1024)] = 2_000_000_000
    """Largest clone, history and files together, bytes."""
    max_parallel: Annotated[int, Field(ge=1)] = 4
    """Clones at the same time over all sessions; further ones wait."""


class LogSettings(SettingsGroup):
    """What is logged and how."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_LOG_")

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is console on a terminal and JSON lines otherwise."""


class Settings(BaseModel):
    """All settings. `Settings.load()` reads and checks the environment once."""

    model_config = ConfigDict(frozen=True)

    http: HttpSettings
    storage: StorageSettings
    gateway: GatewaySettings
    child: ChildSettings
    turn: TurnSettings
    runtimes: RuntimesSettings = Field(default_factory=RuntimesSettings)
    vault: VaultSettings = Field(default_factory=VaultSettings)
    repository: RepositorySettings = Field(default_factory=RepositorySettings)
    log: LogSettings
    admin: AdminSettings = Field(default_factory=AdminSettings)
    relay: RelaySettings = Field(default_factory=RelaySettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)

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
        settings.check_attached()
        return settings

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

    def secret_values(self) -> list[str]:
        """Return every secret in clear, for masking logs and terminal output."""
        groups = (getattr(self, name) for name, _ in _groups())
        values = (getattr(group, name) for group in groups for name in type(group).model_fields)
        return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


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


def env_name(group: type[BaseSettings], field_name: str) -> str:
    """Return the environment variable of a field."""
    alias = group.model_fields[field_name].validation_alias
    if isinstance(alias, str):
        return alias
    return f"{group.model_config.get('env_prefix', '')}{field_name}".upper()


def variables() -> Iterator[tuple[type[SettingsGroup], str, FieldInfo]]:
    """Yield (group, environment variable, field) for every setting, in the order of this file."""
    for _, group in _groups():
        for field_name, field in group.model_fields.items():
            yield group, env_name(group, field_name), field


@functools.cache
def meanings() -> Mapping[str, str]:
    """Return what each environment variable means: the docstring below its field, as one line.

    pydantic's `use_attribute_docstrings` would read the source once per class, at every start, to know
    what only documentation needs.
    """
    found = {}
    tree = ast.parse(inspect.getsource(sys.modules[__name__]))
    bodies = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    for _, group in _groups():
        for statement, below in itertools.pairwise(bodies[group.__name__]):
            match statement, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=field_name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[env_name(group, field_name)] = " ".join(text.split())
    return found


def is_secret(field: FieldInfo) -> bool:
    """Whether the setting is a secret: masked when shown, and readable from `<NAME>_FILE`."""
    return SecretStr.__name__ in repr(field.annotation)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {name for _, name, _ in variables()}
    known |= {"SIDECAR_API_KEY", "SIDECAR_BASE_URL"}  # the SDK's, for reaching a sidecar
    known |= {name + _FILE_SUFFIX for _, name, field in variables() if is_secret(field)}
    for name in environ:
        if name.startswith(_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.0)
            raise SettingsError(f"unknown setting {name}; did you mean {near[0]}?")


def _explain(error: ValidationError) -> str:
    group = next((g for _, g in _groups() if g.__name__ == error.title), None)
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        where = str(item["loc"][0]) if item["loc"] else ""
        if group is not None and where in group.model_fields:
            where = env_name(group, where)
        lines.append(f"{where}: {item['msg']}")
    return "; ".join(lines)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
