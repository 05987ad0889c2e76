"""Request bodies of environments.

Source: the parameter types of the official Python SDK 2.14.0 and the documented limits.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from sidecar.wire.fields import (
    Body,
    Description,
    Items,
    LeftOut,
    Metadata,
    MetadataPatch,
    Name,
    left_out,
    or_default,
)
from sidecar.wire.problems import shown


def _package(value: str) -> str:
    # It becomes one argument of the package manager, which must not take it for an option or a path.
    if not _PACKAGE.fullmatch(value):
        raise ValueError(f"{value[:80]!r} is not a package's name with, maybe, its version")
    return value


def _no_manager(name: str) -> AfterValidator:
    def check(value: list[str]) -> list[str]:
        if value:
            raise ValueError(
                f"{name} packages are not offered: agents cannot install into the system, and only pip and "
                "npm install into a session's directory; put them into the image that the sidecar runs in"
            )
        return value

    return AfterValidator(check)


_PACKAGE = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._/\[\],@=<>~!^*+ -]{0,254}")
InstalledPackages = Annotated[
    Items[Annotated[str, AfterValidator(_package)]],
    Field(max_length=100),
    BeforeValidator(lambda value: [] if value is None else value),
]
_NONE: list[str] = []
"""A default, of which pydantic gives each model a copy."""
_Names = Annotated[Items[str], BeforeValidator(lambda value: [] if value is None else value)]


class Packages(Body):
    """Packages by manager, installed into each session's directory before its first turn."""

    type: Literal["packages"] = "packages"
    apt: Annotated[_Names, _no_manager("apt")] = _NONE
    cargo: Annotated[_Names, _no_manager("cargo")] = _NONE
    gem: Annotated[_Names, _no_manager("gem")] = _NONE
    go: Annotated[_Names, _no_manager("go")] = _NONE
    npm: InstalledPackages = _NONE
    pip: InstalledPackages = _NONE


def _unlimited(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "limited":
        raise ValueError(
            "limited is not offered: this sidecar cannot limit which hosts a session's commands reach (the "
            'platform around it can, see docs/deploy.md); send {"type": "unrestricted"}'
        )
    return {"type": "unrestricted"} if value is None or value == {} else value


class UnrestrictedNetwork(Body):
    """No network policy."""

    type: Literal["unrestricted"]


class CloudConfig(Body):
    """Our own sandbox: the container the sidecar runs in."""

    type: Literal["cloud"]
    networking: Annotated[UnrestrictedNetwork, BeforeValidator(_unlimited)] = UnrestrictedNetwork(
        type="unrestricted"
    )
    packages: Annotated[Packages, or_default({})] = Packages()


class SelfHostedConfig(Body):
    """Built-in tools run at the client. Not offered; environments of earlier versions may be of this kind."""

    type: Literal["self_hosted"]


def _cloud_only(value: Any) -> Any:
    if isinstance(value, dict) and value and value.get("type") != "cloud":
        if "type" not in value:
            raise ValueError("must be an object with a 'type'")
        if value["type"] == "self_hosted":
            raise ValueError(
                "type 'self_hosted' is not offered by this sidecar, which runs the built-in tools itself; it "
                "takes 'cloud'"
            )
        raise ValueError(
            f"type {shown(value['type'])} is not offered by this sidecar; it takes 'cloud'"
        )
    return left_out(value)


EnvironmentConfig = Annotated[CloudConfig | None, BeforeValidator(_cloud_only)]
EnvironmentConfigChange = Annotated[
    Annotated[CloudConfig | SelfHostedConfig, Field(discriminator="type")] | None, LeftOut
]


class EnvironmentCreate(Body):
    """`POST /v1/environments`."""

    name: Name
    config: EnvironmentConfig = None
    description: Description | None = None
    metadata: Metadata | None = None
    scope: Literal["organization", "account"] | None = None


class EnvironmentUpdate(Body):
    """`POST /v1/environments/{id}`."""

    name: Name | None = None
    config: EnvironmentConfigChange = None
    description: Description | None = None
    metadata: MetadataPatch | None = None
    scope: Literal["organization", "account"] | None = None
