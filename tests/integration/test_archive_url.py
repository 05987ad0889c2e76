"""A place for archives that cannot be used: one clear sentence, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config import ArchiveSettings
from sidecar.store.interface import ObjectError
from sidecar.store.objects import Objects
from tests.integration.test_database_url import refusal
from tests.postgres import PostgresCluster
from tests.s3_server import s3_server


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "SIDECAR_WORKSPACE=archive needs SIDECAR_ARCHIVE_URL"),
        ({"DATABASE_URL": "", "SIDECAR_ARCHIVE_URL": "s3://b"}, "needs DATABASE_URL"),
        ({"SIDECAR_ARCHIVE_URL": "ftp://b/c"}, "must be s3://bucket"),
        ({"SIDECAR_ARCHIVE_URL": "s3://key:secret@bucket"}, "must be s3://bucket"),
        ({"SIDECAR_ARCHIVE_URL": "s3://bucket?x=1"}, "must be s3://bucket"),
        ({"SIDECAR_ARCHIVE_URL": "file://relative"}, "must be s3://bucket"),
        ({"SIDECAR_ARCHIVE_URL": "file:///"}, "must be s3://bucket"),
        ({"SIDECAR_ARCHIVE_URL": "s3://b", "SIDECAR_ARCHIVE_ACCESS_KEY": "a"}, "belong together"),
        (
            {"SIDECAR_ARCHIVE_URL": "file:///a", "SIDECAR_ARCHIVE_ENDPOINT": "http://h:1"},
            "is a directory, which has no",
        ),
        (
            {"SIDECAR_ARCHIVE_URL": "s3://b", "SIDECAR_WORKSPACE": "shared"},
            "SIDECAR_ARCHIVE_URL needs SIDECAR_WORKSPACE=archive",
        ),
    ],
)
async def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    """Each is refused before anything is opened."""
    url = "postgresql://u@127.0.0.1:1/db"
    environment = {"SIDECAR_WORKSPACE": "archive", **settings}
    sentence = await refusal(tmp_path, environment.pop("DATABASE_URL", url), **environment)
    assert says in sentence


async def test_a_bucket_that_is_not_there(tmp_path: Path, postgres: PostgresCluster) -> None:
    """It is tried at the start, and keys are not shown."""
    sentence = await refusal(
        tmp_path,
        postgres.url(),
        SIDECAR_WORKSPACE="archive",
        SIDECAR_ARCHIVE_URL="s3://bucket/folder",
        SIDECAR_ARCHIVE_ENDPOINT="http://127.0.0.1:1",
        SIDECAR_ARCHIVE_ACCESS_KEY="access",
        SIDECAR_ARCHIVE_SECRET_KEY="s3cr3t",  # not one
    )
    assert "SIDECAR_ARCHIVE_URL: cannot use s3://bucket/folder" in sentence
    assert "s3cr3t" not in sentence


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"SIDECAR_ARCHIVE_SECRET_KEY": "wr0ng"}, "SignatureDoesNotMatch"),
        ({"SIDECAR_ARCHIVE_URL": "s3://another"}, "NoSuchBucket"),
    ],
)
async def test_a_server_that_refuses(
    tmp_path: Path, postgres: PostgresCluster, wrong: dict[str, str], says: str
) -> None:
    """The server's own reason is shown."""
    async with s3_server(tmp_path / "s3") as server:
        settings = {"SIDECAR_WORKSPACE": "archive", **server.settings(), **wrong}
        sentence = await refusal(tmp_path / "data", postgres.url(), **settings)
    assert says in sentence
    assert "wr0ng" not in sentence


async def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ObjectError, match="Not a directory"):
        await Objects.of(ArchiveSettings(url=(tmp_path / "file" / "below").as_uri())).check()
