"""Settings of what does the work: storage, the child, turns, vaults, repositories."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sidecar.config.base import CommaList, KeyedUrl, Seconds, SettingsGroup
from sidecar.errors import SettingsError

KEY_FILE = "secret.key"
"""Name of the vault key's file in the data directory."""


def _default_data_dir() -> Path:
    state_home = os.environ.get("XDG_STATE_HOME")
    return Path(state_home or _home() / ".local" / "state") / "opencode-sidecar"


def _home() -> Path:
    try:
        home = os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError as error:
        raise SettingsError(
            "DATA_DIR: is not set, and there is no home directory for its default (HOME is not set, and the "
            f"user {os.getuid()} is in no passwd file); set DATA_DIR to a directory that lasts"
        ) from error
    return Path(home)


class StorageSettings(SettingsGroup):
    """Where durable things are. A restart needs only this directory, or the database and the key."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_STORAGE_")

    data_dir: Path = Field(default_factory=_default_data_dir, validation_alias="DATA_DIR")
    """Directory of everything durable. Default: the user's state directory; `/data` in the image."""
    database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    """PostgreSQL instead of the SQLite file: `postgresql://user:password@host:5432/database`. Several
    sidecars may then serve one API (docs/scale.md). Needs the extra `postgres`, `SIDECAR_VAULT_KEY` and
    `SIDECAR_CLUSTER_KEY`."""
    database_patience_seconds: Seconds = 10.0
    """How long an unreachable PostgreSQL is waited for before a request or a turn fails, seconds."""
    db_path: Path | None = Field(None, validation_alias="DB_PATH")
    """SQLite file. Default `<DATA_DIR>/sidecar.db`."""
    workdir: Path | None = Field(None, validation_alias="WORKDIR")
    """Parent of the sessions' directories. Default `<DATA_DIR>/workspaces`."""
    synchronous: Literal["NORMAL", "FULL"] = "FULL"
    """SQLite's `synchronous`. FULL survives power loss; NORMAL survives a crash of the process and is
    about twice as fast per commit."""

    max_agents: Annotated[int, Field(ge=1)] = 100_000
    """Agents that may be stored, archived ones included; above it 429. What no session uses ages out, see
    `SIDECAR_TURN_RETENTION_DAYS`."""
    max_agent_versions: Annotated[int, Field(ge=1)] = 10_000
    """Versions that one agent may have; above it 429."""
    max_environments: Annotated[int, Field(ge=1)] = 100_000
    """Environments that may be stored, archived ones included; above it 429."""
    max_vaults: Annotated[int, Field(ge=1)] = 100_000
    """Vaults that may be stored, archived ones included; above it 429."""
    max_vault_credentials: Annotated[int, Field(ge=1)] = 1000
    """Credentials that one vault may have, archived ones included; above it 429."""
    max_sessions: Annotated[int, Field(ge=1)] = 100_000
    """Sessions that may be stored, archived ones included; above it 429."""

    def check(self) -> None:
        """Raise SettingsError for a URL that is not one of PostgreSQL."""
        url = self.database_url.get_secret_value() if self.database_url else None
        if url is not None and not url.startswith(("postgresql://", "postgres://")):
            raise SettingsError(
                "DATABASE_URL: must begin with postgresql://; without it the store is SQLite"
            )

    check_seconds: Seconds = 15.0
    """How often it is checked that the database can be written, seconds. While it cannot be, `/readyz` is
    503."""
    max_workspace_bytes: Annotated[int, Field(ge=1_000_000)] = 10_000_000_000
    """What a session's directory, its HOME and its TMPDIR may take on the disk together, bytes. With more,
    its processes are ended and its turn fails; it may go on, and delete files, while it does not grow."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 500_000_000
    """When less of the disk of the sessions' directories is free, bytes (on a small disk a quarter of it),
    the session that is filling it is stopped in the same way. An eighth of this is kept for the store, in the
    file `reserve` of the data directory."""

    @property
    def database_file(self) -> Path:
        return self.db_path or self.data_dir / "sidecar.db"

    @property
    def key_file(self) -> Path:
        """Where the vault key is kept when none is configured."""
        return self.data_dir / KEY_FILE

    @property
    def workspaces_dir(self) -> Path:
        return self.workdir or self.data_dir / "workspaces"


class ChildSettings(SettingsGroup):
    """The supervised `opencode serve` process."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_CHILD_")

    port: Annotated[int, Field(ge=0, le=65535)] = Field(0, validation_alias="OPENCODE_PORT")
    """Loopback port of the child; 0 picks a free one."""
    binary: Path | None = None
    """The opencode executable. Unset: the pinned one under `deploy/opencode`, else `opencode` on PATH.
    One that does not start and prints no version is refused with exit code 2."""
    start_timeout_seconds: Seconds = 60.0
    """Bound from spawn to the first healthy answer, seconds (3.4 s measured warm, 6 s cold). Time in which
    it works, or waits for a processor, does not count, see `SIDECAR_CHILD_BUSY_LIMIT_SECONDS`."""
    health_interval_seconds: Seconds = 10.0
    """Pause between health checks, seconds."""
    health_timeout_seconds: Seconds = 20.0
    """A child that answers no health check for this long, and shows no other sign of life (processor time,
    events, model requests), is replaced, seconds."""
    busy_limit_seconds: Seconds = 600.0
    """A child that works but answers no health check for this long is replaced all the same, seconds: it may
    be in an endless loop. With 200 turns in one process checks were unanswered for 70 s."""
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
    max_rss_bytes: Annotated[int, Field(ge=0)] = 1_000_000_000
    """Resident size above which the child is replaced, bytes; 0 never. Where opencode runs beside us (no
    `OPENCODE_URL`), the one that is replaced finishes its turns beside the next one: leave room for both."""
    max_maps: Annotated[int, Field(ge=0)] = 30_000
    """Memory-map count above which the child is replaced; at 65530 it hangs for good. 0 never."""
    retirement_seconds: Seconds = 7200.0
    """How long an opencode that was replaced (memory, a broken config, an operator) may go on with the turns
    that it has, seconds; then they end with `session.error`. New turns go to the next one meanwhile, so that
    there are two for so long."""
    restart_patience_seconds: Seconds = 300.0
    """How long a replaced opencode stays for turns that only wait for their client, seconds: they can go on
    in the next one. Where two cannot run side by side (attach mode, `OPENCODE_PORT`): how long a planned
    restart waits for a moment without running turns; then new ones are held so that it comes, for half of
    the time that a prompt waits."""
    spare: bool = False
    """Keep a second opencode that takes over at once when the first one dies. Costs its memory, 300 MB, all
    the time; without it the next prompt waits about 5 s for a start. Needs `OPENCODE_PORT` 0."""
    restart_first_delay_seconds: Seconds = 0.5
    """First back-off after a crash, seconds; doubles up to 30 s."""
    crash_loop_limit: Annotated[int, Field(ge=1)] = 8
    """Crashes without a stable minute in between after which the sidecar gives up and exits with 3."""
    url: KeyedUrl | None = Field(None, validation_alias="OPENCODE_URL")
    """An opencode that runs elsewhere, in another container of the pod: none is started here (attach
    mode, docs/operations.md). It must see the same files under the same paths."""
    password: SecretStr | None = Field(None, validation_alias="OPENCODE_SERVER_PASSWORD")
    """Password of that opencode. A child that we start ourselves gets a new one at each start."""
    restart_command: str | None = None
    """Command that restarts the attached opencode, split like a shell would. Unset: when a restart is
    needed its process is ended, and where that is not known the sidecar ends with exit code 3; the rest
    is the platform's business."""
    forward_native: bool = True
    """Forward the safe part of opencode's own API on the same port."""
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "WARN"
    """opencode's own log level; its lines are re-logged with `source=child`."""

    def check(self) -> None:
        """Raise SettingsError for a spare where two opencodes cannot run side by side."""
        if self.spare and (self.url is not None or self.port):
            raise SettingsError(
                "SIDECAR_CHILD_SPARE: with OPENCODE_URL or OPENCODE_PORT there can be only one opencode"
            )


