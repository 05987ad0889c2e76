"""Settings of `SIDECAR_WORKSPACE=archive`: where the sessions' files are kept between pods."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sidecar.config.base import Seconds, SettingsGroup, Url
from sidecar.errors import SettingsError


class ArchiveSettings(SettingsGroup):
    """Where archives go, and how large and slow they may be."""

    model_config = SettingsConfigDict(env_prefix="SIDECAR_ARCHIVE_")

    url: str | None = None
    """Where the sessions' files are kept: `s3://bucket/folder`, or `file:///directory` for one that all pods
    mount. Required with `SIDECAR_WORKSPACE=archive`."""
    endpoint: Url | None = None
    """URL of an S3-compatible server. Unset: Amazon's for the region."""
    region: str = "us-east-1"
    """Region of the bucket; most S3-compatible servers take any."""
    access_key: SecretStr | None = None
    """Access key id for the bucket. Unset, with the secret: what the environment offers as AWS's own
    programs use it (`AWS_ACCESS_KEY_ID`, a web identity, the machine's role)."""
    secret_key: SecretStr | None = None
    """Secret access key that belongs to it."""
    max_bytes: Annotated[int, Field(ge=1_000_000)] = 2_000_000_000
    """Size of a session's files, uncompressed, up to which they are archived, bytes. Larger ones stay on
    their pod, and the last archive stays as it is."""
    max_files: Annotated[int, Field(ge=100)] = 200_000
    """Number of files, directories and links up to which a session is archived."""
    timeout_seconds: Seconds = 60.0
    """How long the end of a turn waits for the archive, and the start of one for what is restored."""

    @property
    def directory(self) -> PurePosixPath | None:
        """The directory of a `file://` URL, None for a bucket."""
        parts = urlsplit(self.url or "")
        return PurePosixPath(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def bucket(self) -> tuple[str, str]:
        """(name, folder) of an `s3://` URL."""
        parts = urlsplit(self.url or "")
        return parts.netloc, parts.path.strip("/")

    def check(self) -> None:
        """Raise SettingsError for a place that cannot be."""
        if self.url is None:
            return
        try:
            parts = urlsplit(self.url)
            is_directory = parts.scheme == "file" and not parts.netloc and parts.path.strip("/")
            is_bucket = parts.scheme == "s3" and parts.netloc and parts.netloc == parts.hostname
        except ValueError:
            is_directory = is_bucket = ""
        if not (is_directory or is_bucket) or parts.query or parts.fragment:
            raise SettingsError(
                "SIDECAR_ARCHIVE_URL: must be s3://bucket, s3://bucket/folder or file:///directory; keys and "
                "endpoint have settings of their own"
            )
        if is_directory and (self.endpoint or self.access_key or self.secret_key):
            raise SettingsError(
                "SIDECAR_ARCHIVE_URL is a directory, which has no SIDECAR_ARCHIVE_ENDPOINT, _ACCESS_KEY or "
                "_SECRET_KEY; unset those"
            )
        if (self.access_key is None) != (self.secret_key is None):
            raise SettingsError(
                "SIDECAR_ARCHIVE_ACCESS_KEY and SIDECAR_ARCHIVE_SECRET_KEY belong together; set both or none"
            )
