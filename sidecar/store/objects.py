"""Files kept under names in an S3-compatible bucket or a directory, through obstore (the extra `archive`).

An object appears whole or not at all: a bucket publishes an upload when it is complete, a directory gets a
finished file by renaming. Names are ours, never a client's text.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from sidecar.store.interface import ObjectError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Config

    from sidecar.config import ArchiveSettings

_CHUNK_BYTES = 8 * 1024 * 1024
_UPLOADS_AT_ONCE = 3
"""Parts of one file that are under way together: what an upload takes of the memory is this many chunks."""
_REQUEST_TIMEOUT = datetime.timedelta(seconds=30)
_RETRIES = 3
_PROBE = "opencode-sidecar.probe"


class Objects:
    """Put, get and delete. Each call raises ObjectError."""

    def __init__(self, store: ObjectStore, *, directory: Path | None = None) -> None:
        self._store = store
        self._directory = directory

    @classmethod
    def of(cls, settings: ArchiveSettings) -> Objects:
        """Return the place that the settings name; nothing is connected yet. Raises ObjectError."""
        try:
            if settings.directory is not None:
                directory = Path(settings.directory)
                return cls(LocalStore(directory, mkdir=True), directory=directory)
            bucket, folder = settings.bucket
            config: S3Config = {"region": settings.region}
            if settings.access_key is not None and settings.secret_key is not None:
                config["access_key_id"] = settings.access_key.get_secret_value()
                config["secret_access_key"] = settings.secret_key.get_secret_value()
            if settings.endpoint is not None:
                config["endpoint"] = settings.endpoint
            return cls(
                S3Store(
                    bucket,
                    prefix=folder or None,
                    config=config,
                    client_options={
                        "allow_http": (settings.endpoint or "").startswith("http:"),
                        "timeout": _REQUEST_TIMEOUT,
                    },
                    retry_config={"max_retries": _RETRIES, "retry_timeout": _REQUEST_TIMEOUT},
                )
            )
        except (BaseError, OSError, ValueError) as error:
            raise _object_error(error) from error

    async def check(self) -> None:
        """Write, read and delete a small object."""
        name = f"{_PROBE}.{os.urandom(8).hex()}"
        try:
            await obstore.put_async(self._store, name, b"probe")
            await (await obstore.get_async(self._store, name)).bytes_async()
            await obstore.delete_async(self._store, name)
        except (BaseError, OSError) as error:
            raise _object_error(error) from error

    async def put(self, name: str, file: Path) -> None:
        """Store a file's content, durably."""
        try:
            await obstore.put_async(
                self._store,
                name,
                file,
                chunk_size=_CHUNK_BYTES,
                max_concurrency=_UPLOADS_AT_ONCE,
            )
            if self._directory is not None:
                await asyncio.to_thread(_sync, self._directory / name)
        except (BaseError, OSError) as error:
            raise _object_error(error) from error

    async def get(self, name: str, file: Path, *, max_bytes: int) -> str:
        """Write an object to a new file; return the SHA-256 of what came.

        Raises ObjectError also for one that is larger, or not there.
        """
        digest, size = hashlib.sha256(), 0
        try:
            found = await obstore.get_async(self._store, name)
            with file.open("xb") as stream:
                async for piece in found.stream(min_chunk_size=_CHUNK_BYTES):
                    size += len(piece)
                    if size > max_bytes:
                        raise ObjectError(f"{name} is larger than {max_bytes:,} bytes")
                    await asyncio.to_thread(_give, memoryview(piece), stream.write, digest.update)
        except (BaseError, OSError) as error:
            raise _object_error(error) from error
        return digest.hexdigest()

    async def names_under(self, folder: str) -> list[str]:
        """Return the names of all objects in a folder."""
        try:
            found = await obstore.list(self._store, f"{folder}/").collect_async()
        except (BaseError, OSError) as error:
            raise _object_error(error) from error
        return [entry["path"] for entry in found]

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""
        for name in names:
            try:
                await obstore.delete_async(self._store, name)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise _object_error(error) from error


def _give(data: memoryview, *takers: Callable[[memoryview], object]) -> None:
    for take in takers:
        take(data)


def _sync(file: Path) -> None:
    for path in (file, file.parent):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _object_error(error: BaseException) -> ObjectError:
    described, _, _ = str(error).partition("Debug source:")
    text = " ".join(described.split()) or type(error).__name__
    return ObjectError(text[:400])