class ConfinementSettings(SettingsGroup):
    """The walls around opencode and around each session's commands (docs/threat-model.md)."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_CONFINEMENT_")

    mode: Literal["required", "auto", "off"] = Field("auto", validation_alias="SIDECAR_CONFINEMENT")
    """`required` starts only where all of it holds (Linux 6.12), `auto` confines as far as the kernel can and
    warns of what it cannot, `off` lets agents do what the sidecar's user can."""
    readable: CommaList = ()
    """Further paths that opencode and agents may read, comma-separated; the system's directories and the
    programs on PATH are readable anyway."""
    max_processes: Annotated[int, Field(ge=8)] = 1024
    """Processes that one session may have at the same time; with more, all of them are ended."""
    max_user_processes: Annotated[int, Field(ge=64)] = 16_384
    """Processes and threads of this user beyond which no agent starts another one; the kernel counts
    those of all sessions together. Not enforced for root."""
    max_file_bytes: Annotated[int, Field(ge=1_000_000)] = 10_000_000_000
    """Largest file that an agent's command may write, bytes."""
    max_open_files: Annotated[int, Field(ge=64)] = 65_536
    """Files that one process of an agent may have open, within the limit that the sidecar itself has."""
    terminals: bool = False
    """Let commands make pseudo-terminals (`script`, `tmux`, `expect`). They can then read and write all
    terminals of this user as well: that of `make run`, of `kubectl exec -it`."""


