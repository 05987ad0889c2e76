"""The synchronous client: threads, running loops, closing, forgetting to close, forking."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sidecar.sdk import Client, ClientClosedError, ModelPage
from tests.fakes.anthropic_api import Fault, serving_in_a_thread
from tests.fakes.cursor_api import CursorApi
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def threaded_cursor() -> Iterator[tuple[CursorApi, str]]:
    fake = CursorApi()
    with serving_in_a_thread(fake) as url:
        yield fake, url


def cursor_settings(url: str, key: str) -> dict[str, Any]:
    return {"api_keys": {"cursor": key}, "base_urls": {"cursor": url}, "environ": {}}


async def test_the_sync_client_in_a_worker_thread(threaded_cursor: tuple[CursorApi, str]) -> None:
    """Both spellings and `retrieve` work beside a running loop."""
    fake, url = threaded_cursor

    def use() -> tuple[ModelPage, ModelPage, str]:
        with Client(**cursor_settings(url, fake.key)) as client:
            assert client.models() is client.models
            first = client.models().list("cursor")
            second = client.models.list(runtime="cursor")
            return first, second, client.models.retrieve("cursor", "gpt-5.2").id

    first, second, model_id = await asyncio.to_thread(use)
    assert first == second
    assert model_id == "gpt-5.2"


async def test_the_sync_client_may_block_a_running_loop(
    threaded_cursor: tuple[CursorApi, str],
) -> None:
    """Called directly in a coroutine, as notebooks do, it answers instead of raising."""
    fake, url = threaded_cursor

    with Client(**cursor_settings(url, fake.key)) as client:
        assert len(client.models.list("cursor")) == 2


def test_one_sync_client_for_many_threads(threaded_cursor: tuple[CursorApi, str]) -> None:
    """Sixteen threads share one client, one loop and its connections."""
    fake, url = threaded_cursor

    with Client(**cursor_settings(url, fake.key)) as client, ThreadPoolExecutor(16) as pool:
        pages = list(pool.map(lambda _: client.models.list("cursor"), range(64)))

        assert {len(page) for page in pages} == {2}
        names = [t.name for t in threading.enumerate() if t.name == "opencode-sidecar-sdk"]
        assert len(names) == 1


def test_closing_ends_the_thread_and_further_calls(
    threaded_cursor: tuple[CursorApi, str],
) -> None:
    """After `close()`, which may be repeated, the thread is gone and calls say why they fail."""
    fake, url = threaded_cursor
    client = Client(**cursor_settings(url, fake.key))
    client.models.list("cursor")

    client.close()
    client.close()

    assert not [t for t in threading.enumerate() if t.name == "opencode-sidecar-sdk"]
    with pytest.raises(ClientClosedError, match="closed"):
        client.models.list("cursor")


def test_closing_frees_a_thread_that_waits(threaded_cursor: tuple[CursorApi, str]) -> None:
    """A call that hangs in another thread ends with ClientClosedError."""
    fake, url = threaded_cursor
    fake.faults.append(Fault(hangs=True))
    client = Client(**cursor_settings(url, fake.key))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.models.list, "cursor")
        assert fake.arrived.wait(PATIENCE_SECONDS)
        client.close()
        with pytest.raises(ClientClosedError, match="during the call"):
            waiting.result(timeout=PATIENCE_SECONDS)


def test_a_forgotten_client_is_closed_by_the_collector(
    threaded_cursor: tuple[CursorApi, str],
) -> None:
    """No thread outlives a client without references."""
    fake, url = threaded_cursor
    assert len(Client(**cursor_settings(url, fake.key)).models.list("cursor")) == 2

    gc.collect()

    assert not [t for t in threading.enumerate() if t.name == "opencode-sidecar-sdk"]


def test_a_script_that_forgets_to_close_ends_cleanly(
    threaded_cursor: tuple[CursorApi, str],
) -> None:
    """The interpreter exits at once, with nothing on standard error."""
    fake, url = threaded_cursor
    code = (
        "import sys; from sidecar.sdk import Client\n"
        "client = Client(api_keys={'cursor': sys.argv[2]}, base_urls={'cursor': sys.argv[1]})\n"
        "print(len(client.models.list('cursor')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, url, fake.key],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_forked_child_is_told_instead_of_hanging(threaded_cursor: tuple[CursorApi, str]) -> None:
    """The private thread does not exist after fork(); a call there would wait indefinitely."""
    fake, url = threaded_cursor
    with Client(**cursor_settings(url, fake.key)) as client:
        client.models.list("cursor")
        forking = multiprocessing.get_context("fork")
        receive, send = forking.Pipe(duplex=False)

        def child() -> None:
            try:
                client.models.list("cursor")
            except ClientClosedError as error:
                send.send(str(error))

        process = forking.Process(target=child, daemon=True)
        process.start()
        try:
            assert receive.poll(PATIENCE_SECONDS)
            assert "fork" in receive.recv()
        finally:
            process.kill()
            process.join()
