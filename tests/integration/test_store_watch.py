"""A store that cannot be written: readiness says so, requests are refused with a time to come again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from sidecar.managed.workspaces.directories import remove_directory
from tests.chaos.target import Target
from tests.integration.test_body_bounds import served
from tests.waiting import patience, until

_FAILING = """
CREATE TRIGGER failing_check BEFORE UPDATE ON key_check BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;
CREATE TRIGGER failing_environments BEFORE INSERT ON environments
    BEGIN SELECT RAISE(ABORT, 'the disk is full'); END;
"""


async def health(target: Target, wanted: bool) -> None:
    """Wait for what `/health` and `/readyz` say of the store."""
    async with patience():
        while True:
            ready = (await target.call("GET", "/readyz")).json
            if ("store" not in ready) is wanted:
                return
            assert (await target.call("GET", "/health")).json["ok"] is False
            await asyncio.sleep(0.05)


async def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """`/readyz` is 503 with the reason, a write 503 with retry-after; afterwards all is well again."""
    storage = {"check_seconds": 0.1}
    async with served(tmp_path, storage=storage) as (sidecar, target):
        with closing(sqlite3.connect(sidecar.database.location, timeout=30)) as connection:
            connection.executescript(_FAILING)
            await health(target, wanted=False)
            assert (await target.call("GET", "/readyz")).status == 503
            assert (await target.call("GET", "/livez")).status == 200
            answer = await target.call("POST", "/v1/environments", {"name": "e"})
            assert answer.status == 503
            assert answer.is_enveloped
            assert int(answer.headers["retry-after"]) >= 1
            connection.executescript(
                "DROP TRIGGER failing_check; DROP TRIGGER failing_environments"
            )
        await health(target, wanted=True)
        answer = await target.call("POST", "/v1/environments", {"name": "e"})
        assert answer.status == 200


async def test_the_data_directory_is_removed(tmp_path: Path) -> None:
    """Nothing is accepted that would be in no file any more; what is stored is still shown."""
    async with served(tmp_path, storage={"check_seconds": 0.1}) as (sidecar, target):
        assert (await target.call("POST", "/v1/environments", {"name": "kept"})).status == 200
        data_dir = Path(sidecar.database.location).parent
        await until(lambda: remove_directory(data_dir))  # the sidecar makes and removes files, too
        answer = await target.call("POST", "/v1/environments", {"name": "lost"})
        assert answer.status == 503
        assert answer.is_enveloped
        assert int(answer.headers["retry-after"]) >= 1
        await health(target, wanted=False)
        assert (await target.call("GET", "/readyz")).status == 503
        assert (await target.call("GET", "/livez")).status == 200
        listed = (await target.call("GET", "/v1/environments")).json["data"]
        assert [environment["name"] for environment in listed] == ["kept"]
