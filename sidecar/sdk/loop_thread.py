"""A private event loop in a thread of its own, for synchronous callers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from sidecar.sdk.errors import ClientClosedError

T = TypeVar("T")

_THREAD_NAME = "opencode-sidecar-sdk"


class LoopThread:
    """Runs coroutines for callers in any thread, also in one whose own event loop is running.

    The thread starts with the first call and ends with `close()`, which awaits `finish()` on the loop
    after cancelling what still runs. It is a daemon: a forgotten one does not hold up the exit.
    """

    def __init__(self, *, finish: Callable[[], Awaitable[None]]) -> None:
        self._finish = finish
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_closed = False
        self._pid = 0  # of the process in which the thread lives

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `make()` on the loop and wait for its result. Raises what it raises.

        Raises ClientClosedError after `close()`, when closed meanwhile, and in a child made by fork(),
        where the thread does not exist and a call would never return.
        """
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("the client is closed")
            if self._thread is not None and self._pid != os.getpid():
                raise ClientClosedError("a client does not survive fork(); make one per process")
            future = asyncio.run_coroutine_threadsafe(make(), self._running_loop())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosedError("the client was closed during the call") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs, await `finish()`, end the thread. Idempotent, from any thread."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        if thread is not threading.current_thread():
            thread.join()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._thread is None:
            self._pid = os.getpid()
            is_ready = threading.Event()
            self._thread = threading.Thread(
                target=asyncio.run,
                args=(self._run_until_stopped(is_ready),),
                name=_THREAD_NAME,
                daemon=True,
            )
            self._thread.start()
            is_ready.wait()
        assert self._loop is not None
        return self._loop

    async def _run_until_stopped(self, is_ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        is_ready.set()
        await self._stop.wait()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._finish()
