"""Settings of where models come from: the gateway, the relay to it, other runtimes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sidecar.config.base import CommaList, Host, KeyedUrl, Seconds, SettingsGroup, Url
from sidecar.errors import SettingsError


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
    miss_refresh_seconds: Seconds = 1.0
    """Shortest time between two reads of the gateway's lists for unknown model names, seconds. A name is
    refused only by a list that was read after its request came; all who wait share one read."""
    connect_timeout_seconds: Seconds = 5.0
    """Bound for connecting to the gateway, seconds."""
    list_timeout_seconds: Seconds = 20.0
    """Bound for one model-list request, seconds (hundreds of models take LiteLLM half a second)."""
    first_byte_timeout_seconds: Seconds = 300.0
    """Bound for a model call's response headers, seconds. Reasoning models think before they answer."""
    idle_timeout_seconds: Seconds = 300.0
    """Bound for silence inside a streamed model answer, seconds."""
    stalled_seconds: Seconds = 900.0
    """How long a streamed answer may bring nothing but signs of life (comments, pings, empty pieces),
    seconds; then it is a broken answer, which opencode asks for again, at most 5 times."""
    first_event_seconds: Annotated[float, Field(ge=0, le=280)] = 120.0
    """How long an answer's headers may wait for its first event, seconds from the request on: an error that
    comes before it is answered with its HTTP status. opencode waits 300 s for headers. 0: do not wait."""
    repair_streams: bool = True
    """Repair streamed answers that the AI SDK inside opencode cannot read (docs/gateways.md). Off: every
    event passes as it came."""
    max_retry_after_seconds: Seconds = 60.0
    """Longest pause that the gateway's `retry-after` may make opencode wait, seconds; it has no bound of its
    own. After the pause it asks again, at most 5 times, and then the turn says why."""
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

    def check(self) -> None:
        """Raise SettingsError for two ways to authenticate, which one header cannot carry."""
        if self.base_url is None or self.api_key is None:
            return
        parts = urlsplit(self.base_url)
        if parts.username is not None or parts.password is not None:
            raise SettingsError(
                "LITELLM_BASE_URL: has a user or password in it, and LITELLM_API_KEY is set: the gateway "
                "gets one of them in the Authorization header, not both; take the part before @ out of "
                "the URL, or unset the key"
            )


class WebSettings(SettingsGroup):
    """The agents' `web_fetch`, done by the sidecar, and `web_search`, done by the gateway."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_WEB_")

    search_tool: Annotated[str, Field(max_length=256)] | None = None
    """Name of a search tool of the gateway (LiteLLM's `search_tools`). Unset: agents have no `web_search`,
    which is answered as not enabled."""
    search_timeout_seconds: Seconds = 30.0
    """Bound for one search, seconds."""
    timeout_seconds: Seconds = 30.0
    """Bound for one fetch with its redirects and its conversion, seconds. A call may ask for less."""
    max_bytes: Annotated[int, Field(ge=1024)] = 5_000_000
    """Largest page or image that is fetched, bytes, decompressed."""
    max_text_chars: Annotated[int, Field(ge=1000)] = 200_000
    """Characters of a page that a model is given; the rest is cut. opencode shows it 50 kB of them and keeps
    the whole in a file."""
    max_parallel: Annotated[int, Field(ge=1)] = 16
    """Fetches at the same time over all sessions; further ones wait, within their own bound."""
    private_networks: CommaList = ()
    """Networks that agents may reach though they are not public, comma-separated: `10.0.0.0/8`, an intranet.
    All other private, loopback and link-local addresses are refused, whatever a name leads to."""

    def networks(self) -> list[IPv4Network | IPv6Network]:
        """Return the private networks. Raises SettingsError for what is none."""
        networks = []
        for text in self.private_networks:
            try:
                networks.append(ip_network(text))
            except ValueError as error:
                raise SettingsError(
                    f"SIDECAR_WEB_PRIVATE_NETWORKS: {text!r} is not a network such as 10.0.0.0/8: {error}"
                ) from error
        return networks


class RelaySettings(SettingsGroup):
    """The relay through which opencode reaches the gateway; to be fixed only in attach mode."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_RELAY_")

    host: Host = "127.0.0.1"
    """Address to listen on. Containers of one pod share the loopback; elsewhere `0.0.0.0`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """TCP port; 0 picks a free one, which works only with a child that we start ourselves."""
    token: SecretStr | None = None
    """What opencode authenticates with. Unset: a new one for every start of the sidecar."""
    url: KeyedUrl | None = None
    """How opencode reaches the relay, ending in `/v1`. Unset: loopback."""

    def reached_at(self) -> str:
        """Return our host as opencode sees it."""
        return (urlsplit(self.url).hostname if self.url else None) or "127.0.0.1"


class RuntimesSettings(SettingsGroup):
    """Model lists of other runtimes (`GET /v1/models?runtime=`), each off unless its key is set."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_RUNTIMES_")

    anthropic_api_key: SecretStr | None = Field(None, validation_alias="ANTHROPIC_API_KEY")
    """Anthropic's key for `runtime=anthropic`. Used for the list only, never for turns."""
    anthropic_base_url: Url | None = Field(None, validation_alias="ANTHROPIC_BASE_URL")
    """Anthropic's URL. Unset: `https://api.anthropic.com`."""
    cursor_api_key: SecretStr | None = Field(None, validation_alias="CURSOR_API_KEY")
    """Cursor's key for `runtime=cursor`. Used for the list only."""
    cursor_base_url: KeyedUrl | None = Field(None, validation_alias="CURSOR_BASE_URL")
    """Cursor's URL. Unset: `https://api.cursor.com`."""
    refresh_seconds: Seconds = 300.0
    """Age at which such a list is read again at the next request for it, seconds."""
