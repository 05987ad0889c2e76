"""What all groups of settings share: sources, secrets from files, types."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from sidecar.errors import SettingsError

FILE_SUFFIX = "_FILE"

CommaList = Annotated[tuple[str, ...], NoDecode]
"""A comma-separated list; blanks around items and empty items are dropped."""

Seconds = Annotated[float, Field(gt=0)]


def _whole(value: str) -> str:
    """Refuse what is inside a secret or a URL by mistake: nothing could authenticate with it."""
    wrong = next((c for c in value if c.isspace() or not c.isprintable()), None)
    if wrong is not None:
        kind = "blank" if wrong == " " else f"control character ({ascii(wrong)[1:-1]})"
        raise ValueError(f"has a {kind} inside, after character {value.index(wrong)}")
    return value


def _without_trailing_slash(url: str) -> str:
    _whole(url)
    if not url:
        return url
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError("needs a host and, if any, a port up to 65535 (IPv6: http://[::1]:4000)")
    if "?" in url or "#" in url:
        raise ValueError("must end with the path: what follows ? or # would be lost")
    return parts.scheme + url[len(parts.scheme) :].rstrip("/")


Url = Annotated[str, AfterValidator(_without_trailing_slash)]


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "must not have a user or password: the Authorization header has what its own variable holds"
        )
    return url


KeyedUrl = Annotated[Url, AfterValidator(_without_user)]
"""The URL of a service whose key, in a variable of its own, is sent in the Authorization header."""


def _address(host: str) -> str:
    if host == "*":
        return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104  # what `*` means
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        is_ipv6 = ipaddress.ip_address(host.partition("%")[0]).version == 6
    except ValueError:
        is_ipv6 = False
    if "/" in host or any(c.isspace() for c in host) or (":" in host and not is_ipv6):
        raise ValueError("must be an address or a name alone; the port has a setting of its own")
    return host


Host = Annotated[str, AfterValidator(_address)]
"""An address to listen on; IPv6 may be written in brackets, and `*` is every address of both families."""


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads `<NAME>_FILE` for every secret field, as Docker and Kubernetes mount secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        name = env_name(self.settings_cls, field_name)
        path = os.environ.get(f"{name}{FILE_SUFFIX}")
        if not path or not is_secret(field):
            return None, field_name, False
        if os.environ.get(name):
            raise SettingsError(f"{name} and {name}{FILE_SUFFIX} are both set; keep one of them")
        try:
            value = Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{name}{FILE_SUFFIX}: cannot read {path}: {error}") from error
        if not value:
            raise SettingsError(f"{name}{FILE_SUFFIX}: {path} is empty; unset it to have no {name}")
        return value, field_name, False

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
        hide_input_in_errors=True,  # it may be a secret
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
    def _read_text(cls, value: object, info: Any) -> object:
        """Strip what a file, a Kubernetes secret or an editor left around a value; split lists."""
        if not isinstance(value, str):
            return value
        field = cls.model_fields[info.field_name]
        if field.annotation == tuple[str, ...]:
            return tuple(item.strip() for item in value.split(",") if item.strip())
        stripped = value.strip()
        if value and not stripped:
            raise ValueError("is set and holds only blanks; unset it, or give it a value")
        return _whole(stripped) if is_secret(field) else stripped


def env_name(group: type[BaseSettings], field_name: str) -> str:
    """Return the environment variable of a field."""
    alias = group.model_fields[field_name].validation_alias
    if isinstance(alias, str):
        return alias
    return f"{group.model_config.get('env_prefix', '')}{field_name}".upper()


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
