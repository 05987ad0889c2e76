"""What all groups of settings share: where values come from, secrets from files, types.

Not pydantic-settings: what we need of it is this file, and importing it was a tenth of the start.
"""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from sidecar.errors import SettingsError

FILE_SUFFIX = "_FILE"


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _parse(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError("is not JSON") from error


def _without_trailing_slash(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url.rstrip("/")


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""A comma-separated list; blanks around items and empty items are dropped."""

FromJson = BeforeValidator(_parse)
"""Marks what is written as JSON."""

Seconds = Annotated[float, Field(gt=0)]

Url = Annotated[str, AfterValidator(_without_trailing_slash)]


class SettingsGroup(BaseModel):
    """One concern. Immutable. What is not given when it is made is read from the environment.

    An empty variable counts as unset, and the case of its name does not matter.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    env_prefix: ClassVar[str]

    def __init__(self, **given: Any) -> None:
        super().__init__(**(_environment_of(type(self)) | given))


def _environment_of(group: type[SettingsGroup]) -> dict[str, str]:
    environ = {name.upper(): value for name, value in os.environ.items() if value}
    found = {}
    for field_name, field in group.model_fields.items():
        name = env_name(group, field_name)
        value = environ.get(name)
        if is_secret(field):
            value = _with_file(name, value)
        if value is not None:
            found[field_name] = value
    return found


def _with_file(name: str, value: str | None) -> str | None:
    """Return the value of a secret, from `<NAME>_FILE` as Docker and Kubernetes mount secrets."""
    path = os.environ.get(f"{name}{FILE_SUFFIX}")
    if not path:
        return value
    if value is not None:
        raise SettingsError(f"{name} and {name}{FILE_SUFFIX} are both set; keep one of them")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name}{FILE_SUFFIX}: cannot read {path}: {error}") from error


def env_name(group: type[SettingsGroup], field_name: str) -> str:
    """Return the environment variable of a field."""
    alias = group.model_fields[field_name].validation_alias
    return alias if isinstance(alias, str) else f"{group.env_prefix}{field_name}".upper()


def is_secret(field: FieldInfo) -> bool:
    """Whether the setting is a secret: masked when shown, and readable from `<NAME>_FILE`."""
    return SecretStr.__name__ in repr(field.annotation)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