class TurnSettings(SettingsGroup):
    """How long turns may take and how much may wait."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_TURN_")

    max_seconds: Seconds = 7200.0
    """Upper bound of one turn, seconds; it then ends with `session.error`. Tools may be silent for long."""
    max_model_requests: Annotated[int, Field(ge=1)] = 500
    """Model requests of one turn, sub-agents' included; then it ends with `session.error`."""
    max_requests_without_progress: Annotated[int, Field(ge=1)] = 12
    """Model requests of one turn in a row that bring neither a tool call nor a finished message; then it
    ends with `session.error`. opencode itself tries a failed request 5 more times."""
    watchdog_seconds: Seconds = 30.0
    """Silence of a running turn after which opencode is asked whether it still works on it, seconds."""
    max_running: Annotated[int, Field(ge=1)] = 32
    """Turns that opencode works on at once; further ones wait in order. It is one thread, which too many
    turns keep from answering anything (docs/reliability.md has what others cost). Turns that wait
    for their client do not count."""
    max_waiting: Annotated[int, Field(ge=0)] = 1000
    """Turns that may wait for one of those places; then a message that would begin another is refused with
    529 and `retry-after`."""
    max_queued_messages: Annotated[int, Field(ge=1)] = 100
    """User messages that may wait on one busy session; more answer 429."""
    max_queued_bytes: Annotated[int, Field(ge=1)] = 64_000_000
    """Size of all that waits on one session, bytes: it is kept in memory. More answer 429."""
    retry_notice_seconds: Annotated[float, Field(ge=0)] = 2.0
    """A gateway retry that waits at least this long is shown as `session.status_rescheduled`, seconds;
    clients' sample loops stop at any error event, so short hiccups stay silent."""
    interrupt_wait_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long the answer to `user.interrupt` waits for the end of the turn to be stored, seconds; 0
    answers at once. A client that sends its next message after that answer reads the next turn only."""
    split_messages: bool = False
    """Emit long answers as several `agent.message` events at paragraph ends, for clients that type as
    they read and know no previews."""
    retention_days: Annotated[float, Field(ge=0)] = 30.0
    """Sessions without activity, and agents, environments and vaults that no session used, are deleted
    after this many days; 0 keeps everything. LAP makes them per session and never deletes one."""


class VaultSettings(SettingsGroup):
    """How stored secrets are protected."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_VAULT_")

    key: SecretStr | None = None
    """Key for secrets at rest: 32 bytes in base64 (`openssl rand -base64 32`). Unset: made once into
    `<DATA_DIR>/secret.key`. Losing it loses the secrets, so a wrong one refuses to start."""


class PackageSettings(SettingsGroup):
    """Packages of environments that are installed into sessions."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_PACKAGES_")

    timeout_seconds: Seconds = 600.0
    """Bound for installing one session's packages, seconds; then its turn ends with `session.error`."""
    max_parallel: Annotated[int, Field(ge=1)] = 4
    """Sessions whose packages are installed at the same time; further ones wait, within their own bound."""


class RepositorySettings(SettingsGroup):
    """Repositories that are cloned into sessions."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_REPOSITORY_")

    clone_timeout_seconds: Seconds = 600.0
    """Bound for one clone with its checkout, seconds."""
    max_bytes: Annotated[int, Field(ge=1024)] = 2_000_000_000
    """Largest clone, history and files together, bytes."""
    max_parallel: Annotated[int, Field(ge=1)] = 4
    """Clones at the same time over all sessions; further ones wait."""
