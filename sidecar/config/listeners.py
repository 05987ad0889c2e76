"""Settings of the public listener, the admin listener, the console, logs and tracing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sidecar.config.base import Host, Seconds, SettingsGroup, Url, is_loopback
from sidecar.errors import SettingsError


class HttpSettings(SettingsGroup):
    """The public listener, which clients talk to."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_HTTP_")

    host: Host | None = Field(None, validation_alias="HOST")
    """Address to listen on. Unset: `0.0.0.0` with `RUNTIME_API_KEY`, else `127.0.0.1`, because anyone
    who reaches this port runs code. `::` and `*` serve IPv6 and IPv4."""
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, validation_alias="PORT")
    """TCP port; 0 picks a free one (printed at start)."""
    runtime_api_key: SecretStr | None = Field(None, validation_alias="RUNTIME_API_KEY")
    """Key that clients send as `x-api-key` or `Authorization: Bearer`."""
    allow_anonymous: bool = False
    """Serve a non-loopback address without a key. Only behind something else that authenticates."""
    max_connections: Annotated[int, Field(ge=1)] = 2000
    """Requests that are answered at once, event streams included; above it 503 with `retry-after`. Fewer
    where the descriptor limit does not suffice. Probes have room beyond it."""
    max_streams: Annotated[int, Field(ge=1)] = 1000
    """Event streams that are open at once; above it 429."""
    header_seconds: Seconds = 10.0
    """How long a request's header may take, seconds; then 408 and the connection is closed."""
    write_stall_seconds: Seconds = 60.0
    """How long a client may read nothing of an answer that waits for it, seconds; then the connection is
    cut."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Largest request body on routes that carry content (events, session create, opencode's prompts), bytes
    (the hosted API's limit); above it 413."""
    plain_body_limit_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    """Largest request body on all other routes, bytes; above it 413."""
    bodies_in_flight_bytes: Annotated[int, Field(ge=1024)] = 128 * 1024 * 1024
    """Size of all request bodies that are received or worked on at the same time, bytes; above it 529 with
    `retry-after`. Bodies up to 64 KiB are always let in. Budget three times this in memory."""
    body_values: Annotated[int, Field(ge=1)] = 50_000
    """Values that the JSON of one body may have, counted as its commas and brackets; above it 413."""
    body_silence_seconds: Seconds = 20.0
    """Longest pause inside a request body, seconds; then 408. On average it must bring 1 KiB per second."""
    list_bytes: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    """Size at which a page of any list ends, bytes of what is stored; `next_page` leads to the rest. A list
    of events without `limit` has no other end."""
    heartbeat_seconds: Seconds = 15.0
    """Longest silence on an event stream, seconds; proxies and SDKs cut longer ones."""
    native_backlog_bytes: Annotated[int, Field(ge=1_000_000)] = 64_000_000
    """What waits at most for one reader of opencode's own events, bytes. A slower one is cut; it connects
    anew and reads everything again, as opencode's clients do."""
    keepalive_seconds: Seconds = 120.0
    """Idle time before a kept-alive connection is closed, seconds. Above the 90 s for which LAP pools
    connections, so that it never reuses one that we are just closing."""
    late_reader_seconds: Seconds = 15.0
    """Grace, seconds, in which a reader that comes after the end of a turn gets it replayed."""
    bookkeeping_events: bool = False
    """Send `span.*`, `session.usage` and `session.thread_status_*` to every caller. Off: only to official
    SDKs, and to callers that ask with `types[]` or `event_deltas[]`. LAP shows none of them, and pays for
    each at every list."""
    replay_pause_seconds: Annotated[float, Field(ge=0)] = 0.5
    """How long that replay waits for a prompt, seconds. A reader that opens before it sends its prompt wants
    none."""
    channel_pause_seconds: Annotated[float, Field(ge=0)] = 5.0
    """The same after a turn that such a reader seems to have read, seconds: the next one is probably its
    like again, and its prompt may be slow."""

    def effective_host(self) -> str:
        """Return the address to bind. Raises SettingsError for an open, unauthenticated one."""
        if self.host is None:
            return "0.0.0.0" if self.runtime_api_key or self.allow_anonymous else "127.0.0.1"  # noqa: S104  # only with a key
        if not (is_loopback(self.host) or self.runtime_api_key or self.allow_anonymous):
            raise SettingsError(
                f"HOST={self.host} would let anyone on the network run code here: set RUNTIME_API_KEY, "
                "or SIDECAR_HTTP_ALLOW_ANONYMOUS=1 if something in front authenticates"
            )
        return self.host


class AdminSettings(SettingsGroup):
    """Metrics and administration, on a listener of their own."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_ADMIN_")

    is_enabled: bool = Field(True, validation_alias="SIDECAR_ADMIN_ENABLED")
    """Serve `/metrics` and `/admin/*`."""
    host: Host = "127.0.0.1"
    """Address to listen on. Anything but loopback needs the key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """TCP port; 0 picks a free one (logged at start). The default gives way to a free one when it is
    taken, a port that was set does not."""
    key: SecretStr | None = None
    """Key for this listener, sent as `x-api-key` or `Authorization: Bearer`. Unset:
    `RUNTIME_API_KEY` for all but the metrics."""
    anonymous_metrics: bool = False
    """Serve `GET /metrics` without the key, for scrapers that cannot send one."""

    def check(self) -> None:
        """Raise SettingsError for an open, unauthenticated address."""
        if self.is_enabled and not (is_loopback(self.host) or self.key):
            raise SettingsError(
                f"SIDECAR_ADMIN_HOST={self.host} would let anyone on the network restart opencode: "
                "set SIDECAR_ADMIN_KEY"
            )


class ConsoleSettings(SettingsGroup):
    """The console, pages for people at `/console`."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_CONSOLE_")

    is_enabled: bool = Field(True, validation_alias="SIDECAR_CONSOLE_ENABLED")
    """Serve `/console`. It asks for `RUNTIME_API_KEY`, and for none where the API asks for none."""
    session_seconds: Seconds = 12 * 3600.0
    """How long one is signed in, seconds."""
    attempts_per_minute: Annotated[int, Field(ge=1)] = 10
    """Wrong keys that one address may send in a minute, and all together ten times as many; above it 429
    without a look at the key. Who is signed in is not affected."""
    recent_turns: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Turns, and as many model requests, that are kept in memory for the chart."""


class LogSettings(SettingsGroup):
    """What is logged and how."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_LOG_")

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is console on a terminal and JSON lines otherwise."""
    loop_stall_seconds: Seconds = 0.05
    """Processor time for which something may hold the event loop, seconds; more is logged, with what held it,
    and counted in `event_loop_stalls_total`. Everything else waits meanwhile."""


class TracingSettings(SettingsGroup):
    """Where traces go. The exporter reads OpenTelemetry's other variables itself."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_TRACING_")

    endpoint: Url | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """OTLP over HTTP, for example `http://collector:4318`. Needs the extra `otel`. Unset: no spans; a
    caller's `traceparent` reaches the gateway all the same."""
