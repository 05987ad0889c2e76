"""Request bodies of the Managed Agents API: vaults and their credentials.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits. The other
kinds of credentials (`mcp_oauth`) are refused by name.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from yarl import URL

from sidecar.wire.fields import Body, LeftOut, Metadata, MetadataPatch, check_token
from sidecar.wire.problems import shown
from sidecar.wire.urls import check_no_secret

AUTH_TYPES = ("static_bearer", "environment_variable")

RESERVED_NAMES = frozenset(
    {
        # the shell finds its programs, its files and its start-up scripts by these
        *("PATH", "HOME", "SHELL", "PWD", "OLDPWD", "TMPDIR", "TERM", "USER", "LOGNAME", "IFS"),
        *("ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "PROMPT_COMMAND", "PS4", "CDPATH"),
        # code that interpreters run before the command's own
        *("NODE_OPTIONS", "NODE_PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME"),
        *("PERL5OPT", "PERL5LIB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS"),
        *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_PROXY_COMMAND"),
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_EDITOR", "GIT_PAGER", "GIT_EXTERNAL_DIFF"),
    }
)
RESERVED_PREFIXES = (
    *("LD_", "DYLD_", "GLIBC_", "BASH_FUNC_", "BUN_", "GIT_CONFIG"),
    *("XDG_", "OPENCODE_", "SIDECAR_"),
)

ALLOWED_NAMES = frozenset({"OPENCODE_API_KEY"})
"""Of the reserved prefixes: a key that people have, which steers nothing here."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_MAX_VALUE_BYTES = 64 * 1024
"""Linux allows 128 KiB for one variable, and the shell needs others."""


def _check_url(value: str) -> str:
    try:
        url = URL(value)
        is_good = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        is_good = False
    if not is_good or any(character.isspace() for character in value):
        raise ValueError("must be an http:// or https:// URL")
    return check_no_secret(value, place="the token goes into its own field")


def _check_name(value: str) -> str:
    if not _VARIABLE.match(value):
        raise ValueError(
            "must be a variable name: letters, digits and _, not beginning with a digit"
        )
    name = value.upper()
    is_reserved = name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES)
    if is_reserved and name not in ALLOWED_NAMES:
        raise ValueError(f"{value} is reserved: it steers programs; choose another name")
    return value


def _check_value(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    if len(value.encode()) > _MAX_VALUE_BYTES:
        raise ValueError(f"must have at most {_MAX_VALUE_BYTES} bytes")
    return value


DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
McpUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_check_url)]
Token = Annotated[
    str, StringConstraints(min_length=1, max_length=16_384), AfterValidator(check_token)
]
VariableName = Annotated[str, AfterValidator(_check_name)]
VariableValue = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_value)]


class Networking(Body):
    """Where the secret may go. Only `unrestricted`: the shell gets the value, and nothing here could
    keep it from other hosts."""

    type: Literal["unrestricted"]

    @model_validator(mode="before")
    @classmethod
    def _name_the_limit(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") == "limited":
            raise ValueError(
                "limited is not supported: this sidecar gives the variable to the session's shell and "
                'cannot limit the hosts it reaches; send {"type": "unrestricted"}'
            )
        return data


def _everywhere(value: bool | None) -> bool | None:
    if value is False:
        raise ValueError(
            "cannot be turned off: this sidecar gives the variable to the session's shell and cannot limit "
            "where a command puts it; leave the field out"
        )
    return value


Everywhere = Annotated[bool | None, AfterValidator(_everywhere)]


class InjectionLocation(Body):
    """Both: the shell's own programs decide where they put the value."""

    header: Everywhere = None
    body: Everywhere = None


def _known_auth(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") not in AUTH_TYPES:
        raise ValueError(
            f"type {shown(value.get('type'))} is not offered by this sidecar; use {' or '.join(AUTH_TYPES)}"
        )
    return value


class StaticBearer(Body):
    """A token for one MCP server."""

    type: Literal["static_bearer"]
    mcp_server_url: McpUrl
    token: Token


class EnvironmentVariable(Body):
    """A variable for the shells of the sessions that use the vault. LAP sends no `networking`."""

    type: Literal["environment_variable"]
    secret_name: VariableName
    secret_value: VariableValue
    networking: Annotated[Networking | None, LeftOut] = None
    injection_location: InjectionLocation | None = None


class StaticBearerUpdate(Body):
    """A new token; the URL stays, and may be sent again."""

    type: Literal["static_bearer"]
    mcp_server_url: str | None = None
    token: Token | None = None


class EnvironmentVariableUpdate(Body):
    """A new value; the name stays, and may be sent again."""

    type: Literal["environment_variable"]
    secret_name: str | None = None
    secret_value: VariableValue | None = None
    networking: Annotated[Networking | None, LeftOut] = None
    injection_location: InjectionLocation | None = None


Auth = Annotated[
    Annotated[StaticBearer | EnvironmentVariable, Field(discriminator="type")],
    BeforeValidator(_known_auth),
]
AuthUpdate = Annotated[
    Annotated[StaticBearerUpdate | EnvironmentVariableUpdate, Field(discriminator="type")],
    BeforeValidator(_known_auth),
]


class VaultCreate(Body):
    """`POST /v1/vaults`."""

    display_name: DisplayName
    metadata: Metadata | None = None


class VaultUpdate(Body):
    """`POST /v1/vaults/{id}`: omitted or null keeps the name; metadata is a patch."""

    display_name: DisplayName | None = None
    metadata: MetadataPatch | None = None


class CredentialCreate(Body):
    """`POST /v1/vaults/{id}/credentials`."""

    auth: Auth
    display_name: Annotated[str, StringConstraints(max_length=255)] | None = None
    metadata: Metadata | None = None


class CredentialUpdate(Body):
    """`POST /v1/vaults/{id}/credentials/{credential}`: the type and what names the credential stay."""

    auth: AuthUpdate | None = None
    display_name: DisplayName | None = None
    metadata: MetadataPatch | None = None
