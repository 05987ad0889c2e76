"""One cluster of three real pods for the tests that do not break it, and clients of its one URL."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest

from tests.cluster.bed import NO_DEATHS, Bed, cluster_of
from tests.e2e.test_smoke_client import Attempts, Sdk
from tests.harness import RUNTIME_KEY
from tests.postgres import PostgresCluster


@pytest.fixture(scope="session")
async def bed(postgres: PostgresCluster) -> AsyncIterator[Bed]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        async with cluster_of(3, Path(directory), postgres, **NO_DEATHS) as made:
            yield made


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


@pytest.fixture
async def sdk(bed: Bed, attempts: Attempts) -> AsyncIterator[Sdk]:
    """The official client, in strict mode; each request is a connection of its own, so any pod may get it."""
    http = anthropic.DefaultAsyncHttpxClient(
        event_hooks={"request": [attempts.note]},
        limits=anthropic.DEFAULT_CONNECTION_LIMITS.__class__(max_keepalive_connections=0),
    )
    async with Sdk(
        base_url=bed.front.url,
        api_key=RUNTIME_KEY,
        _strict_response_validation=True,
        http_client=http,
    ) as client:
        yield client
